package writer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// turn is what the writing goroutine does next.
type turn struct {
	items     []item
	ping, ask bool
	mark      *checkpoint.Fence
	marked    string // the key of the mark
	held      bool
	executing bool   // a transaction is executed
	settled   uint64 // the lane's count of answered ops
}

// take moves up to n pending items to the writing goroutine.
func (l *lane) take(n int) turn {
	settled := l.settled.Load() // before held is read: an op that was refused is counted after it has held the lane
	l.mu.Lock()
	defer l.mu.Unlock()
	t := turn{held: l.held, executing: l.execs > 0, settled: settled}
	if !l.open { // within a transaction they would be queued
		t.ping, t.ask, t.mark, t.marked = l.ping, l.ask, l.mark, l.marked
		l.ping, l.ask, l.mark = false, false, nil
	}
	l.taken, l.pushed = l.taken[:0], 0
	for !l.held && l.pending.len() > 0 && len(l.taken) < n {
		l.taken = append(l.taken, l.pending.pop())
	}
	l.busy = !l.held
	t.items = l.taken
	return t
}

// rest says that the writing goroutine has done what it has taken.
func (l *lane) rest() {
	l.mu.Lock()
	l.busy = false
	l.pushed = len(l.taken)
	l.mu.Unlock()
}

// write encodes items and writes them as long as the connection lives.
func (l *lane) write(ctx context.Context, conn *resp.Conn) error {
	current := 0
	l.whole = wholeTx{} // what the last connection has begun ended with it
	o := &outbox{conn: conn.Conn, count: l.counted, moved: l.moved, refused: l.unbuilt.Load}
	o.settle = func() error { return l.settle(ctx) }
	o.push = func(ops []op) {
		if o.unfinished {
			l.launch(ops, current-1)
			return
		}
		l.launch(ops, current)
	}
	for {
		if err := l.d.leased(ctx); err != nil {
			return err
		}
		t := l.take(l.appetite())
		l.controls(o, t)
		sent, err := l.deliver(o, t, &current)
		if err == nil {
			l.askReplicas(o)
			err = o.flush()
		}
		if err != nil {
			return l.encodeFailed(err)
		}
		current = 0
		l.rest()
		if sent || len(t.items) > 0 {
			continue
		}
		signal(l.d.idle)
		select {
		case <-l.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// appetite is how many items are taken at once.
func (l *lane) appetite() int {
	switch {
	case l.d.slots != nil:
		return 16 * takeItems // these are single entries
	case !l.d.exact():
		return takeItems
	}
	return l.whole.appetite()
}

// controls appends what is not about entries.
func (l *lane) controls(o *outbox, t turn) {
	if t.ping {
		o.control(opPing, "PING")
	}
	if t.ask {
		o.control(opTimeout, "CONFIG", "GET", "timeout")
	}
	if t.mark != nil && t.marked != "" {
		o.selectDB(0)
		o.setFence(t.marked, *t.mark)
		o.ops = append(o.ops, op{kind: opMark, left: 1, total: 1})
	}
}

// deliver encodes what was taken. It reports whether anything was, beside the items of the turn.
func (l *lane) deliver(o *outbox, t turn, current *int) (sent bool, err error) {
	switch {
	case l.d.slots != nil:
		return l.throughGate(o, t, current)
	case !l.d.exact() || len(t.items) > 0 && t.items[0].loose():
		return false, l.pipeline(o, t.items, current)
	}
	return l.whole.deliver(l, o, t, current)
}

// loose reports whether an item needs no fence: a key of the snapshot may be written twice, and what concerns every node
// is waited for with nothing else on its way.
func (it item) loose() bool {
	_, onLane := it.part.lane()
	return it.batch.Snapshot || onLane
}

// pipeline encodes items as they come.
func (l *lane) pipeline(o *outbox, items []item, current *int) error {
	for i, it := range items {
		*current = i + 1
		if err := l.d.enc.encode(o, it); err != nil {
			return err
		}
		if o.size >= flushBytes {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// counted notes bytes that are about to be written.
func (l *lane) counted(n int) {
	l.wrote.Add(int64(n))
	l.wroteAt.Store(time.Now().UnixNano())
}

// encodeFailed tells what the connection cannot help from what it did.
func (l *lane) encodeFailed(err error) error {
	if errors.As(err, new(*spoolError)) || !isNetwork(err) && !errors.Is(err, context.Canceled) {
		l.d.fatal(fmt.Errorf("an entry could not be encoded: %w", err))
	}
	return err
}

func (o *outbox) control(kind opKind, args ...string) {
	n := len(o.arena)
	o.arena = resp.AppendCommand(o.arena, args...)
	o.grown(n)
	o.ops = append(o.ops, op{kind: kind, left: 1, total: 1})
}

// launch puts ops in flight, which belong to the first `current` of the taken items and to none behind them.
func (l *lane) launch(ops []op, current int) {
	entries, size := int64(0), int64(0)
	l.mu.Lock()
	if !l.waiting() {
		l.due = time.Now()
	}
	for i := range ops {
		l.flight.push(ops[i])
		l.replicas.launched(&ops[i])
		switch ops[i].kind {
		case opMulti:
			l.open = true
		case opExec, opDiscard:
			l.open = false
			l.execs++
		}
		entries += int64(ops[i].count)
		size += int64(ops[i].size)
	}
	l.pushed = current
	l.sent += uint64(len(ops))
	l.mu.Unlock()
	l.entries.Add(entries)
	l.bytes.Add(size)
}

// moved notes that a piece of a long entry was taken by the connection: its reply is not due yet.
func (l *lane) moved() {
	l.mu.Lock()
	l.due = time.Now()
	l.mu.Unlock()
}

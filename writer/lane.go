package writer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
)

// lane is one connection to one target node, and the entries in flight on it. The dispatcher appends items, one
// goroutine encodes and writes them, one reads replies, one keeps the connection. What goes wrong is collected here and
// handed to the dispatcher, which alone decides what is sent again.
type lane struct {
	d    *dispatcher
	addr string
	keep *keepalive.Keeper
	wake chan struct{}

	local  []item // the dispatcher's, before it pushes them
	served bool   // the dispatcher's: it was connected once
	fresh  bool   // the dispatcher's: it was connected anew since fences were read
	id     int64  // the dispatcher's: the target's number of the connection; 0 if unknown
	runID  string // the dispatcher's: of the server that it was connected to
	marked string // the dispatcher's: the key of its mark

	mu      sync.Mutex
	conn    *resp.Conn    // nil while down
	over    chan struct{} // of the last connection: closed when its goroutines have ended
	pending ring[item]    // not yet taken by the writing goroutine
	taken   []item        // taken, of which those before pushed are in flight
	pushed  int
	flight  ring[op]
	reading bool // the oldest op was taken out of flight, and is not answered in full
	partial op   // that op, once the lane is down
	held    bool // nothing more may be taken
	busy    bool // the writing goroutine works on what it has taken
	open    bool // a transaction is begun, and not executed
	execs   int  // transactions in flight that are executed
	mark    *checkpoint.Fence
	failed  []item
	cause   *failure  // the worst of those
	repeats int64     // how many of those are applied already
	due     time.Time // since when a reply has been due
	ping    bool
	ask     bool

	// owned by the reading goroutine, and by the dispatcher while the lane is quiet
	failing bool
	slots   map[uint16]bool // which have failed, on a cluster
	queued  []op            // of the transaction that is not decided yet
	abort   *refusedOp      // why it will be refused

	sent    uint64        // ops launched; of the writing goroutine
	settled atomic.Uint64 // ops answered
	gate    gate
	whole   wholeTx

	state      atomic.Value // string, for status
	wrote      atomic.Int64 // bytes
	wroteAt    atomic.Int64 // unix ns
	entries    atomic.Int64 // in flight
	bytes      atomic.Int64 // in flight
	replied    atomic.Int64 // unix ns of the last reply
	acked      atomic.Int64 // entries
	fenced     atomic.Int64 // the highest offset of a fence that was written
	pings      atomic.Int64
	reconnects atomic.Int64
	redirects  atomic.Int64
	stalled    atomic.Bool // a wait for a reply is shown
}

// failure is why entries could not be written.
type failure struct {
	act  action
	err  *resp.Error
	what error // names the entry, where the operator has to mend it
}

func newLane(d *dispatcher, addr string) *lane {
	l := &lane{
		d: d, addr: addr, wake: make(chan struct{}, 1),
		keep:  keepalive.NewKeeper(d.cfg.ReplyTimeout, d.cfg.PingInterval),
		slots: make(map[uint16]bool),
	}
	l.state.Store("connecting")
	return l
}

const takeItems = 256

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// push appends items. It never waits.
func (l *lane) push(items ...item) {
	l.mu.Lock()
	for _, it := range items {
		l.pending.push(it)
	}
	l.mu.Unlock()
	signal(l.wake)
}

// begin takes a ready connection, which serve then runs.
func (l *lane) begin(conn *resp.Conn) {
	l.replied.Store(time.Now().UnixNano())
	l.state.Store("ready")
	l.mu.Lock()
	l.conn = conn
	l.over = make(chan struct{})
	l.held = false
	l.mu.Unlock()
}

// close ends the lane's connection, if it has one, and waits until it is gone.
func (l *lane) close() {
	l.mu.Lock()
	conn, over := l.conn, l.over
	l.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
		<-over
	}
}

// serve runs a connection until it is lost or ctx ends.
func (l *lane) serve(ctx context.Context, conn *resp.Conn) {
	g, gctx := errgroup.WithContext(ctx)
	closer := context.AfterFunc(gctx, func() { _ = conn.Close() })
	g.Go(func() error { return l.write(gctx, conn) })
	g.Go(func() error { return l.read(conn) })
	g.Go(func() error { return l.keep.Run(gctx, l.kept()) })
	err := g.Wait()
	closer()
	_ = conn.Close()
	l.answered()
	l.state.Store("closed")
	l.mu.Lock()
	l.conn = nil
	l.held = true
	close(l.over)
	l.mu.Unlock()
	if ctx.Err() == nil {
		l.d.lost(l, err)
	}
}

// turn is what the writing goroutine does next.
type turn struct {
	items     []item
	ping, ask bool
	mark      *checkpoint.Fence
	held      bool
	executing bool // a transaction is executed
}

// take moves up to n pending items to the writing goroutine.
func (l *lane) take(n int) turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := turn{held: l.held, executing: l.execs > 0}
	if !l.open { // within a transaction they would be queued
		t.ping, t.ask, t.mark = l.ping, l.ask, l.mark
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
	o := &outbox{conn: conn.Conn, push: func(ops []op) { l.launch(ops, current) }, count: l.counted, moved: l.moved}
	for {
		if err := l.d.leased(ctx); err != nil {
			return err
		}
		t := l.take(l.appetite())
		l.controls(o, t)
		sent, err := l.deliver(o, t, &current)
		if err == nil {
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
	case !l.d.exact():
		return takeItems
	case l.d.slots != nil:
		return 4 * takeItems // these are single entries
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
	if t.mark != nil && l.marked != "" {
		o.selectDB(0)
		o.setFence(l.marked, *t.mark)
		o.ops = append(o.ops, op{kind: opMark, left: 1, total: 1})
	}
}

// deliver encodes what was taken. It reports whether anything was, beside the items of the turn.
func (l *lane) deliver(o *outbox, t turn, current *int) (sent bool, err error) {
	switch {
	case !l.d.exact() || len(t.items) > 0 && t.items[0].loose():
		return false, l.pipeline(o, t.items, current)
	case l.d.slots != nil:
		return l.throughGate(o, t, current)
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

// quiet reports whether nothing is on its way any more: the lane is down, or held with all replies in.
func (l *lane) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn == nil || l.held && !l.busy && !l.open && l.pushed == len(l.taken) && !l.waiting()
}

// idle reports whether there is nothing to do.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending.len() == 0 && !l.busy && !l.open && l.pushed == len(l.taken) && !l.waiting() && len(l.failed) == 0 && l.gate.empty()
}

// waiting reports whether replies are due. The lane must be locked.
func (l *lane) waiting() bool { return l.reading || l.flight.len() > 0 }

// hold stops taking items; release goes on.
func (l *lane) hold() {
	l.mu.Lock()
	l.held = true
	l.mu.Unlock()
	signal(l.wake) // a transaction that is open has to be given up
}

func (l *lane) release() {
	l.mu.Lock()
	l.held = l.conn == nil
	l.mu.Unlock()
	signal(l.wake)
}

// collect adds to s everything that is not acknowledged on a quiet lane, in order, and why.
func (l *lane) collect(s *setback) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.failed = append(s.failed, l.failed...)
	if l.cause != nil && (s.cause == nil || l.cause.act > s.cause.act) {
		s.cause = l.cause
	}
	s.again += l.repeats
	l.failed, l.cause, l.repeats = nil, nil, 0
	l.failing = false
	clear(l.slots)
	for i := range l.queued {
		s.undecided(&l.queued[i])
	}
	l.queued, l.abort = l.queued[:0], nil
	for l.conn == nil && l.waiting() { // on a live connection only control commands can be in flight
		o := l.partial
		if !l.reading {
			o = l.flight.pop()
		}
		l.reading = false
		if o.kind.queued() || o.kind == opExec {
			s.undecided(&o)
			continue
		}
		rest, acked := o.rest()
		if acked > 0 {
			o.batch.Done(acked)
		}
		s.rest = append(s.rest, rest...)
		s.unacked += int64(o.count) - int64(acked) - int64(o.bad)
	}
	l.entries.Store(0)
	l.bytes.Store(0)
	s.rest = append(s.rest, l.taken[l.pushed:]...)
	l.taken, l.pushed = l.taken[:0], 0
	l.open, l.execs = false, 0
	l.settled.Store(l.sent)
	s.rest = l.gate.collect(l.d.slots, s.rest)
	for l.pending.len() > 0 {
		s.rest = append(s.rest, l.pending.pop())
	}
}

// who names the lane where waits are listed.
func (l *lane) who() string { return "target " + l.addr }

// Ping implements keepalive.Lane. A lane that wrote lately needs none, and one whose mutex is taken is in use.
func (l *lane) Ping() {
	if time.Since(time.Unix(0, l.wroteAt.Load())) < l.keep.Interval()/2 {
		return
	}
	if !l.mu.TryLock() {
		return
	}
	busy := l.waiting()
	if !busy {
		l.ping = true
	}
	l.mu.Unlock()
	if !busy {
		l.pings.Add(1)
		signal(l.wake)
	}
}

// AskTimeout implements keepalive.Lane.
func (l *lane) AskTimeout() {
	l.mu.Lock()
	l.ask = true
	l.mu.Unlock()
	signal(l.wake)
}

// unpinged is a lane whose keepalive is switched off: it is only watched for replies that do not come.
type unpinged struct{ *lane }

func (unpinged) Ping()       {}
func (unpinged) AskTimeout() {}

func (l *lane) kept() keepalive.Lane {
	if l.d.cfg.Keepalive {
		return l
	}
	return unpinged{l}
}

// answered takes back what Probe has told the operator.
func (l *lane) answered() {
	if l.stalled.Load() && l.stalled.CompareAndSwap(true, false) {
		l.d.cfg.Waits.Clear("target " + l.addr)
	}
}

// Stalled implements keepalive.Lane.
func (l *lane) Stalled() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.waiting() {
		return 0
	}
	last := time.Unix(0, l.replied.Load())
	if l.due.After(last) {
		last = l.due
	}
	return time.Since(last)
}

// Probe implements keepalive.Lane.
func (l *lane) Probe(ctx context.Context) keepalive.Verdict {
	const patience = 5 * time.Second
	l.stalled.Store(true)
	l.d.cfg.Waits.Set("target "+l.addr, fmt.Sprintf("no reply for %v", l.Stalled().Round(time.Second)),
		"none needed if the target works on a slow command; else look at that server")
	c, err := l.d.cfg.Dialer.Dial(ctx, l.addr)
	if e := (*topology.Error)(nil); errors.As(err, &e) && e.Op == "TLS handshake" {
		return keepalive.Busy // its machine has accepted the connection
	}
	if err != nil {
		return keepalive.Unreachable
	}
	defer c.Close() //nolint:errcheck // was only a probe
	if _, err := resp.NewConn(c).Do(ctx, patience, "PING"); err != nil && !errors.As(err, new(*resp.Error)) {
		return keepalive.Busy
	}
	return keepalive.Alive
}

package writer

import (
	"sync/atomic"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
)

// A lane of a cluster sends what may be repeated as it comes, and everything else in a transaction with the fence of its
// slot; where delivery is at least once, everything goes as it comes. Such a transaction goes only when every earlier entry of its slot is
// acknowledged without error, because the fence claims them; and nothing of the slot goes until it is answered, because
// a later command would overtake it if it is refused. What comes meanwhile joins the slot's next transaction. Other
// slots flow on. Nothing of a slot goes either once an entry of it was redirected: see frozen.go.

// slotState is what the lane that has a slot knows of it. It belongs to the lane's writing goroutine, and to the
// dispatcher while the lane is quiet.
type slotState struct {
	last    uint64        // number of the lane's op that holds the newest entry sent
	fenced  bool          // that op is a transaction
	listed  bool          // it is in the gate's list
	leaves  bool          // what the lane has of it is handed over when everything sent is answered
	refused atomic.Bool   // an entry was redirected: what follows it is sent again behind it
	since   time.Duration // when the oldest entry that waits came, or the last transaction went; since the run began
	queue   []item        // entries that wait, oldest first
}

// sent takes the first n entries off the queue.
func (st *slotState) sent(n int) {
	left := copy(st.queue, st.queue[n:])
	clear(st.queue[left:])
	st.queue = st.queue[:left]
}

type slotTable [command.Slots]slotState

// forget says that nothing is in flight or waits. Ops are counted by lane, and a slot may be another lane's from now on.
func (t *slotTable) forget() {
	for i := range t {
		t[i].last, t[i].fenced, t[i].leaves = 0, false, false
		t[i].refused.Store(false)
	}
}

// gate is the list of slots in which entries wait.
type gate struct {
	waiting []uint16
	leaving []uint16 // slots that are to be handed over
	empties bool
}

const (
	unsent    = ^uint64(0) // the number of an op that is about to be encoded
	txEntries = 256        // of one slot's transaction

	// While so many ops are in flight that the target has enough to do, slots gather entries, because each transaction
	// costs three commands more. windowOps is some ms of a server's work; ripeAfter is less than a full buffer takes to
	// pass, so that nothing is held up where replies take long.
	windowOps   = 4096
	ripeEntries = 16
	ripeAfter   = 100 * time.Millisecond
)

// empty reports whether no entry waits. The lane must be locked.
func (g *gate) empty() bool { return !g.empties }

// collect takes everything that waits. The lane must be quiet.
func (g *gate) collect(slots *slotTable, to []item) []item {
	for _, s := range g.waiting {
		st := &slots[s]
		to = append(to, st.queue...)
		clear(st.queue)
		st.queue, st.listed = st.queue[:0], false
	}
	g.waiting, g.leaving, g.empties = g.waiting[:0], g.leaving[:0], false
	return to
}

// throughGate sends what may be sent of a turn, and of what waits.
func (l *lane) throughGate(o *outbox, t turn, current *int) (sent bool, err error) {
	if t.held {
		return false, nil // the dispatcher may be at work on what waits
	}
	l.admit(t.items, t.settled)
	if err := l.pass(o, current); err != nil {
		return false, err
	}
	l.handOver(t.settled)
	if l.gate.idle() {
		l.noteGate()
		return false, nil
	}
	kept, now := l.gate.waiting[:0], time.Since(l.d.began)
	for i, s := range l.gate.waiting {
		st := &l.d.slots[s]
		if st.last > t.settled || st.shut() || l.sent+uint64(len(o.ops))-t.settled > windowOps && !st.ripe(now) {
			kept = append(kept, s)
			continue
		}
		sent = true
		if err := l.slotTransaction(o, s, st); err != nil {
			l.gate.waiting = append(kept, l.gate.waiting[i:]...)
			return false, err
		}
		if len(st.queue) > 0 {
			st.since = now
			kept = append(kept, s)
		} else {
			st.listed = false
		}
	}
	l.gate.waiting = kept
	l.noteGate()
	return sent || l.settled.Load() != t.settled, nil // else the reading goroutine wakes this one
}

// ripe reports whether what waits in a slot goes even if more may come soon.
func (st *slotState) ripe(now time.Duration) bool {
	return len(st.queue) >= ripeEntries || now-st.since >= ripeAfter
}

// admit moves entries that have to wait to the queues of their slots; the others stay taken.
func (l *lane) admit(items []item, settled uint64) {
	kept, now := items[:0], time.Since(l.d.began)
	for _, it := range items {
		if it.part&partLeave != 0 {
			l.d.slots[it.slot].leaves = true
			l.gate.leaving = append(l.gate.leaving, it.slot)
			continue
		}
		if it.loose() {
			kept = append(kept, it)
			continue
		}
		st := &l.d.slots[it.slot]
		if len(st.queue) == 0 && (!st.fenced || st.last <= settled) && !st.shut() && l.d.free(it) {
			st.last, st.fenced = unsent, false
			kept = append(kept, it)
			continue
		}
		if st.queue == nil {
			st.queue = make([]item, 0, ripeEntries/2)
		}
		st.queue = append(st.queue, it)
		if !st.listed {
			st.listed, st.since = true, now
			l.gate.waiting = append(l.gate.waiting, it.slot)
		}
	}
	l.mu.Lock()
	l.taken = l.taken[:len(kept)]
	l.gate.empties = !l.gate.idle()
	l.mu.Unlock()
}

// idle reports whether nothing waits.
func (g *gate) idle() bool { return len(g.waiting) == 0 && len(g.leaving) == 0 }

// noteGate tells the dispatcher whether anything waits.
func (l *lane) noteGate() {
	l.mu.Lock()
	l.gate.empties = !l.gate.idle()
	l.mu.Unlock()
}

// shut reports whether nothing more of the slot may go.
func (st *slotState) shut() bool { return st.leaves || st.refused.Load() }

// free reports whether an item of the stream needs no fence.
func (d *dispatcher) free(it item) bool { return !d.exact() || it.safe() }

// pass sends the entries that are still taken, neighbours together.
func (l *lane) pass(o *outbox, current *int) error {
	for i := 0; i < len(l.taken); {
		run, j := l.taken[i], i+1
		for ; j < len(l.taken) && run.plain() && l.taken[j].plain() && adjacent(run, l.taken[j]); j++ {
			run.n += l.taken[j].n
		}
		*current = j
		if err := l.d.enc.encode(o, run); err != nil {
			return err
		}
		for ; i < j; i++ {
			if it := l.taken[i]; !it.loose() {
				l.d.slots[it.slot].last = l.sent + uint64(len(o.ops))
			}
		}
		if o.size >= flushBytes {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// plain reports whether the slot of an entry is found by looking at it, even when it travels in one run with others.
func (it item) plain() bool {
	e := it.entry()
	return it.batch.Snapshot || e.Kind == haul.KindCommand && it.batch.Commands[e.First].Spec.FirstKey() > 0
}

// adjacent reports whether it follows run in its batch, and both can be one item.
func adjacent(run, it item) bool {
	return run.batch == it.batch && run.part == whole && it.part == whole && run.first+run.n == it.first &&
		inRun(run.entry()) && inRun(it.entry())
}

// slotTransaction sends what waits in a slot: in one transaction with its fence, unless all of it may be repeated.
func (l *lane) slotTransaction(o *outbox, slot uint16, st *slotState) error {
	n := min(len(st.queue), txEntries)
	now := st.queue[:n]
	st.fenced = false
	for _, it := range now {
		if !l.d.free(it) {
			st.fenced = true
			break
		}
	}
	if st.fenced {
		o.begin()
	}
	for i, it := range now {
		if err := l.d.enc.encode(o, it); err != nil {
			st.sent(i + 1) // it is in flight, as what is before it
			return err
		}
	}
	if st.fenced {
		last := now[n-1]
		o.exec(l.d.fenceKey(slot), fenceAt(last.batch, last.entry()), nil)
	}
	st.last = l.sent + uint64(len(o.ops))
	st.sent(n)
	if o.size >= flushBytes {
		return o.flush()
	}
	return nil
}

// safe reports whether an item may be applied again together with everything that follows it.
func (it item) safe() bool {
	e := it.entry()
	if e.Kind != haul.KindCommand {
		return false
	}
	b := it.batch
	cmd := &b.Commands[e.First]
	if e.Big == nil {
		return cmd.Spec.ReplaySafe(int(cmd.NArg), func(i int) []byte { return b.Arg(cmd, i) })
	}
	ok := true
	return cmd.Spec.ReplaySafe(len(e.Big.Args), func(i int) []byte {
		p, err := bigArg(e.Big, i)
		ok = ok && err == nil
		return p
	}) && ok
}

// fenceKey is the key of a slot's fence.
func (d *dispatcher) fenceKey(slot uint16) string {
	if k := d.fenceKeys[slot]; k != "" {
		return k
	}
	return d.cfg.Store.Keys().Fence(slot)
}

func fenceKeys(k checkpoint.Keys) []string {
	all := make([]string, command.Slots)
	for s := range all {
		all[s] = k.Fence(uint16(s))
	}
	return all
}

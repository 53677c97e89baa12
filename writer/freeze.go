package writer

import (
	"strings"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// This is the lane's side of a slot that moves: see frozen.go.

// moves reports whether an entry is one that waits for its slot alone.
func (l *lane) moves(it item) bool {
	_, onLane := it.part.lane()
	return l.d.slots != nil && !onLane
}

// frozen reports whether an entry follows one of its slot that was redirected.
func (l *lane) frozen(it item) bool {
	return l.shut.Load() > 0 && !it.loose() && l.d.slots[it.slotOf()].refused.Load()
}

// redirected counts an error that is about a slot, or about the node's part in the cluster.
func (l *lane) redirected(e *resp.Error) {
	if classify(e) >= actSlot {
		l.redirects.Add(1)
	}
	l.d.redirected(e)
}

func (d *dispatcher) redirected(e *resp.Error) {
	if classify(e) == actSlot {
		d.count(strings.ToLower(e.Code), 1)
	}
}

// freeze takes an entry out of its op that was redirected, or follows one of its slot that was; why is nil if it was
// applied all the same. The first of a slot has the dispatcher keep what comes later. It runs before the op counts as settled, so that the writing
// goroutine, which looks at what is settled first, sees that the slot is shut.
func (l *lane) freeze(o *op, it item, why *resp.Error) {
	o.bad++
	it.slot = it.slotOf()
	if it.batch.Snapshot {
		l.d.frozen.add(it, l.addr, why)
		return
	}
	if why == nil {
		l.d.replayTo(it)
		l.d.resend(1)
	}
	l.mu.Lock()
	l.aside[it.slot] = append(l.aside[it.slot], it)
	l.mu.Unlock()
	if l.d.slots[it.slot].refused.CompareAndSwap(false, true) {
		l.shut.Add(1)
		l.d.frozen.notice(it.slot, l, why)
	}
}

// handOver gives away what the lane has of slots that leave it, once everything that was sent of them is answered. From
// then on the lane knows nothing of them. It belongs to the writing goroutine.
func (l *lane) handOver(settled uint64) {
	kept := l.gate.leaving[:0]
	for _, s := range l.gate.leaving {
		st := &l.d.slots[s]
		if st.last > settled {
			kept = append(kept, s)
			continue
		}
		l.mu.Lock()
		items := append(l.aside[s], st.queue...)
		delete(l.aside, s)
		l.mu.Unlock()
		clear(st.queue)
		st.queue = st.queue[:0]
		if st.listed {
			l.gate.drop(s)
		}
		if st.refused.CompareAndSwap(true, false) {
			l.shut.Add(-1)
		}
		st.last, st.fenced, st.leaves, st.listed = 0, false, false, false
		l.d.frozen.takeOver(s, items)
	}
	l.gate.leaving = kept
}

// drop takes a slot off the list of those in which entries wait.
func (g *gate) drop(slot uint16) {
	kept := g.waiting[:0]
	for _, s := range g.waiting {
		if s != slot {
			kept = append(kept, s)
		}
	}
	g.waiting = kept
}

package checkpoint

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// Node is a primary of the target.
type Node struct {
	Addr, RunID string
	Holder      string // see Holder
	Mark        Fence  // up to here everything that was sent to this node is applied
	Marked      bool
	Slots       []uint16 // nil on a standalone
}

// Holder names a process as the holder of a history: as long as a primary's stays the same it has lost nothing. It is
// another one after a restart, and after a failover also if the old primary is made one again. It is empty for a server
// that does not tell.
func Holder(n topology.Node) string {
	if n.RunID == "" || n.ReplID == "" {
		return ""
	}
	return n.RunID + "/" + n.ReplID
}

// State is what the target knows of the haul. Base, Sub, Highest, Applied and Lost are filled in only if a record was
// found and its phase is PhaseStreaming: before, fences and marks mean nothing.
type State struct {
	Record    Record
	Found     bool // there is a record
	Tombstone bool // the haul was cleaned up
	Nodes     []Node
	Base      haul.Position // where reading goes on: the lowest mark; on a standalone the higher of its fence and mark
	Sub       int64         // of a standalone's fence, when that is the base
	Highest   int64         // applied offset of any fence, mark or key that is ahead
	Ahead     []Ahead       // keys that are ahead of their slot's fence; offset 0: of an earlier generation
	Unsettled []uint16      // slots that the record says are the link's, and of which the target has lost what was read of them
	Applied   []int64       // by slot: the higher of its fence and the base; one element on a standalone
	Refusals  []Refusal
	Lost      error    // wraps ErrLost: why this cannot be resumed from although Found
	Own       int64    // how many keys of keyhaul's own there are
	Leased    bool     // there is a lease: another worker runs the haul, or has
	Others    []string // other hauls that are registered on the target
}

// judge fills in what follows from what the nodes told. Its error is ErrNewer.
func (st *State) judge(all []reading, cluster bool) error {
	for _, r := range all {
		st.Nodes = append(st.Nodes, Node{Addr: r.addr, RunID: r.about.RunID, Holder: Holder(r.about), Slots: r.slots})
		for _, v := range append(append([]value(nil), r.fences...), r.marks...) {
			if v.found {
				st.Own++
			}
			if errors.Is(v.err, ErrNewer) {
				return fmt.Errorf("on %s: %w", r.addr, v.err)
			}
		}
	}
	if !st.Found || st.Record.Phase != PhaseStreaming || len(st.Record.Links) > 0 {
		return nil
	}
	if !cluster {
		st.judgeWhole(all[0])
		return nil
	}
	reasons := make([]string, len(all))
	for i, r := range all {
		reasons[i] = st.judgeMarks(&st.Nodes[i], r)
	}
	for i := range all {
		if !st.Nodes[i].Marked {
			st.lend(&st.Nodes[i], all, reasons[i])
		}
		if mark := st.Nodes[i].Mark; i == 0 || mark.Applied() < st.Base.Offset {
			st.Base = mark.At
		}
	}
	st.Applied = make([]int64, topology.SlotCount)
	for i, r := range all {
		st.judgeFences(st.Nodes[i], r)
		st.judgeAhead(r)
	}
	return nil
}

// lose keeps the first reason.
func (st *State) lose(format string, args ...any) {
	if st.Lost == nil {
		st.Lost = fmt.Errorf("%w: %s", ErrLost, fmt.Sprintf(format, args...))
	}
}

// usable tells whether a fence or mark is of this generation; where it is not, it says what it is instead.
func (st *State) usable(v value) (ok bool, instead string) {
	switch {
	case !v.found:
		return false, "is missing"
	case v.err != nil:
		return false, "cannot be read"
	case v.Generation != st.Record.Generation:
		return false, fmt.Sprintf("is of generation %d, the record of generation %d", v.Generation, st.Record.Generation)
	}
	st.Highest = max(st.Highest, v.Applied())
	return true, ""
}

// judgeWhole judges a standalone. Its mark may be missing: a FLUSHALL of the source takes it away, and the transaction
// that carries the FLUSHALL writes the fence anew.
func (st *State) judgeWhole(r reading) {
	fence, mark := r.fences[0], r.marks[0]
	ok, instead := st.usable(fence)
	if !ok {
		st.lose("the fence on %s %s", r.addr, instead)
	}
	st.Applied = []int64{fence.Applied()}
	st.Base, st.Sub = fence.At, fence.Sub
	marked, instead := st.usable(mark)
	if !marked && mark.found {
		st.lose("the mark on %s %s", r.addr, instead)
	}
	st.Nodes[0].Mark, st.Nodes[0].Marked = mark.Fence, marked
	if marked && (!ok || mark.Applied() > fence.Applied()) {
		st.Applied[0] = mark.Applied()
		st.Base, st.Sub = mark.At, mark.Sub
	}
}

// judgeMarks finds the mark of a node. A node may hold several: those of slots that moved to it. The highest counts: a
// mark says that every node had applied everything up to it when it was written, so what came here with a slot came
// behind those entries. Marks of earlier generations are left over. Of two alike, one that is not sparse is the later.
// If it finds none it says why.
func (st *State) judgeMarks(n *Node, r reading) (reason string) {
	reason = "is missing"
	for i, m := range r.marks {
		ok, instead := st.usable(m)
		switch {
		case ok && (!n.Marked || m.Applied() > n.Mark.Applied() || m.Applied() == n.Mark.Applied() && !m.Sparse):
			n.Mark, n.Marked = m.Fence, true
		case !m.found || ok:
		case m.err == nil && m.Generation < st.Record.Generation:
			reason = instead
		default:
			st.lose("the mark in slot %d on %s %s", r.slots[i], r.addr, instead)
		}
	}
	return reason
}

// lend gives a node without a mark the lowest one that is found on any node. A node may have none because it is new, or
// because its mark went away with a slot.
//
// That is right as long as nobody has lost anything: a mark says that everything up to it was applied everywhere, and a
// new node has its slots from those who had. Whoever has lost something is another holder than the one that the record
// names, and had a mark of its own, which may be what is missing: then no other mark can stand in for it. The record
// names all whom anything was sent to, before the first entry. Marks that were higher than what a promoted node had are
// no danger: its own is as old as its data, and is found wherever its slot has gone.
func (st *State) lend(n *Node, all []reading, reason string) {
	var lowest value
	for _, r := range all {
		for _, m := range r.marks {
			if ok, _ := st.usable(m); ok && (!lowest.found || m.Applied() < lowest.Applied()) {
				lowest = m
			}
		}
	}
	if !lowest.found || !st.unbroken() {
		st.lose("the mark on %s %s", n.Addr, reason)
		return
	}
	n.Mark, n.Marked = lowest.Fence, true
	n.Mark.Sparse = false // that is about the fences of the other node
}

// unbroken reports whether everyone whom the haul has written to holds it still.
func (st *State) unbroken() bool {
	for _, h := range st.Record.Holders {
		if h == "" || !slices.ContainsFunc(st.Nodes, func(n Node) bool { return n.Holder == h }) {
			return false
		}
	}
	return len(st.Record.Holders) > 0
}

// judgeFences finds what each slot has: what its fence says, and what all nodes have by the lowest mark. The node's own
// mark, if it is higher, does not count: the slot may have come from a node that has lost what it had acknowledged.
func (st *State) judgeFences(n Node, r reading) {
	for i, f := range r.fences {
		slot := r.slots[i]
		st.Applied[slot] = st.Base.Offset
		mine := st.Record.Slots == nil || st.Record.Slots.Has(slot)
		least := st.Record.settledAt(slot)
		if ok, instead := st.usable(f); ok {
			st.Applied[slot] = max(st.Base.Offset, f.Applied())
			if mine && f.Applied() < least {
				st.Unsettled = append(st.Unsettled, slot)
			}
		} else if mine && !f.found && least > 0 {
			st.Unsettled = append(st.Unsettled, slot)
		} else if !mine { // it is another link's
		} else if !f.found && n.Mark.Sparse {
			st.Applied[slot] = n.Mark.Applied()
		} else {
			st.lose("the fence of slot %d on %s %s", slot, r.addr, instead)
		}
	}
}

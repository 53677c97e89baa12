package writer

import (
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// item is work for a lane: consecutive entries of a batch, or a part of one entry. It says all that is needed to
// encode it, once more if it must be sent again.
type item struct {
	batch *haul.Batch
	first uint32
	n     uint32
	part  part
	slot  uint16 // on a cluster; of a run of entries, that of the first
}

// part says which part of an entry is meant.
type part uint32

const (
	whole       part = 0
	partStrings part = 1 << 30 // of the range, only the keys that travel in one MSET
	partLane    part = 1 << 29 // plus i: the whole entry, once more for lane i of all
	partLeave   part = 1 << 28 // no entry: what the lane has of the slot is to be handed over
	// 1 to 16384: what belongs to the slot one below
)

func slotPart(slot uint16) part { return part(slot) + 1 }

func (p part) slot() (uint16, bool) {
	return uint16(p - 1), p > 0 && p < partLeave
}

func (p part) lane() (int, bool) {
	return int(p &^ partLane), p&partLane != 0
}

func (it item) entry() *haul.Entry { return &it.batch.Entries[it.first] }

// slotOf returns the slot of an item of one entry. Entries that travel in one run have one key in a fixed place each.
func (it item) slotOf() uint16 {
	if s, ok := it.part.slot(); ok {
		return s
	}
	if s, ok := singleSlot(it.batch, it.entry()); ok {
		return s
	}
	return it.slot
}

// op is what a lane waits for: the replies of some of an item's entries, or of a command of its own.
type op struct {
	item
	kind   opKind
	left   int32 // replies still to come
	total  int32
	bad    int32       // entries that were taken out of it, to be sent again
	count  int32       // entries that it stands for
	size   int32       // bytes on the wire, as far as they fit
	failed *resp.Error // of a transaction: its first error
	fence  int64       // of opExec: the offset up to which its slot, or a standalone target, is applied
}

type opKind uint8

const (
	opEntries opKind = iota // one reply an entry
	opOne                   // one entry or part, one reply
	opTx                    // MULTI, QUEUED …, EXEC
	opStrings               // one MSET for many keys
	opSelect
	opPing
	opTimeout // CONFIG GET timeout
	opMark
	opTouch   // a write that leaves nothing behind
	opWait    // WAIT
	opBuild   // one of the commands that build a large value
	opBuilt   // those that put it in its place
	opUnbuilt // what removes it, because the target has refused some of it

	// a transaction of keyhaul's own, with a fence
	opMulti
	opBody   // queued commands of one item
	opBodyDB // a queued SELECT
	opExec   // what writes the fence, and EXEC
	opDiscard
)

// queued reports whether an op is answered by QUEUED, and decided by the EXEC that follows.
func (k opKind) queued() bool { return k == opMulti || k == opBody || k == opBodyDB }

// rest turns an op that was not answered in full into the items to send again, and the number of entries that were
// acknowledged.
func (o *op) rest() (items []item, acked int) {
	switch o.kind {
	case opSelect, opPing, opTimeout, opMark, opTouch, opWait, opBuild, opMulti, opBodyDB, opExec, opDiscard:
		return nil, 0
	case opEntries:
		answered := uint32(o.total - o.left)
		return []item{{o.batch, o.first + answered, o.n - answered, o.part, o.slot}}, int(answered) - int(o.bad)
	}
	return []item{o.item}, 0
}

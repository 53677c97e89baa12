package writer

import (
	"slices"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
)

// aheadTable says which keys of a cluster have, or get before anything else is sent to them, what the source had of them
// at an offset ahead of the stream. It belongs to the dispatcher's goroutine, and is true in the order of what that
// dispatches: of what is on its way the target may lack some yet.
type aheadTable struct {
	slots map[uint16]map[haul.KeyName]int64
	order []checkpoint.Ahead // by offset; those that were raised or forgotten since are passed over
}

func newAheadTable(known []checkpoint.Ahead) aheadTable {
	known = slices.Clone(known)
	slices.SortFunc(known, func(a, b checkpoint.Ahead) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	var t aheadTable
	for _, a := range known {
		t.set(a)
	}
	return t
}

// in reports whether any key of a slot is in the table.
func (t *aheadTable) in(slot uint16) bool { return len(t.slots) > 0 && t.slots[slot] != nil }

func (t *aheadTable) empty() bool { return len(t.slots) == 0 }

// has reports whether a key has everything up to offset.
func (t *aheadTable) has(slot uint16, k haul.KeyName, offset int64) bool {
	at, ok := t.slots[slot][k]
	return ok && offset <= at
}

func (t *aheadTable) set(a checkpoint.Ahead) {
	if t.slots == nil {
		t.slots = make(map[uint16]map[haul.KeyName]int64)
	}
	if t.slots[a.Slot] == nil {
		t.slots[a.Slot] = make(map[haul.KeyName]int64)
	}
	t.slots[a.Slot][a.Key] = a.Offset
	t.order = append(t.order, a)
}

func (t *aheadTable) remove(slot uint16, k haul.KeyName) {
	delete(t.slots[slot], k)
	if len(t.slots[slot]) == 0 {
		delete(t.slots, slot)
	}
}

// reached removes up to n keys that the stream has caught up with at offset, and returns them.
func (t *aheadTable) reached(offset int64, n int) []checkpoint.Ahead {
	var gone []checkpoint.Ahead
	i := 0
	for ; i < len(t.order) && t.order[i].Offset <= offset && len(gone) < n; i++ {
		a := t.order[i]
		if at, ok := t.slots[a.Slot][a.Key]; ok && at == a.Offset {
			t.remove(a.Slot, a.Key)
			gone = append(gone, a)
		}
	}
	t.order = slices.Delete(t.order, 0, i)
	return gone
}

// expire makes all keys ones that the stream has caught up with: another stream begins.
func (t *aheadTable) expire() {
	if len(t.order) == 0 || t.order[len(t.order)-1].Offset == 0 {
		return
	}
	t.order = t.order[:0]
	for slot, keys := range t.slots {
		for k := range keys {
			keys[k] = 0
			t.order = append(t.order, checkpoint.Ahead{Key: k, Slot: slot})
		}
	}
}

// flushed removes the keys that a flush of a database, or of all of them, is about to remove from the target, in slots
// that it has not emptied before. What the stream does to them behind it begins with nothing.
func (t *aheadTable) flushed(all bool, db int32, emptied func(slot uint16) bool) {
	for slot, keys := range t.slots {
		if emptied(slot) {
			continue
		}
		for k := range keys {
			if all || k.DB == db {
				t.remove(slot, k)
			}
		}
	}
}

// slotOf is the slot of a key.
func slotOf(k haul.KeyName) uint16 { return command.Slot([]byte(k.Name)) }

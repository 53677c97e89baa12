package checkpoint

import (
	"testing"

	"github.com/keyhaul/keyhaul/internal/topology"
)

func slots(all ...uint16) *topology.SlotSet {
	set := &topology.SlotSet{}
	for _, s := range all {
		set.Add(s)
	}
	return set
}

// TestRecordSettle: a slot counts as settled where it was last, and only as long as it is the link's; the list is bounded, and
// what is put together has the higher offset.
func TestRecordSettle(t *testing.T) {
	r := Record{Slots: slots(1, 2, 3)}
	r.Settle(slots(1, 2), 100)
	r.Settle(slots(2, 9), 200)
	for slot, want := range map[uint16]int64{1: 100, 2: 200, 3: 0, 9: 0} {
		if got := r.settledAt(slot); got != want {
			t.Errorf("slot %d is settled at %d, want %d", slot, got, want)
		}
	}
	r.Slots = slots(2, 3)
	r.Settle(slots(3), 300)
	if r.settledAt(1) != 0 || len(r.Settled) != 2 {
		t.Errorf("a slot that is gone counts: %v", r.Settled)
	}
	many := Record{Slots: &topology.SlotSet{}}
	for slot := range uint16(2 * maxSettled) {
		many.Slots.Add(slot)
		many.Settle(slots(slot), 1000+int64(slot))
	}
	if len(many.Settled) != maxSettled || many.settledAt(0) < 1000 || many.settledAt(0) != many.settledAt(1) {
		t.Errorf("%d entries, the first at %d", len(many.Settled), many.settledAt(0))
	}
}

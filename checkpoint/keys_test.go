package checkpoint

import (
	"testing"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

func TestEveryTagIsInItsSlot(t *testing.T) {
	seen := map[string]bool{}
	for slot := range uint16(16384) {
		tag := Tag(slot)
		if got := redistest.Slot(tag); got != int(slot) || seen[tag] || len(tag) > 4 {
			t.Fatalf("tag %q of slot %d is in slot %d", tag, slot, got)
		}
		seen[tag] = true
	}
}

func TestKeysAreInTheirSlots(t *testing.T) {
	k := Keys{Name: "a"}
	for slot := range uint16(16384) {
		for _, key := range []string{k.Fence(slot), k.Mark(slot)} {
			if redistest.Slot(key) != int(slot) {
				t.Fatalf("%s is not in slot %d", key, slot)
			}
		}
	}
	for _, key := range []string{k.Record(), k.Lease(), k.Refusals(), k.Tombstone(), namesKey} {
		if redistest.Slot(key) != int(haulSlot) || !Reserved([]byte(key)) {
			t.Errorf("%s is not in the slot of {haul}", key)
		}
	}
	if k.Whole() != "keyhaul:a:fence" || k.WholeMark() != "keyhaul:a:mark" || k.Record() != "keyhaul:a:{haul}:record" {
		t.Error("names of keys are part of the format")
	}
	if Reserved([]byte("keyhaul")) || Reserved([]byte("my:keyhaul:")) {
		t.Error("a user's key is taken for one of ours")
	}
}

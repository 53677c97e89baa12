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

// TestKeysOfLinks: what two links of a haul keep is under different names, except what is about the whole haul.
func TestKeysOfLinks(t *testing.T) {
	a, b := Keys{"h", "a"}, Keys{"h", "b"}
	for what, pair := range map[string][2]string{
		"fence": {a.Fence(7), b.Fence(7)}, "mark": {a.Mark(7), b.Mark(7)}, "ahead": {a.Ahead(7), b.Ahead(7)},
		"whole": {a.Whole(), b.Whole()}, "record": {a.Record(), b.Record()}, "refusals": {a.Refusals(), b.Refusals()},
	} {
		if pair[0] == pair[1] {
			t.Errorf("%s of both links is %s", what, pair[0])
		}
	}
	if redistest.Slot(a.Ahead(7)) != 7 {
		t.Errorf("%s is in another slot", a.Ahead(7))
	}
}

// Package checkpoint keeps on the target what a haul must know to go on exactly where it stopped: the record of the
// haul, the fences and marks that say what is applied, the journal of refused commands, and the lease that lets one
// worker write at a time. Nothing else is needed to resume.
package checkpoint

import (
	"bytes"
	"strconv"
	"sync"

	"github.com/keyhaul/keyhaul/internal/command"
)

// Prefix starts every key that keyhaul writes for itself. A source's own keys under it are never copied.
const Prefix = "keyhaul:"

// namesKey is the set of the hauls that write to this target. It is in one slot with every haul's record.
const namesKey = Prefix + "{haul}:names"

var prefixBytes = []byte(Prefix)

// Reserved tells whether key has Prefix.
func Reserved(key []byte) bool { return bytes.HasPrefix(key, prefixBytes) }

// Tag returns a short text whose slot is slot. As a hash tag it puts a key there.
func Tag(slot uint16) string { return tags()[slot] }

// tags are found by counting: some 200,000 counters are hashed until each slot has one, in a few milliseconds.
var tags = sync.OnceValue(func() *[command.Slots]string {
	var table [command.Slots]string
	var digits [16]byte
	for n, found := int64(0), 0; found < len(table); n++ {
		tag := strconv.AppendInt(digits[:0], n, 36)
		if slot := command.Slot(tag); table[slot] == "" {
			table[slot] = string(tag)
			found++
		}
	}
	return &table
})

// Keys are the names of a haul's keys. Link is the link that they are about, of several to a cluster source; it is empty
// for what concerns the whole haul, and for the only link of a standalone source.
type Keys struct{ Name, Link string }

func (k Keys) key(rest string) string { return Prefix + k.Name + ":" + rest }

// own is key with the name of the link behind what the key is.
func (k Keys) own(what, tag string) string {
	if k.Link != "" {
		what += ":" + k.Link
	}
	return k.key(what + tag)
}

// Fence returns the key that says up to where slot is applied. It is in that slot and moves with it.
func (k Keys) Fence(slot uint16) string { return k.own("fence", ":{"+Tag(slot)+"}") }

// Ahead returns the key of the hash that says which keys of slot are ahead of its fence. It is in that slot, and in the
// database of those keys, so that whatever happens to them happens to it.
func (k Keys) Ahead(slot uint16) string { return k.own("ahead", ":{"+Tag(slot)+"}") }

// Mark returns the key of the mark of the node that owns slot.
func (k Keys) Mark(slot uint16) string { return k.own("mark", ":{"+Tag(slot)+"}") }

// Whole returns the key of the one fence of a standalone target.
func (k Keys) Whole() string { return k.own("fence", "") }

// WholeMark returns the key of the mark of a standalone target.
func (k Keys) WholeMark() string { return k.own("mark", "") }

// Part returns the key under which a large value of slot is built, in the database of its own key, before it takes that
// key's place.
func (k Keys) Part(slot uint16) string { return k.own("part", ":{"+Tag(slot)+"}") }

// MovingPart is Part while slot is on its way between two nodes.
func (k Keys) MovingPart(slot uint16) string { return k.own("part:moving", ":{"+Tag(slot)+"}") }

// WholePart is Part of a standalone target.
func (k Keys) WholePart() string { return k.own("part", "") }

// Touch returns the key that is written and deleted at once where mark is, so that its node has written something.
func Touch(mark string) string { return mark + ":touch" }

// Record returns the key of the record of the haul, or of the link. It shares one slot with Lease, Refusals and Tombstone.
func (k Keys) Record() string { return k.own("{haul}:record", "") }

// Lease returns the key of the lease.
func (k Keys) Lease() string { return k.key("{haul}:lease") }

// Refusals returns the key of the list of commands that the target refused inside a transaction.
func (k Keys) Refusals() string { return k.own("{haul}:refusals", "") }

// Names returns the key of the set of all hauls that write to the target. It is in the slot of Record.
func (k Keys) Names() string { return namesKey }

// Tombstone returns the key that is left when a haul has been cleaned up.
func (k Keys) Tombstone() string { return k.key("{haul}:tombstone") }

// haulSlot is the slot of the keys with the tag {haul}.
var haulSlot = command.Slot([]byte("haul"))

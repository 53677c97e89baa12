package filter

import (
	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
)

// Reserved takes out what the source keeps under the prefix that is keyhaul's own on the target: such a key would be
// taken for a fence. A source that is itself the target of another haul has them.
//
// A command with such a key among others is left to the writer, which refuses it if it cannot be split.
type Reserved struct{}

// Apply implements haul.Filter.
func (Reserved) Apply(b *haul.Batch) {
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone {
			continue
		}
		switch {
		case e.Kind == haul.KindKey:
			if checkpoint.Reserved(b.KeyOf(e).Name) {
				e.Drop = haul.DropReserved
			}
		case e.Big != nil:
		case e.Kind == haul.KindCommand:
			if reservedCommand(b, &b.Commands[e.First]) {
				e.Drop = haul.DropReserved
			}
		case e.Kind == haul.KindTransaction:
			reservedTransaction(b, e)
		}
	}
}

// reservedTransaction takes single commands out of a transaction.
func reservedTransaction(b *haul.Batch, e *haul.Entry) {
	cmds := b.CommandsOf(e)
	left := len(cmds)
	for i := range cmds {
		if reservedCommand(b, &cmds[i]) {
			cmds[i].Skip = true
			left--
		}
	}
	if left == 0 {
		e.Drop = haul.DropReserved
	}
}

// reservedCommand reports whether every key of a command is reserved.
func reservedCommand(b *haul.Batch, c *haul.Command) bool {
	if k := c.Spec.FirstKey(); k > 0 { // the short way for most commands
		return k < int(c.NArg) && checkpoint.Reserved(b.Arg(c, k))
	}
	if c.Spec == nil || c.Spec.Keyless() {
		return false
	}
	var room [8]int
	arg := func(i int) []byte { return b.Arg(c, i) }
	keys, err := c.Spec.Keys(room[:0], int(c.NArg), arg)
	if err != nil || len(keys) == 0 {
		return false
	}
	for _, k := range keys {
		if !checkpoint.Reserved(arg(k)) {
			return false
		}
	}
	return true
}

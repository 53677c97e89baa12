package filter

import (
	"strconv"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// Reserved takes out what the source keeps under the prefix that is keyhaul's own on the target: such a key would be
// taken for a fence. A source that is itself the target of another haul has them.
//
// A command with such a key among others loses it, if it can be cut by keys, as MSET and DEL can. Others, such as
// RENAME, are left to the writer to refuse.
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
			e.Drop = reservedCommand(b, &b.Commands[e.First])
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
		switch reservedCommand(b, &cmds[i]) {
		case haul.DropReserved:
			cmds[i].Skip = true
			left--
		case haul.DropMixed:
			e.Drop = haul.DropMixed
			return
		}
	}
	if left == 0 {
		e.Drop = haul.DropReserved
	}
}

// reservedCommand decides on a command by its keys, and takes reserved ones out of it.
func reservedCommand(b *haul.Batch, c *haul.Command) haul.Drop {
	if k := c.Spec.FirstKey(); k > 0 { // the short way for most commands
		if k < int(c.NArg) && checkpoint.Reserved(b.Arg(c, k)) {
			return haul.DropReserved
		}
		return haul.DropNone
	}
	if c.Spec == nil || c.Spec.Keyless() {
		return haul.DropNone
	}
	var room [8]int
	arg := func(i int) []byte { return b.Arg(c, i) }
	keys, err := c.Spec.Keys(room[:0], int(c.NArg), arg)
	if err != nil {
		return haul.DropNone
	}
	reserved := 0
	for _, k := range keys {
		if checkpoint.Reserved(arg(k)) {
			reserved++
		}
	}
	switch step, num := c.Spec.Split(); {
	case reserved == 0:
		return haul.DropNone
	case reserved == len(keys):
		return haul.DropReserved
	case step == 0:
		return haul.DropMixed
	default:
		rewrite(b, c, keys, step, num, len(keys)-reserved)
		return haul.DropNone
	}
}

// rewrite writes a command anew without its reserved keys, of which n others are left, behind what the buffer holds.
func rewrite(b *haul.Batch, c *haul.Command, keys []int, step, num, n int) {
	old := *c
	c.Arg, c.NArg, c.Raw.Off = uint32(len(b.Args)), 0, uint32(len(b.Buf))
	left := int(old.NArg) - step*(len(keys)-n)
	b.Buf = resp.AppendArray(b.Buf, left)
	for i, k := 0, 0; i < int(old.NArg); i++ {
		if k < len(keys) && i == keys[k] {
			k++
			if checkpoint.Reserved(b.Arg(&old, i)) {
				i += step - 1
				continue
			}
		}
		text := b.Arg(&old, i)
		if i == num && num > 0 {
			text = strconv.AppendInt(nil, int64(n), 10)
		}
		b.Buf = resp.AppendBulkHeader(b.Buf, len(text))
		b.Args = append(b.Args, haul.Span{Off: uint32(len(b.Buf)), Len: uint32(len(text))})
		b.Buf = append(append(b.Buf, text...), "\r\n"...)
		c.NArg++
	}
	c.Raw.Len = uint32(len(b.Buf)) - c.Raw.Off
}

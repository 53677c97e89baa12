package filter

import (
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// Databases takes out what concerns databases of the source that are left out, and what cannot be carried out on the
// target because databases have other numbers there: that is left to the writer to refuse.
type Databases struct{ To haul.DBMap }

// Apply implements haul.Filter.
func (f Databases) Apply(b *haul.Batch) {
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone {
			continue
		}
		switch e.Kind {
		case haul.KindKey:
			switch {
			case f.To.Of(e.DB) == haul.DropDB:
				e.Drop = haul.DropDatabase
			case f.To.Taken(e.DB):
				e.Drop = haul.DropUnmapped
			}
		case haul.KindCommand:
			e.Drop = f.command(b, e, &b.Commands[e.First])
		case haul.KindTransaction:
			e.Drop = f.transaction(b, e)
		}
	}
}

// transaction takes single commands out of a transaction.
func (f Databases) transaction(b *haul.Batch, e *haul.Entry) haul.Drop {
	cmds, left := b.CommandsOf(e), false
	for i := range cmds {
		switch {
		case cmds[i].Skip:
			continue
		case f.command(b, e, &cmds[i]) == haul.DropUnmapped:
			return haul.DropUnmapped
		}
		cmds[i].Skip = f.command(b, e, &cmds[i]) == haul.DropDatabase
		left = left || !cmds[i].Skip
	}
	if !left {
		return haul.DropDatabase
	}
	return haul.DropNone
}

// command decides on one command.
func (f Databases) command(b *haul.Batch, e *haul.Entry, c *haul.Command) haul.Drop {
	out := f.To.Of(c.DB) == haul.DropDB
	switch {
	case !c.Spec.Keyless() && f.To.Taken(c.DB):
		return haul.DropUnmapped
	case c.Spec == nil:
		return dropIf(out)
	}
	arg := func(i int) []byte { return b.Arg(c, i) }
	switch c.Spec.Name {
	case "FLUSHDB":
		if !out && !f.To.Taken(c.DB) && !f.To.Alone(c.DB) {
			return haul.DropUnmapped // it would empty more than one database of the source's
		}
		return dropIf(out || f.To.Taken(c.DB))
	case "SWAPDB":
		return f.swap(arg, int(c.NArg))
	case "MOVE", "COPY":
		if e.Big != nil {
			return haul.DropUnmapped
		}
		if i := c.Spec.OtherDB(int(c.NArg), arg); i > 0 {
			return f.across(b, c, arg(i), out)
		}
	}
	return dropIf(out && !c.Spec.Keyless()) // FLUSHALL, functions and messages are of no database
}

func dropIf(out bool) haul.Drop {
	if out {
		return haul.DropDatabase
	}
	return haul.DropNone
}

// swap decides on SWAPDB: both databases must be whole ones on the target.
func (f Databases) swap(arg func(i int) []byte, n int) haul.Drop {
	if n != 3 {
		return haul.DropNone
	}
	one, ok1 := command.ParseDB(arg(1))
	two, ok2 := command.ParseDB(arg(2))
	switch {
	case !ok1 || !ok2:
		return haul.DropNone
	case f.To.Of(one) == haul.DropDB && f.To.Of(two) == haul.DropDB:
		return haul.DropDatabase
	case f.To.Of(one) == haul.DropDB, f.To.Of(two) == haul.DropDB, !f.To.Alone(one), !f.To.Alone(two):
		return haul.DropUnmapped
	}
	return haul.DropNone
}

// across decides on MOVE and COPY to another database. A key that moves out of what is hauled is deleted.
func (f Databases) across(b *haul.Batch, c *haul.Command, db []byte, out bool) haul.Drop {
	other, ok := command.ParseDB(db)
	to := f.To.Of(other)
	switch {
	case !ok || out && to == haul.DropDB:
		return dropIf(out)
	case out, f.To.Taken(other):
		return haul.DropUnmapped // nobody but the source knows the value, or where it goes
	case to != haul.DropDB && to != f.To.Of(c.DB):
		return haul.DropNone
	case to != haul.DropDB && c.DB != other && c.Spec.Name == "MOVE":
		return haul.DropUnmapped // from one database into the same
	case to == haul.DropDB && c.Spec.Name == "COPY":
		return haul.DropDatabase
	case to == haul.DropDB:
		deletion(b, c)
	}
	return haul.DropNone
}

// deletion makes a DEL of a MOVE.
func deletion(b *haul.Batch, c *haul.Command) {
	key := b.Args[c.Arg+1]
	name := string(b.Bytes(key))
	c.Spec, c.Arg, c.NArg = command.Lookup([]byte("DEL")), uint32(len(b.Args)), 2
	c.Raw.Off = uint32(len(b.Buf))
	b.Buf = resp.AppendCommand(b.Buf, "DEL", name)
	c.Raw.Len = uint32(len(b.Buf)) - c.Raw.Off
	b.Args = append(b.Args, haul.Span{Off: c.Raw.Off + uint32(len("*2\r\n$3\r\n")), Len: uint32(len("DEL"))},
		haul.Span{Off: uint32(len(b.Buf) - 2 - len(name)), Len: uint32(len(name))})
}

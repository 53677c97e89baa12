package writer

import (
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// db is the target's number of a database. What passes of one that is left out does not depend on it.
func (c *encoder) db(of int32) int32 { return max(c.dbs.Of(of), 0) }

// renumbers reports whether a command names databases, which have other numbers on the target.
func (c *encoder) renumbers(cmd *haul.Command) bool {
	if len(c.dbs) == 0 || cmd.Spec == nil {
		return false
	}
	switch cmd.Spec.Name {
	case "MOVE", "COPY", "SWAPDB":
		return true
	}
	return false
}

// renumbered appends a command with the target's numbers of databases.
func (c *encoder) renumbered(o *outbox, b *haul.Batch, cmd *haul.Command) {
	n := int(cmd.NArg)
	first, last := n, n-1 // of the arguments that are numbers
	if cmd.Spec.Name == "SWAPDB" {
		first = 1
	} else if i := cmd.Spec.OtherDB(n, func(i int) []byte { return b.Arg(cmd, i) }); i > 0 {
		first, last = i, i
	}
	k := len(o.arena)
	o.arena = resp.AppendArray(o.arena, n)
	for i := range n {
		db, ok := command.ParseDB(b.Arg(cmd, i))
		if ok && first <= i && i <= last {
			o.arena = resp.AppendBulkInt(o.arena, int64(c.dbs.Of(db)))
		} else {
			o.arena = resp.AppendBulk(o.arena, b.Arg(cmd, i))
		}
	}
	o.grown(k)
}

package writer

import (
	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
)

// putOff tells p which keys of a batch may get a deadline, that is put off, by its entries.
func putOff(b *haul.Batch, p *checkpoint.PutOff, dbs haul.DBMap) {
	for i := range b.Entries {
		e := &b.Entries[i]
		switch e.Kind {
		case haul.KindKey:
			if k := b.KeyOf(e); k.Has&haul.HasExpire != 0 {
				p.Add(dbs.Of(e.DB), k.Name, k.ExpireAt)
			}
		case haul.KindCommand, haul.KindTransaction:
			cmds := b.CommandsOf(e)
			for j := range cmds {
				putOffBy(b, &cmds[j], e.Big != nil, p, dbs)
			}
		}
	}
}

// putOffBy is about one command.
func putOffBy(b *haul.Batch, c *haul.Command, big bool, p *checkpoint.PutOff, dbs haul.DBMap) {
	reach := c.Spec.DeadlineReach()
	if reach == command.ReachNone {
		return
	}
	var room [8]int
	var keys []int
	var err error
	if reach == command.ReachKeys && !big {
		keys, err = c.Spec.Keys(room[:0], int(c.NArg), func(i int) []byte { return b.Arg(c, i) })
	}
	if err != nil || len(keys) == 0 {
		p.Forget()
		return
	}
	for _, k := range keys {
		p.Change(dbs.Of(c.DB), b.Arg(c, k))
	}
}

package writer

import (
	"bytes"
	"io"
	"slices"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// expect notes what is to be expected for entries that were appended.
func (o *outbox) expect(x op) {
	if o.multi {
		x.kind = opBody
	}
	o.ops = append(o.ops, x)
}

// commands appends entries of the stream.
func (c *encoder) commands(o *outbox, it item) error {
	b, e := it.batch, it.entry()
	slot, partial := it.part.slot()
	switch {
	case e.Big != nil:
		return c.bigCommand(o, it)
	case e.Kind == haul.KindTransaction && it.n == 1:
		c.transaction(o, it)
		return nil
	case partial:
		o.selectDB(c.db(e.DB))
		c.split(o, b, &b.Commands[e.First], slot)
		o.expect(op{item: it, kind: opOne, left: 1, total: 1, count: 1})
		return nil
	}
	c.run(o, it)
	return nil
}

// run appends consecutive entries, each one command: as they stand in the batch, in as few pieces as possible.
func (c *encoder) run(o *outbox, it item) {
	b := it.batch
	for i := it.first; i < it.first+it.n; {
		e := &b.Entries[i]
		if e.Kind == haul.KindTransaction {
			c.transaction(o, item{batch: b, first: i, n: 1})
			i++
			continue
		}
		o.selectDB(c.db(e.DB))
		cmd := &b.Commands[e.First]
		from, to := cmd.Raw.Off, cmd.Raw.Off+cmd.Raw.Len
		j := i + 1
		if c.single(cmd) {
			if c.standing != nil && cmd.Spec.Flushes() && !o.multi {
				c.flushing(o, item{b, i, 1, it.part, it.slot})
				i++
				continue
			}
			c.command(o, b, cmd)
		} else {
			for ; j < it.first+it.n; j++ {
				next := &b.Entries[j]
				if next.Kind != haul.KindCommand || next.DB != e.DB {
					break
				}
				raw := &b.Commands[next.First]
				if raw.Raw.Off != to || c.single(raw) {
					break
				}
				to += raw.Raw.Len
			}
			o.put(b.Buf[from:to])
		}
		n := int32(j - i)
		o.expect(op{item: item{b, i, j - i, it.part, it.slot}, kind: opEntries, left: n, total: n, count: n})
		i = j
	}
}

// single reports whether a command is not written as it stands in the batch.
func (c *encoder) single(cmd *haul.Command) bool {
	return cmd.Spec == c.function || c.grace > 0 && cmd.Spec.HasDeadline() || cmd.Spec.Flushes() || c.renumbers(cmd)
}

// command appends one command. FUNCTION LOAD gains REPLACE, so that it can be repeated.
func (c *encoder) command(o *outbox, b *haul.Batch, cmd *haul.Command) {
	if cmd.Spec == c.function && cmd.NArg == 3 && bytes.EqualFold(b.Arg(cmd, 1), []byte("LOAD")) {
		c.loadFunction(o, b.Arg(cmd, 2))
		return
	}
	if c.grace > 0 && cmd.Spec.HasDeadline() {
		c.deferred(o, b, cmd)
		return
	}
	if c.renumbers(cmd) {
		c.renumbered(o, b, cmd)
		return
	}
	o.put(b.Bytes(cmd.Raw))
}

// transaction appends MULTI, those commands that belong to the item's part, and EXEC.
func (c *encoder) transaction(o *outbox, it item) {
	b, e := it.batch, it.entry()
	slot, partial := it.part.slot()
	cmds := b.CommandsOf(e)
	queued, selected, flushed := int32(0), false, (*haul.Command)(nil)
	o.selectDB(c.db(e.DB))
	if !o.multi {
		o.text("*1\r\n$5\r\nMULTI\r\n")
	}
	for i := range cmds {
		cmd := &cmds[i]
		if cmd.Skip {
			continue
		}
		if db := c.db(cmd.DB); db != o.db {
			o.queueSelect(db)
			selected = true
			queued++
		}
		if cmd.Spec.Flushes() {
			flushed = cmd
		}
		switch {
		case !partial:
			c.command(o, b, cmd)
		default:
			slots, _ := slotsOf(b, cmd)
			if !slices.Contains(slots, slot) {
				continue
			}
			if len(slots) > 1 {
				c.split(o, b, cmd, slot)
			} else {
				c.command(o, b, cmd)
			}
		}
		queued++
	}
	if o.multi {
		o.moves = o.moves || selected
		if queued > 0 {
			o.ops = append(o.ops, op{item: it, kind: opBody, left: queued, total: queued, count: 1})
		}
		return
	}
	if flushed != nil && c.standing != nil {
		queued += c.stand(o, b, flushed)
	}
	o.text("*1\r\n$4\r\nEXEC\r\n")
	if selected {
		o.db = unknownDB // if the transaction is refused, its SELECT never happens
	}
	o.ops = append(o.ops, op{item: it, kind: opTx, left: queued + 2, total: queued + 2, count: 1})
}

// split appends what belongs to slot of a command that may be cut by keys.
func (c *encoder) split(o *outbox, b *haul.Batch, cmd *haul.Command, slot uint16) {
	step, num := cmd.Spec.Split()
	groups, tail := splitGroups(b, cmd, step)
	count := 0
	for g := range groups {
		if command.Slot(b.Arg(cmd, groups[g])) == slot {
			count++
		}
	}
	head := 1
	if num > 0 {
		head = 2
	}
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, head+count*step+int(cmd.NArg)-tail)
	o.arena = resp.AppendBulk(o.arena, b.Arg(cmd, 0))
	if num > 0 {
		o.arena = resp.AppendBulkInt(o.arena, int64(count))
	}
	o.grown(n)
	for _, g := range groups {
		if command.Slot(b.Arg(cmd, g)) != slot {
			continue
		}
		for i := g; i < g+step; i++ {
			c.bulk(o, b.Arg(cmd, i))
		}
	}
	for i := tail; i < int(cmd.NArg); i++ {
		c.option(o, b, cmd, i)
	}
}

// splitGroups returns the indices of the keys of a command that may be cut, and that of the first argument behind them.
func splitGroups(b *haul.Batch, cmd *haul.Command, step int) (keys []int, tail int) {
	keys, err := cmd.Spec.Keys(nil, int(cmd.NArg), func(i int) []byte { return b.Arg(cmd, i) })
	if err != nil || len(keys) == 0 {
		return nil, int(cmd.NArg)
	}
	return keys, keys[len(keys)-1] + step
}

// bigCommand writes a command that is read from the spool.
func (c *encoder) bigCommand(o *outbox, it item) error {
	e := it.entry()
	o.selectDB(c.db(e.DB))
	o.expect(op{item: it, kind: opOne, left: 1, total: 1, count: 1})
	slot, partial := it.part.slot()
	if partial {
		return c.bigSplit(o, it, slot)
	}
	if spec := it.batch.Commands[e.First].Spec; c.grace > 0 && spec.HasDeadline() {
		return c.bigDeferred(o, e.Big, spec, it.batch.At)
	}
	return o.stream(e.Big.Section(haul.BigSpan{Len: e.Big.Len}), nil)
}

// bigSplit is split for a command that is read from the spool.
func (c *encoder) bigSplit(o *outbox, it item, slot uint16) error {
	e := it.entry()
	big, spec := e.Big, it.batch.Commands[e.First].Spec
	step, num := spec.Split()
	keys, err := bigKeys(e, spec)
	if err != nil {
		return err
	}
	var mine []int
	for _, k := range keys {
		name, err := bigArg(big, k)
		if err != nil {
			return err
		}
		if command.Slot(name) == slot {
			mine = append(mine, k)
		}
	}
	head := 1
	if num > 0 {
		head = 2
	}
	tail := keys[len(keys)-1] + step
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, head+len(mine)*step+len(big.Args)-tail)
	name, err := bigArg(big, 0)
	if err != nil {
		return err
	}
	o.arena = resp.AppendBulk(o.arena, name)
	if num > 0 {
		o.arena = resp.AppendBulkInt(o.arena, int64(len(mine)))
	}
	o.grown(n)
	args := make([]int, 0, len(mine)*step)
	for _, k := range mine {
		for i := k; i < k+step; i++ {
			args = append(args, i)
		}
	}
	for i := tail; i < len(big.Args); i++ {
		args = append(args, i)
	}
	for _, i := range args {
		o.arena = resp.AppendBulkHeader(o.arena, int(big.Args[i].Len))
		if err := o.stream(big.Section(big.Args[i]), nil); err != nil {
			return err
		}
		o.end()
	}
	return nil
}

// bigArg reads one argument of a big command.
func bigArg(big *haul.Big, i int) ([]byte, error) {
	p := make([]byte, big.Args[i].Len)
	_, err := io.ReadFull(big.Section(big.Args[i]), p)
	return p, err
}

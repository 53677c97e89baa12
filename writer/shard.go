package writer

import (
	"context"
	"slices"
	"strings"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// Shard is what a link to one shard of a cluster source knows of its slots. They move between shards while the haul runs,
// and the streams of two shards have no order between them: so each slot is one link's to write, or none's while it moves.
type Shard interface {
	// Mine tells whether a slot is the link's.
	Mine(slot uint16) bool
	// Moved hears that entries came for slots that are not the link's: they are on the move, and when it returns that is
	// known to whoever resumes. The entries are passed over.
	Moved(ctx context.Context, slots []uint16) error
}

// passOver takes out what is in slots that are not the link's, or in what was read when a slot was settled.
func (d *dispatcher) passOver(ctx context.Context, b *haul.Batch) error {
	for {
		p := passing{d: d, b: b}
		again, err := p.decide(ctx)
		if again && err == nil {
			continue
		}
		if err == nil && len(p.moved) > 0 {
			err = d.cfg.Shard.Moved(ctx, p.moved)
		}
		if err != nil {
			return err
		}
		for _, i := range p.gone {
			b.Entries[i].Drop = haul.DropMoved
		}
		for _, i := range p.covered {
			b.Entries[i].Drop = haul.DropCovered
		}
		for _, c := range p.skip {
			c.Skip = true
		}
		return nil
	}
}

// passing is what passOver finds in a batch.
type passing struct {
	d             *dispatcher
	b             *haul.Batch
	gone, covered []int           // entries
	skip          []*haul.Command // of transactions of which others are left
	moved         []uint16        // slots
}

// decide looks at each entry. With again it has to look once more: keys were read that earlier ones have to do with, or a
// slot was given up.
func (p *passing) decide(ctx context.Context) (again bool, err error) {
	d, b := p.d, p.b
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone || e.End <= d.resumed && d.has(b, e) {
			continue
		}
		slots, ok := d.shardSlots(b, e)
		if !ok || !slices.ContainsFunc(slots, d.passes) { // it concerns every node, or nobody knows its keys
			continue
		}
		if b.Snapshot {
			p.gone = append(p.gone, i)
			p.note(slots)
			continue
		}
		if again, err := p.entry(ctx, i, slots); again || err != nil {
			return again, err
		}
	}
	return false, nil
}

// passes reports whether some of what comes for a slot may have to be passed over.
func (d *dispatcher) passes(slot uint16) bool {
	return d.settles[slot] != nil || !d.cfg.Shard.Mine(slot)
}

// fate is what becomes of a command.
type fate uint8

const (
	fateSent fate = iota
	fateGone
	fateCovered
)

// entry decides on each command of an entry of the stream.
func (p *passing) entry(ctx context.Context, i int, slots []uint16) (again bool, err error) {
	e := &p.b.Entries[i]
	cmds, left, gone := p.b.CommandsOf(e), 0, false
	var skip []*haul.Command
	for j := range cmds {
		c := &cmds[j]
		if c.Skip {
			continue
		}
		own := slots
		if len(slots) > 1 && e.Big == nil {
			if own, err = slotsOf(p.b, c); err != nil {
				return false, err // they were told before
			}
		}
		fate, again, err := p.command(ctx, e, c, own)
		switch {
		case again || err != nil:
			return again, err
		case fate == fateSent:
			left++
		default:
			gone = gone || fate == fateGone
			skip = append(skip, c)
		}
	}
	switch {
	case left > 0:
		p.skip = append(p.skip, skip...)
	case gone:
		p.gone = append(p.gone, i)
	default:
		p.covered = append(p.covered, i)
	}
	return false, nil
}

// command decides on one command. One with keys in several slots cannot be divided: if one of them moves, all of them are
// settled.
func (p *passing) command(ctx context.Context, e *haul.Entry, c *haul.Command, slots []uint16) (f fate, again bool, err error) {
	d := p.d
	if !slices.ContainsFunc(slots, d.passes) {
		return fateSent, false, nil
	}
	if len(slots) > 1 {
		if again, err = d.giveUp(ctx, slots); again || err != nil {
			return fateSent, again, err
		}
	}
	if s := d.settles[slots[0]]; s != nil {
		covered, again, err := d.cover(ctx, s, p.b, e, c)
		if covered {
			f = fateCovered
		}
		return f, again, err
	}
	p.note(slots)
	return fateGone, false, nil
}

// note notes slots that are on the move.
func (p *passing) note(slots []uint16) {
	for _, s := range slots {
		if !slices.Contains(p.moved, s) {
			p.moved = append(p.moved, s)
		}
	}
}

// shardSlots returns the slots of an entry, if they can be told.
func (d *dispatcher) shardSlots(b *haul.Batch, e *haul.Entry) ([]uint16, bool) {
	if slot, ok := singleSlot(b, e); ok {
		d.one[0] = slot
		return d.one[:], true
	}
	slots, _, err := entrySlots(b, e)
	return slots, err == nil
}

// dispatchShard is dispatchPart for a shard. What empties the shard is carried out in its turn: it concerns the link's
// slots only.
func (d *dispatcher) dispatchShard(ctx context.Context, b *haul.Batch, from, to int) error {
	for i := from; i < to; i++ {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone || e.Kind != haul.KindCommand || e.Big != nil || !b.Commands[e.First].Spec.Flushes() {
			continue
		}
		if !d.cfg.Node.Cluster && d.isApplied(0, e) {
			continue // it goes the way of all that a standalone target has
		}
		if err := d.route.dispatch(ctx, b, from, i); err != nil {
			return err
		}
		from = i + 1
		if err := d.emptyShard(ctx, item{batch: b, first: uint32(i), n: 1}); err != nil {
			return err
		}
	}
	return d.route.dispatch(ctx, b, from, to)
}

// emptyShard carries out the source's FLUSHALL or FLUSHDB for the link's slots, when nothing of it is on its way.
func (d *dispatcher) emptyShard(ctx context.Context, it item) error {
	b, e := it.batch, it.entry()
	if err := d.drain(ctx); err != nil {
		return err
	}
	if err := d.unsettle(ctx); err != nil {
		return err
	}
	cmd := &b.Commands[e.First]
	if !d.emptied(e) {
		if err := d.cfg.Store.FlushSlots(ctx, cmd.DB, cmd.Spec.Name == "FLUSHALL", fenceAt(b, e), d.applied); err != nil {
			return err
		}
	}
	d.completeEverywhere(b, 1)
	return nil
}

// emptied reports whether all of the link's slots are behind an entry that empties them.
func (d *dispatcher) emptied(e *haul.Entry) bool {
	if !d.cfg.Node.Cluster {
		return false
	}
	for slot := range uint16(command.Slots) {
		if d.cfg.Shard.Mine(slot) && !d.isApplied(slot, e) {
			return false
		}
	}
	return true
}

// unsettle gives up slots that are ahead of the stream, so that they are not emptied by what they have got over already:
// they are settled anew.
func (d *dispatcher) unsettle(ctx context.Context) error {
	var slots []uint16
	for slot := range d.settles {
		slots = append(slots, slot)
	}
	_, err := d.giveUp(ctx, slots)
	return err
}

// giveUp gives up those of some slots that are being settled, or are ahead of the stream, and reports whether any is: it
// is no one's then.
func (d *dispatcher) giveUp(ctx context.Context, slots []uint16) (some bool, err error) {
	for _, slot := range slots {
		if s := d.settles[slot]; s != nil {
			some = true
			if err := d.cfg.Shard.Moved(ctx, []uint16{slot}); err != nil {
				return some, err
			}
			d.abandon(s, errAbandoned)
		}
	}
	return some, nil
}

// doneByOther reports whether an error says that the link of another shard has done the same: libraries of functions are
// deleted and restored on each shard.
func (d *dispatcher) doneByOther(it item, e *resp.Error) bool {
	b, entry := it.batch, it.entry()
	if b.Snapshot || entry.Big != nil || entry.N != 1 || b.Commands[entry.First].Spec != d.enc.function {
		return false
	}
	return strings.Contains(e.Text, "Library not found") || strings.Contains(e.Text, "already exists")
}

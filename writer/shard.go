package writer

import (
	"context"
	"slices"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
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
		return nil
	}
}

// passing is what passOver finds in a batch.
type passing struct {
	d             *dispatcher
	b             *haul.Batch
	gone, covered []int    // entries
	moved         []uint16 // slots
}

// decide looks at each entry. With again it has to look once more, because keys were read that earlier ones have to do
// with.
func (p *passing) decide(ctx context.Context) (again bool, err error) {
	d, b := p.d, p.b
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone || e.End <= d.resumed && d.has(b, e) {
			continue
		}
		slots, ok := d.shardSlots(b, e)
		if !ok { // it concerns every node, or nobody knows its keys
			continue
		}
		if s := d.settlingOf(slots); s != nil {
			all, again, err := d.coverEntry(ctx, s, b, e)
			if again || err != nil {
				return again, err
			}
			if all {
				p.covered = append(p.covered, i)
			}
			continue
		}
		foreign := d.foreign(slots)
		if foreign == 0 {
			continue
		}
		if foreign == len(slots) || !p.part(e) {
			p.gone = append(p.gone, i)
		}
		p.note(slots)
	}
	return false, nil
}

// note notes those slots that are not the link's.
func (p *passing) note(slots []uint16) {
	for _, s := range slots {
		if !p.d.cfg.Shard.Mine(s) && !slices.Contains(p.moved, s) {
			p.moved = append(p.moved, s)
		}
	}
}

// part takes those commands out of a transaction whose slots are not the link's. It reports false where that cannot be: then
// all of the entry goes.
func (p *passing) part(e *haul.Entry) bool {
	if e.Kind != haul.KindTransaction {
		return false
	}
	cmds := p.b.CommandsOf(e)
	for i := range cmds {
		slots, err := slotsOf(p.b, &cmds[i])
		if err != nil {
			continue
		}
		foreign := p.d.foreign(slots)
		if foreign > 0 && foreign < len(slots) {
			return false
		}
		cmds[i].Skip = cmds[i].Skip || foreign > 0
	}
	return true
}

// foreign counts the slots that are not the link's.
func (d *dispatcher) foreign(slots []uint16) (n int) {
	for _, s := range slots {
		if !d.cfg.Shard.Mine(s) {
			n++
		}
	}
	return n
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

// coverEntry takes those commands out of an entry that are in what was read of its slot, and reports whether all are.
func (d *dispatcher) coverEntry(ctx context.Context, s *settling, b *haul.Batch, e *haul.Entry) (all, again bool, err error) {
	cmds, left := b.CommandsOf(e), 0
	for i := range cmds {
		if cmds[i].Skip {
			continue
		}
		covered, again, err := d.cover(ctx, s, b, e, &cmds[i])
		if again || err != nil {
			return false, again, err
		}
		if covered {
			cmds[i].Skip = true
		} else {
			left++
		}
	}
	return left == 0, false, nil
}

// dispatchShard gives the entries of a batch to lanes. What empties the shard is carried out in its turn: it concerns the
// link's slots only.
func (d *dispatcher) dispatchShard(ctx context.Context, b *haul.Batch) error {
	from := 0
	for i := range b.Entries {
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
	return d.route.dispatch(ctx, b, from, len(b.Entries))
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
	if len(slots) == 0 {
		return nil
	}
	err := d.cfg.Shard.Moved(ctx, slots)
	d.abandonAll()
	return err
}

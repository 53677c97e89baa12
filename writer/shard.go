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

// passOver takes out what is in slots that are not the link's.
func (d *dispatcher) passOver(ctx context.Context, b *haul.Batch) error {
	var moved []uint16
	note := func(slots ...uint16) {
		for _, s := range slots {
			if !d.cfg.Shard.Mine(s) && !slices.Contains(moved, s) {
				moved = append(moved, s)
			}
		}
	}
	var gone []int
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone || d.has(b, e) {
			continue
		}
		if slot, ok := singleSlot(b, e); ok {
			if !d.cfg.Shard.Mine(slot) {
				note(slot)
				gone = append(gone, i)
			}
			continue
		}
		slots, _, err := entrySlots(b, e)
		if err != nil { // it concerns every node, or nobody knows its keys
			continue
		}
		if foreign := d.foreign(slots); foreign == len(slots) && foreign > 0 {
			gone = append(gone, i)
		} else if foreign > 0 && !d.passOverPart(b, e, note) {
			gone = append(gone, i)
			continue
		}
		note(slots...)
	}
	if len(moved) > 0 {
		if err := d.cfg.Shard.Moved(ctx, moved); err != nil {
			return err
		}
	}
	for _, i := range gone {
		b.Entries[i].Drop = haul.DropMoved
	}
	return nil
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

// passOverPart takes those commands out of a transaction whose slots are not the link's. It reports false where a command
// has slots of both kinds: then all of the entry's slots count as moved, by what it notes.
func (d *dispatcher) passOverPart(b *haul.Batch, e *haul.Entry, note func(...uint16)) bool {
	if e.Kind != haul.KindTransaction {
		return false
	}
	cmds := b.CommandsOf(e)
	for i := range cmds {
		slots, err := slotsOf(b, &cmds[i])
		if err != nil {
			continue
		}
		foreign := d.foreign(slots)
		if foreign > 0 && foreign < len(slots) {
			return false
		}
		if foreign > 0 {
			cmds[i].Skip = true
			note(slots...)
		}
	}
	return true
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
	cmd := &b.Commands[e.First]
	if !d.emptied(e) {
		if err := d.cfg.Store.FlushSlots(ctx, cmd.DB, cmd.Spec.Name == "FLUSHALL", fenceAt(b, e), d.applied); err != nil {
			return err
		}
	}
	b.Done(1)
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

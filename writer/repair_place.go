package writer

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyhaul/keyhaul/haul"
)

// This is the dispatcher's side of keys that are repaired: see repair.go.

// repair is some keys with what the source has of them at one position.
type repair struct {
	keys   []wanted
	values []haul.Value
	at     haul.Position
	large  *largeValue // of the only key, whose value is not in memory; else nil
	prune  bool
	over   chan struct{} // closed when it is decided: the following may be read then
	failed error         // nothing was written

	lacking int
	flying  atomic.Int32 // batches that are not acknowledged, and one until all are given to lanes
	mu      sync.Mutex   // guards the following
	sent    map[int]bool // indices of keys that are written or deleted, unless they are refused: true for deleted
	refused []Refusal
}

// end says that it is decided what has become of its keys.
func (x *repair) end() {
	if x.large != nil {
		_ = x.large.file.Close()
	}
	close(x.over)
}

// missing reports whether the source lacks key i.
func (x *repair) missing(i int) bool { return x.values[i].Payload == "" && x.large == nil }

// size is the number of bytes of the payload of key i.
func (x *repair) size(i int) int64 {
	if x.large != nil {
		return x.large.size
	}
	return int64(len(x.values[i].Payload))
}

// add adds what has become of its keys.
func (x *repair) add(all *Repaired) {
	for _, deleted := range x.sent {
		if deleted {
			all.Pruned++
		} else {
			all.Written++
		}
	}
	all.Lacking += x.lacking
	all.Refused = append(all.Refused, x.refused...)
}

func (x *repair) refuse(index int, err error) {
	x.mu.Lock()
	delete(x.sent, index)
	x.refused = append(x.refused, Refusal{index, err})
	x.mu.Unlock()
}

// incoming is where batches come from, unless they have to wait.
func (d *dispatcher) incoming(in *haul.Channel) <-chan *haul.Batch {
	if d.repairs.holding {
		return nil
	}
	return in.Batches()
}

// repairPoll is when to look whether an idle stream has come to the place of what is due.
func (d *dispatcher) repairPoll() <-chan time.Time {
	if d.repairs.due == nil {
		return nil
	}
	return d.repairs.poll.C
}

// mayHold decides whether keys can be read now, and from which offset on.
func (d *dispatcher) mayHold() (from int64, err error) {
	switch {
	case d.watermark.Stream().Offset < 0:
		return 0, notNow("the snapshot is not on the target yet")
	case d.void:
		return 0, notNow("a new copy of the source is going to be made")
	}
	from = d.place().Offset
	for _, at := range d.applied {
		from = max(from, at)
	}
	return from, nil
}

// endRepair gives up what is due.
func (d *dispatcher) endRepair(why error) {
	if x := d.repairs.due; x != nil {
		d.repairs.due = nil
		d.repairs.poll.Stop()
		x.failed = why
		x.end()
	}
}

// endRepairs is called when Run ends.
func (d *dispatcher) endRepairs() {
	d.endRepair(errLinkEnded)
	d.repairs.end(errLinkEnded)
	if d.cfg.Values != nil {
		d.repairs.turn <- struct{}{} // whoever repairs has heard of it
		d.cfg.Values.Close()
	}
}

// repairWithin returns the index of the entry of a batch in front of which something is due.
func (d *dispatcher) repairWithin(b *haul.Batch) (i int, ok bool) {
	if d.repairs.due == nil || b.Snapshot {
		return 0, false
	}
	i = slices.IndexFunc(b.Entries, func(e haul.Entry) bool { return e.End > d.repairs.due.at.Offset })
	return i, i >= 0
}

// repairIfReached puts what is due in its place if all entries up to there are dispatched.
func (d *dispatcher) repairIfReached(ctx context.Context) {
	if d.repairs.due == nil {
		return
	}
	if at := d.place(); at.Offset >= d.repairs.due.at.Offset {
		d.placeRepair(ctx, place{entry: d.ownEntry(at, 0), end: at})
	}
}

// placeRepair writes what is due at a place. From there on it counts as something that was sent: who takes a slot from the
// link waits for it.
func (d *dispatcher) placeRepair(ctx context.Context, at place) {
	x := d.repairs.due
	if d.void || at.end.ReplID != x.at.ReplID {
		d.endRepair(notNow("the source has failed over"))
		return
	}
	d.repairs.due = nil
	d.repairs.poll.Stop()
	release := d.watermark.Hold()
	x.sent = make(map[int]bool, len(x.keys))
	x.flying.Store(1)
	landed := func() {
		if x.flying.Add(-1) == 0 {
			d.count("repaired_keys", int64(len(x.sent)))
			release()
			x.end()
		}
	}
	d.fly(x, at, d.repairable(ctx, x), landed)
	landed()
}

// repairable returns which keys are to be written or deleted, by slots where the target has them.
func (d *dispatcher) repairable(ctx context.Context, x *repair) map[uint16][]int {
	bySlot := make(map[uint16][]int)
	for i, k := range x.keys {
		if x.missing(i) && !x.prune {
			x.lacking++
			continue
		}
		slot := slotOf(k.KeyName)
		if err := d.unrepairable(ctx, k.KeyName, x, i, slot); err != nil {
			x.refuse(k.index, err)
			continue
		}
		if !d.cfg.Node.Cluster {
			slot = 0
		}
		x.sent[k.index] = x.missing(i)
		bySlot[slot] = append(bySlot[slot], i)
	}
	return bySlot
}

// unrepairable says why a key cannot be written at its place.
func (d *dispatcher) unrepairable(ctx context.Context, k haul.KeyName, x *repair, i int, slot uint16) error {
	if d.cfg.Shard != nil && d.passes(slot) {
		return notNow("slot %d moves between shards of the source, and is read from its new owner", slot)
	}
	if c, ok := d.route.(*cluster); ok && c.rereads.table.has(slot, k, x.at.Offset+1) {
		return notNow("it was read from the source for a command whose keys span slots")
	}
	if size := x.size(i); d.cfg.MaxBulk > 0 && size > d.cfg.MaxBulk {
		return fmt.Errorf("its value has %d bytes, and the target takes %d (proto-max-bulk-len)", size, d.cfg.MaxBulk)
	}
	if db := d.enc.db(k.DB); !d.dbs[db] {
		if err := d.trySelect(ctx, d.lanes[0].addr, db); err != nil {
			return notNow("the target does not give database %d: %w", db, err)
		}
		d.dbs[db] = true
	}
	return nil
}

// fly gives keys to lanes, a batch for each slot.
func (d *dispatcher) fly(x *repair, at place, bySlot map[uint16][]int, landed func()) {
	for slot, list := range bySlot {
		x.flying.Add(1)
		b := &ownBatch{Batch: haul.NewOwn(len(list), landed)}
		b.End = at.end
		b.Refused = func(entry uint32, why string) {
			x.refuse(x.keys[list[entry]].index, fmt.Errorf("the target refuses its value: %s", why))
		}
		for _, i := range list {
			k, v := x.keys[i].KeyName, x.values[i]
			e := at.entry
			if e.Kind = haul.KindCommand; d.cfg.Node.Cluster && d.exact() {
				e.Kind = haul.KindTransaction // which goes with the fence of its slot, though it could be repeated
			}
			e.N = 1
			if x.large != nil {
				b.setLarge(e, k, v, x.large)
			} else {
				b.set(e, k, v)
			}
			if d.cfg.Grace > 0 && v.ExpireAt > 0 && d.cfg.PutOff.Known() {
				d.cfg.PutOff.Change(d.cfg.DBs.Of(k.DB), []byte(k.Name))
			}
		}
		d.rewriter.own(b.Batch)
		d.route.own(b.Batch, slot)
	}
}

package writer

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// ErrRewind says that the target may have lost what it had acknowledged: it was restarted or failed over. What it has
// now must be read from its fences and marks, and the stream be read again from there.
var ErrRewind = errors.New("the target was restarted or failed over: the stream is read again from what it has")

// exact reports whether entries are applied exactly once.
func (d *dispatcher) exact() bool { return d.cfg.Exact }

// leased waits until this worker may write.
func (d *dispatcher) leased(ctx context.Context) error {
	if d.cfg.Lease == nil || d.cfg.Lease.Valid() {
		return nil
	}
	return d.cfg.Lease.Wait(ctx)
}

func (d *dispatcher) leaseText() string {
	if d.cfg.Lease == nil {
		return ""
	}
	return d.cfg.Lease.Text()
}

// isApplied reports whether the target's fences say that it has an entry of the stream.
func (d *dispatcher) isApplied(slot uint16, e *haul.Entry) bool {
	return d.applied != nil && e.End <= d.applied[slot]
}

// isThere reports whether the fences say that the target has an item that is to be sent again. One of the writer's own
// stands between two entries of the stream, and the fence that goes with it is that of the entry in front of it. So a fence
// behind that tells that it is there, and that it must not come again behind what followed it. Until then it may come
// again: nothing has followed.
func (d *dispatcher) isThere(slot uint16, it item) bool {
	if it.batch.Own {
		return d.applied != nil && it.entry().End < d.applied[slot]
	}
	return !it.batch.Snapshot && d.isApplied(slot, it.entry())
}

// appliedTo is the offset up to which the target's fences say that it has the stream in a slot.
func (d *dispatcher) appliedTo(slot uint16) int64 {
	if d.applied == nil {
		return 0
	}
	return d.applied[slot]
}

// alreadyApplied completes entries that the node of a lane has.
func (d *dispatcher) alreadyApplied(l *lane, b *haul.Batch, n int) {
	d.count("already_applied", int64(n))
	l.complete(b, n)
}

// skipApplied drops those entries of a batch that a standalone target has, and returns their number.
func (d *dispatcher) skipApplied(b *haul.Batch) int {
	if d.applied == nil || b.Snapshot || len(b.Entries) == 0 || b.Entries[0].Start >= d.applied[0] {
		return 0
	}
	n := 0
	for i := range b.Entries {
		e := &b.Entries[i]
		switch {
		case e.Drop != haul.DropNone:
		case e.End <= d.applied[0]:
			e.Drop = haul.DropApplied
			n++
		}
	}
	return n
}

// takeApart makes single commands of a transaction of which an earlier run, whose buffer was too small for it, has
// written the beginning in pieces: then the fences tell which of them are applied. It does so with every transaction if
// the target has none, and with those that empty a shard: the target holds other shards as well.
func (d *dispatcher) takeApart(b *haul.Batch) {
	resumed := d.applied != nil && len(b.Entries) > 0 && b.Entries[0].Start < d.resumed
	if b.Snapshot || !resumed && !d.cfg.NoTransactions && d.cfg.Shard == nil {
		return
	}
	var all []haul.Entry
	for i := range b.Entries {
		e := &b.Entries[i]
		flushes := d.cfg.Shard != nil && e.Kind == haul.KindTransaction && slices.ContainsFunc(b.CommandsOf(e), func(c haul.Command) bool { return c.Spec.Flushes() })
		if e.Kind != haul.KindTransaction || !d.cfg.NoTransactions && !flushes && !(resumed && d.isBegun(b, e)) {
			if all != nil {
				all = append(all, *e)
			}
			continue
		}
		if all == nil {
			all = append(all, b.Entries[:i]...)
		}
		if d.cfg.NoTransactions || flushes {
			d.count("transactions_split", 1)
		}
		for j := e.First; j < e.First+e.N; j++ {
			c := &b.Commands[j]
			start := e.Start + int64(c.Raw.Off-e.Off)
			all = append(all, haul.Entry{
				Start: start, End: start + int64(c.Raw.Len), Resume: e.Start, After: e.DB,
				Kind: haul.KindCommand, DB: c.DB, Off: c.Raw.Off, First: j, N: 1,
			})
		}
	}
	if all != nil {
		b.Expect(len(all) - len(b.Entries))
		b.Entries = all
	}
}

// has reports whether the target's fences say that it has an entry of the stream in all of its slots.
func (d *dispatcher) has(b *haul.Batch, e *haul.Entry) bool {
	slots := []uint16{0}
	if d.cfg.Node.Cluster {
		slots, _, _ = entrySlots(b, e)
	}
	for _, s := range slots {
		if !d.isApplied(s, e) {
			return false
		}
	}
	return len(slots) > 0
}

// isBegun reports whether a fence lies within a transaction.
func (d *dispatcher) isBegun(b *haul.Batch, e *haul.Entry) bool {
	slots := []uint16{0}
	if d.cfg.Node.Cluster {
		var err error
		if slots, _, err = entrySlots(b, e); err != nil {
			return false // it is refused, as it was then
		}
	}
	for _, s := range slots {
		if at := d.applied[s]; e.Start < at && at < e.End {
			return true
		}
	}
	return false
}

// replayed reports whether an error is what replaying leads to: a HSET meets the string that a later SET has put
// there. With fences only what may be repeated is, so that nothing but types can be in the way.
func (d *dispatcher) replayed(it item, e *resp.Error) bool {
	if d.cfg.Shard != nil && d.doneByOther(it, e) {
		d.count("done_by_other_link", 1)
		return true
	}
	if it.batch.Snapshot || it.batch.Refused != nil || it.entry().End > d.replayUntil.Load() {
		return false
	}
	typed := e.Code == "WRONGTYPE" || e.Code == "INVALIDOBJ"
	if d.exact() && !it.loose() && (d.slots == nil || !typed || !it.safe()) {
		return false
	}
	d.count("replay_errors", 1)
	return true
}

// resent notes what is going to be sent again.
func (d *dispatcher) resent(items []item) {
	if d.exact() && d.slots == nil {
		return // nothing is applied twice there
	}
	for _, it := range items {
		last := it
		last.first += it.n - 1
		d.replayTo(last)
	}
}

// replayTo notes that an entry that is applied is sent again.
func (d *dispatcher) replayTo(it item) {
	if it.batch.Snapshot {
		return
	}
	end := it.entry().End
	for at := d.replayUntil.Load(); end > at && !d.replayUntil.CompareAndSwap(at, end); at = d.replayUntil.Load() {
	}
}

// refence reads the fences of those nodes that were connected to anew: what was sent there without an answer may be
// applied.
func (d *dispatcher) refence(ctx context.Context) error {
	everywhere := d.moved && d.broken.Load() // a slot may have left the node that was cut off, with its fence
	d.moved = false
	d.broken.Store(false)
	for _, l := range d.lanes {
		if !l.fresh && !everywhere {
			continue
		}
		l.fresh = false
		l.touch() // what its fences say may have been written by others
		if !d.exact() || d.applied == nil {
			continue
		}
		if err := d.refenceLane(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

func (d *dispatcher) refenceLane(ctx context.Context, l *lane) error {
	for {
		err := d.cfg.Store.Applied(ctx, l.addr, d.route.slotsOf(l), d.applied)
		switch {
		case err == nil:
			if d.slots == nil && d.applied[0] < d.written() {
				return ErrRewind
			}
			return nil
		case errors.Is(err, checkpoint.ErrLost), errors.As(err, new(*resp.Error)):
			d.cfg.Log.Warn().Err(err).Msg("fences cannot be read where they were")
			return ErrRewind
		}
		d.cfg.Waits.Set(whoTarget, err.Error(), "none needed: keyhaul goes on when the target does")
		if err := d.sleep(ctx); err != nil {
			return err
		}
		d.cfg.Waits.Clear(whoTarget)
	}
}

// written is the highest fence that a standalone target has acknowledged.
func (d *dispatcher) written() int64 {
	at := int64(-1)
	for _, l := range d.lanes {
		at = max(at, l.fenced.Load())
	}
	return at
}

// known decides whether a lane may be connected to a server: one that was restarted, or promoted, may lack what was
// acknowledged. A standalone target tells by its fence, unless slots are settled: that does not move the fence on.
func (d *dispatcher) known(l *lane, node topology.Node) error {
	if d.cfg.Store == nil || node.RunID == "" {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	const never = "0000000000000000000000000000000000000000"
	switch {
	case d.runIDs[node.RunID], !d.opened && len(d.cfg.RunIDs) == 0:
	case d.opened && d.slots != nil && !d.broken.Load() && node.ReplID2 == never: // added: it was never a replica, and no node is missing
	case d.opened && d.exact() && d.slots == nil && d.applied != nil && d.cfg.Shard == nil:
	default:
		return &topology.Permanent{Err: ErrRewind}
	}
	d.runIDs[node.RunID] = true
	return nil
}

// hold notes on the target whom it is going to write to.
func (d *dispatcher) hold(ctx context.Context, lanes []*lane) error {
	if d.cfg.Store == nil {
		return nil
	}
	var holders []string
	for _, l := range lanes {
		holders = append(holders, l.holder)
	}
	return d.cfg.Store.Hold(ctx, holders)
}

// evict makes sure that bytes of the lane's last connection, if the server still holds any, are not executed later.
func (d *dispatcher) evict(ctx context.Context, l *lane, node topology.Node) error {
	if d.cfg.Store == nil || l.id == 0 || l.runID != node.RunID {
		return nil
	}
	_, err := d.cfg.Store.Evict(ctx, l.addr, func(id int64, name string) bool {
		return id == l.id && name == d.cfg.Dialer.ClientName
	})
	var refused *resp.Error
	if err == nil || errors.As(err, &refused) && !d.exact() {
		return nil
	}
	return fmt.Errorf("the last connection cannot be ended for sure: %w", err)
}

// mark has every lane write up to where everything is acknowledged, unless it did.
func (d *dispatcher) mark(at haul.Position) {
	if d.cfg.Store == nil || d.void || at.Offset < 0 || at == d.markedAt && !d.unmarked.Load() {
		return
	}
	d.unmarked.Store(false)
	d.markedAt = at
	for _, l := range d.lanes {
		l.setMark(checkpoint.Fence{Generation: at.Generation, At: at})
	}
}

func (l *lane) setMark(f checkpoint.Fence) {
	l.mu.Lock()
	l.mark = &f
	l.mu.Unlock()
	signal(l.wake)
}

func (l *lane) setMarked(key string) {
	l.mu.Lock()
	l.marked = key
	l.mu.Unlock()
}

package writer

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
)

// A slot of a cluster source that has moved to the link's shard is settled: its keys are read from the source and
// written in place of what the streams say of them, for between two streams there is no order. A key has then what the
// source had at an offset ahead of the link's stream; what the stream does to it up to there is left out. Nothing of the
// slot is on its way before: it is no link's until all of it was read.

// Settlement is a slot to be settled.
type Settlement struct {
	Slot uint16
	Held []haul.KeyName  // keys of the slot that the target has; those that the source lacks are removed
	Mine func(mine bool) // makes the slot the link's, or no one's again; called by the writer
	At   int64           // if it is settled: the offset of its fence, or one behind which it is settled
	done chan error
}

// Settler is a writer to which slots can be given.
type Settler interface {
	// Settle settles a slot. When it returns nil, the target has all of it, and whoever resumes with the slot as the
	// link's goes on from there. After an error the slot is no one's.
	Settle(s *Settlement) error
}

// errAbandoned says that a slot could not be settled because the pipeline has ended, or because it moved on.
var errAbandoned = errors.New("the slot is settled anew")

// settling is a slot that is being settled, or that is ahead of the stream.
type settling struct {
	*Settlement
	todo   []haul.KeyName
	read   map[haul.KeyName]int64 // the offsets at which keys were read
	listed int64                  // keys that were not read do not exist at this offset; -1 while some are still to be read
	passed bool                   // the stream has caught up
	flying atomic.Int32           // batches of values that are not acknowledged
	failed error                  // why it was given up; nil if it was not
}

// covers reports whether what comes for a key up to an offset is in what was read of it. What is still to be read will
// have it.
func (s *settling) covers(k haul.KeyName, offset int64) bool {
	at, ok := s.read[k]
	if !ok {
		return s.listed < 0 || offset <= s.listed
	}
	return offset <= at
}

// highest is the offset behind which nothing of the slot is ahead of the stream.
func (s *settling) highest() int64 {
	at := s.listed
	for _, o := range s.read {
		at = max(at, o)
	}
	return at
}

// settler is what a writer knows of slots that are settled. It belongs to the dispatcher's goroutine, but for calls and
// what is atomic.
type settler struct {
	watermark *haul.Watermark
	at        haul.Position // behind the last entry that was dispatched
	upTo      int64         // the end of that, which is behind at if it is a piece of a transaction
	settles   map[uint16]*settling
	leaving   []*settling                      // given up; what was written of them may be on its way
	calls     chan func(context.Context) error // for the dispatcher to do; there is room for two of each slot
	poll      *time.Ticker
	over      chan struct{} // closed when Run ends
	one       [1]uint16     // of shardSlots

	atOnce int           // keys that are read at once
	held   atomic.Int64  // bytes of values that are not acknowledged
	fewer  chan struct{} // signalled when they are fewer, or it is time to read on
}

// newSettler returns one that settles nothing unless the source is a cluster.
func newSettler(shard Shard) settler {
	if shard == nil {
		return settler{}
	}
	return settler{
		settles: make(map[uint16]*settling), calls: make(chan func(context.Context) error, 2*command.Slots),
		poll: time.NewTicker(settleAgain), over: make(chan struct{}), atOnce: settleLeast, fewer: make(chan struct{}, 1),
	}
}

// polling is when to look whether the stream has caught up; never if nothing waits for that.
func (s *settler) polling() <-chan time.Time {
	if len(s.settles) == 0 {
		return nil
	}
	return s.poll.C
}

// within reports whether the last entry was a piece of a transaction that goes on.
func (s *settler) within() bool { return s.upTo > s.at.Offset }

// endSettling is called when Run ends: what was read of slots that are not settled is ahead of the stream, which nobody
// would know any more.
func (d *dispatcher) endSettling() {
	if d.cfg.Shard == nil {
		return
	}
	d.poll.Stop()
	close(d.over)
	d.abandonAll()
}

// Settle implements Settler.
func (d *dispatcher) Settle(s *Settlement) error {
	s.done = make(chan error, 1)
	d.calls <- func(ctx context.Context) error { return d.beginSettling(ctx, s) }
	select {
	case err := <-s.done:
		return err
	case <-d.over:
		return errAbandoned
	}
}

const (
	settleKeys  = 256                   // of a slot that are read at once, at most
	settleLeast = 8                     // and at first, when it is not known how large they are
	settleSize  = 256 << 10             // bytes that are read at once, about
	settleHeld  = 4 << 20               // bytes on their way to the target before more are read
	settleTurn  = 20 * time.Millisecond // for which a slot that has many is read before the stream goes on
	settleAgain = 50 * time.Millisecond // between two looks whether the stream has caught up
	settleReply = 5 * time.Second       // for the source to answer
)

// beginSettling begins to settle a slot.
func (d *dispatcher) beginSettling(ctx context.Context, s *Settlement) error {
	if d.watermark.Stream().Offset < 0 || d.within() || d.settles[s.Slot] != nil {
		s.done <- errAbandoned // the link has no stream yet, or is within a transaction that is sent in pieces
		return nil
	}
	d.settles[s.Slot] = &settling{Settlement: s, todo: s.Held, read: make(map[haul.KeyName]int64), listed: -1}
	return d.settleOn(ctx)
}

// place is where entries of the writer's own stand that come now: behind all that was dispatched.
func (d *dispatcher) place() haul.Position {
	if at := d.watermark.Stream(); at.Offset >= d.at.Offset { // behind the last entry came something that is none
		return at
	}
	return d.at
}

// ownEntry is an entry of the writer's own at a place. A fence that goes with it must not go back behind what the target
// has got: pieces of a transaction, too.
func (d *dispatcher) ownEntry(at haul.Position, slot uint16) haul.Entry {
	if !d.cfg.Node.Cluster {
		slot = 0
	}
	end := max(at.Offset, d.upTo, d.appliedTo(slot))
	return haul.Entry{Start: end, End: end, Resume: at.Offset, After: at.DB, Kind: haul.KindCommand, N: 1}
}

// settleOn reads more of the slots that are not read to the end, for one turn.
func (d *dispatcher) settleOn(ctx context.Context) error {
	d.leave()
	began := time.Now()
	for _, s := range d.settles {
		for s.listed < 0 {
			if d.held.Load() >= settleHeld {
				return nil // it goes on when they are fewer
			}
			if time.Since(began) > settleTurn {
				signal(d.fewer)
				return nil
			}
			if err := d.readSome(ctx, s); err != nil {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				d.abandon(s, err)
				break
			}
		}
	}
	return nil
}

// readSome reads some keys of a slot: those that are known and not read, else those that the source lists.
func (d *dispatcher) readSome(ctx context.Context, s *settling) error {
	if len(s.todo) == 0 {
		short, cancel := context.WithTimeout(ctx, settleReply)
		keys, offset, err := d.cfg.Source.SlotKeys(short, d.place().Offset, s.Slot)
		cancel()
		if err != nil {
			return err
		}
		for _, k := range keys {
			if _, ok := s.read[k]; !ok && !checkpoint.Reserved([]byte(k.Name)) {
				s.todo = append(s.todo, k)
			}
		}
		if len(s.todo) == 0 {
			s.listed = offset
			s.Mine(true)
			return nil
		}
	}
	n := min(len(s.todo), d.atOnce)
	err := d.readNow(ctx, s, s.todo[:n])
	s.todo = s.todo[n:]
	return err
}

// readNow writes keys of a slot as the source has them now.
func (d *dispatcher) readNow(ctx context.Context, s *settling, keys []haul.KeyName) error {
	at := d.place()
	ctx, cancel := context.WithTimeout(ctx, settleReply)
	defer cancel()
	values, offset, err := d.cfg.Source.ReadKeys(ctx, at.Offset, keys)
	if err != nil {
		return err
	}
	size := int64(0)
	b := &ownBatch{Batch: haul.NewOwn(len(keys), func() {
		d.held.Add(-size)
		s.flying.Add(-1)
		signal(d.fewer)
	})}
	b.End = at
	for i, k := range keys {
		if err := d.hasDB(ctx, k.DB); err != nil {
			return err
		}
		s.read[k] = offset
		b.set(d.ownEntry(at, s.Slot), k, values[i])
	}
	d.rewriter.own(b.Batch)
	size = int64(len(b.Buf))
	d.held.Add(size)
	s.flying.Add(1)
	switch {
	case size > settleSize:
		d.atOnce = max(d.atOnce/2, 1)
	case size < settleSize/2:
		d.atOnce = min(d.atOnce*2, settleKeys)
	}
	d.count("settled_keys", int64(len(keys)))
	d.route.own(b.Batch, s.Slot)
	return nil
}

// set appends the entry that makes a key what the source has.
func (b *ownBatch) set(e haul.Entry, k haul.KeyName, v haul.Value) {
	e.DB, e.First = k.DB, uint32(len(b.Commands))
	b.Entries = append(b.Entries, e)
	b.write(k, v)
}

// abandon gives up a slot: it is no one's. Whoever settles it next must not be overtaken by what was written of it: that
// is answered first.
func (d *dispatcher) abandon(s *settling, err error) {
	delete(d.settles, s.Slot)
	s.Mine(false)
	s.failed = err
	d.leaving = append(d.leaving, s)
	d.leave()
}

// leave lets go of slots that were given up and of which nothing is on its way.
func (d *dispatcher) leave() {
	d.leaving = slices.DeleteFunc(d.leaving, func(s *settling) bool {
		if s.flying.Load() > 0 {
			return false
		}
		s.done <- s.failed
		return true
	})
}

// abandonAll gives up all slots that are not settled.
func (d *dispatcher) abandonAll() {
	for _, s := range d.settles {
		d.abandon(s, errAbandoned)
	}
}

// caughtUp ends the settling of slots that the stream has caught up with: nothing of them is left out any more. Where
// slots have fences, theirs say so.
func (d *dispatcher) caughtUp() {
	at := d.place()
	for _, s := range d.settles {
		if s.passed || s.listed < 0 || s.highest() > at.Offset || d.within() {
			continue
		}
		s.passed, s.At = true, at.Offset
		b := &ownBatch{Batch: haul.NewOwn(1, func() { d.calls <- func(context.Context) error { return d.settled(s) } })}
		b.End = at
		b.Entries = append(b.Entries, d.ownEntry(at, s.Slot))
		if keys := d.cfg.Store.Keys(); d.cfg.Node.Cluster {
			b.command(0, "SET", keys.Fence(s.Slot), string(fenceAt(b.Batch, &b.Entries[0]).Append(nil)))
		} else {
			b.command(0, "DEL", checkpoint.Touch(keys.WholeMark())) // the fence of all is written with it
		}
		d.route.own(b.Batch, s.Slot)
	}
}

// settled hears that the target knows that it has a slot.
func (d *dispatcher) settled(s *settling) error {
	if d.settles[s.Slot] == s {
		delete(d.settles, s.Slot)
		s.done <- nil
	}
	return nil
}

// cover decides on a command of a slot that is being settled: whether what it does is in what was read. Where that is so
// for some of its keys only, the others are read as well, and again is true: what comes before it must be decided anew.
func (d *dispatcher) cover(ctx context.Context, s *settling, b *haul.Batch, e *haul.Entry, cmd *haul.Command) (covered, again bool, err error) {
	n, arg, readErr := argsOf(b, e, cmd)
	index, err := keyIndices(cmd.Spec, n, arg)
	if err != nil || *readErr != nil || len(index) == 0 {
		return false, false, errors.Join(*readErr, err)
	}
	var lacking []haul.KeyName
	for _, i := range index {
		if k := (haul.KeyName{DB: cmd.DB, Name: string(arg(i))}); !s.covers(k, e.End) {
			lacking = append(lacking, k)
		}
	}
	if *readErr != nil || len(lacking) == 0 || len(lacking) == len(index) {
		return len(lacking) == 0, false, *readErr
	}
	switch err := d.readNow(ctx, s, lacking); {
	case err == nil:
		return true, true, nil
	case ctx.Err() != nil:
		return false, false, context.Cause(ctx)
	default: // it may never be read: the slot may have moved on, or the source be another one
		d.cfg.Log.Warn().Err(err).Msg("keys of a moved slot cannot be read from the source: it is settled anew")
		again, err = d.giveUp(ctx, []uint16{s.Slot})
		return false, again, err
	}
}

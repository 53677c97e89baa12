package writer

import (
	"context"
	"errors"
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
}

// ahead is the offset up to which a key has everything. What is still to be read will have it.
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

// settler is what a writer knows of slots that are settled. It belongs to the dispatcher's goroutine, but for calls.
type settler struct {
	watermark *haul.Watermark
	at        haul.Position // behind the last entry that was dispatched
	within    bool          // that is a piece of a transaction
	settles   map[uint16]*settling
	calls     chan func(context.Context) error // for the dispatcher to do; there is room for two of each slot
	poll      *time.Ticker
	over      chan struct{} // closed when Run ends
	one       [1]uint16     // of shardSlots
}

func newSettler() settler {
	return settler{
		settles: make(map[uint16]*settling), calls: make(chan func(context.Context) error, 2*command.Slots),
		poll: time.NewTicker(settleAgain), over: make(chan struct{}),
	}
}

// polling is when to look whether the stream has caught up; never if nothing waits for that.
func (s *settler) polling() <-chan time.Time {
	if len(s.settles) == 0 {
		return nil
	}
	return s.poll.C
}

// behind returns what notes that a batch is dispatched, which may be gone by then.
func (s *settler) behind(b *haul.Batch) func() {
	if b.Snapshot || len(b.Entries) == 0 {
		return func() {}
	}
	last := &b.Entries[len(b.Entries)-1]
	at, within := b.End, last.Resume != last.End
	return func() { s.at, s.within = at, within }
}

// endSettling is called when Run ends: what was read of slots that are not settled is ahead of the stream, which nobody
// would know any more.
func (d *dispatcher) endSettling() {
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
	settleKeys  = 256                   // of a slot that are read at once
	settleTurn  = 20 * time.Millisecond // for which a slot that has many is read before the stream goes on
	settleAgain = 50 * time.Millisecond // after an error of the source
)

// beginSettling begins to settle a slot.
func (d *dispatcher) beginSettling(ctx context.Context, s *Settlement) error {
	if d.watermark.Stream().Offset < 0 || d.within || d.settles[s.Slot] != nil {
		s.done <- errAbandoned // the link has no stream yet, or is within a transaction that is sent in pieces
		return nil
	}
	d.settles[s.Slot] = &settling{Settlement: s, todo: s.Held, read: make(map[haul.KeyName]int64), listed: -1}
	return d.settleOn(ctx)
}

// place is where entries of the writer's own stand that come now: behind all that was dispatched.
func (d *dispatcher) place() haul.Position {
	if at := d.watermark.Stream(); at.Offset > d.at.Offset { // behind the last entry came something that is none
		return at
	}
	return d.at
}

// settleOn reads more of the slots that are not read to the end, for one turn.
func (d *dispatcher) settleOn(ctx context.Context) error {
	began := time.Now()
	for _, s := range d.settles {
		for s.listed < 0 {
			if time.Since(began) > settleTurn {
				d.calls <- d.settleOn
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
		keys, offset, err := d.cfg.Source.SlotKeys(ctx, d.place().Offset, s.Slot)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if _, ok := s.read[k]; !ok {
				s.todo = append(s.todo, k)
			}
		}
		if len(s.todo) == 0 {
			s.listed = offset
			s.Mine(true)
			return nil
		}
	}
	n := min(len(s.todo), settleKeys)
	err := d.readNow(ctx, s, s.todo[:n])
	s.todo = s.todo[n:]
	return err
}

// readNow writes keys of a slot as the source has them now.
func (d *dispatcher) readNow(ctx context.Context, s *settling, keys []haul.KeyName) error {
	at := d.place()
	values, offset, err := d.cfg.Source.ReadKeys(ctx, at.Offset, keys)
	if err != nil {
		return err
	}
	b := &ownBatch{Batch: haul.NewOwn(len(keys), func() {})}
	b.End = at
	for i, k := range keys {
		if err := d.hasDB(ctx, k.DB); err != nil {
			return err
		}
		s.read[k] = offset
		b.set(at, k, values[i])
	}
	d.count("settled_keys", int64(len(keys)))
	d.route.own(b.Batch, s.Slot)
	return nil
}

// set appends the entry that makes a key what the source has.
func (b *ownBatch) set(at haul.Position, k haul.KeyName, v haul.Value) {
	b.Entries = append(b.Entries, haul.Entry{
		Start: at.Offset, End: at.Offset, Resume: at.Offset, Kind: haul.KindCommand,
		DB: k.DB, After: at.DB, First: uint32(len(b.Commands)), N: 1,
	})
	b.write(k, v)
}

// abandon gives up a slot: it is no one's.
func (d *dispatcher) abandon(s *settling, err error) {
	delete(d.settles, s.Slot)
	s.Mine(false)
	s.done <- err
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
		if s.passed || s.listed < 0 || s.highest() > at.Offset || d.within {
			continue
		}
		s.passed = true
		b := &ownBatch{Batch: haul.NewOwn(1, func() { d.calls <- func(context.Context) error { return d.settled(s) } })}
		b.End = at
		b.Entries = append(b.Entries, haul.Entry{
			Start: at.Offset, End: at.Offset, Resume: at.Offset, Kind: haul.KindCommand, After: at.DB, N: 1,
		})
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
	for {
		err := d.readNow(ctx, s, lacking)
		if err == nil {
			return true, true, nil
		}
		if ctx.Err() != nil {
			return false, false, context.Cause(ctx)
		}
		d.cfg.Log.Warn().Err(err).Msg("keys of a moved slot cannot be read from the source yet")
		select {
		case <-time.After(settleAgain):
		case <-ctx.Done():
			return false, false, context.Cause(ctx)
		}
	}
}

// settlingOf returns the slot of a command that is being settled, or is ahead of the stream.
func (d *dispatcher) settlingOf(slots []uint16) *settling {
	if len(d.settles) == 0 || len(slots) != 1 {
		return nil
	}
	return d.settles[slots[0]]
}

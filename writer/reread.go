package writer

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// KeyReader reads keys from the source of the stream.
type KeyReader interface {
	// ReadKeys returns what the source has of keys, all at one offset of its stream that is not before from. A *resp.Error
	// says that the source does not let them be read, and haul.ErrSuperseded that a new copy comes; after any other
	// error a later try may succeed.
	ReadKeys(ctx context.Context, from int64, keys []haul.KeyName) ([]haul.Value, int64, error)
	// SlotKeys returns the keys of a slot that the source, a node of a cluster, has at an offset of its stream, in the
	// same way.
	SlotKeys(ctx context.Context, from int64, slot uint16) ([]haul.KeyName, int64, error)
	Close()
}

const (
	rereadKeys  = 256      // at once
	rereadBytes = 16 << 20 // on their way to the target before more are read
	forgetKeys  = 1024     // at once
	forgetEvery = time.Second
)

// rereads is what the router of a cluster knows of keys that were read from the source.
type rereads struct {
	table  aheadTable
	held   atomic.Int64  // bytes that are not acknowledged
	fewer  chan struct{} // signalled when they are
	forgot time.Time
}

// place is where entries of the writer's own stand: between two of the stream's.
type place struct {
	entry haul.Entry // only its offsets and databases count
	end   haul.Position
}

// before is the place in front of an entry. One of a transaction that is sent in pieces stands within that.
func before(b *haul.Batch, e *haul.Entry) place {
	p := place{entry: haul.Entry{Start: e.Start, End: e.Start, Resume: e.Start, DB: e.DB, After: e.DB}, end: b.End}
	if e.Resume < e.Start {
		p.entry.Resume, p.entry.After = e.Resume, e.After
	}
	return p
}

// settle has the keys read that an entry needs, so that the rest of it, if anything is left, can be sent. Nothing of
// the entry was sent before.
func (c *cluster) settle(ctx context.Context, it item) (left bool, err error) {
	if it.batch.Snapshot || c.d.cfg.Source == nil {
		return true, nil
	}
	for {
		v, err := c.judge(ctx, it, &keySet{})
		switch {
		case unjudged(err):
			return true, nil
		case err != nil:
			return false, err
		case len(v.need.list) == 0:
			return c.leaveOut(it, v), nil
		}
		from, err := c.lookAhead(ctx, it, &v.need)
		if err == nil {
			err = c.reread(ctx, before(it.batch, it.entry()), from, v.need.list, it.batch)
		}
		var refused *resp.Error
		switch {
		case errors.As(err, &refused):
			return false, c.refuse(it, &resp.Error{Code: "CROSSSLOT", Text: "CROSSSLOT its keys belong to several slots of the target, or were read from the source, " +
				"which does not let more keys be read: " + refused.Text})
		case errors.Is(err, haul.ErrSuperseded):
			c.d.void = true
			it.batch.Done(1)
			return false, nil
		case err != nil:
			return false, err
		}
	}
}

// leaveOut takes those commands out of an entry that are covered, and reports whether others are left.
func (c *cluster) leaveOut(it item, v verdict) bool {
	cmds := it.batch.CommandsOf(it.entry())
	for _, i := range v.covered {
		cmds[i].Skip = true
	}
	if n := len(v.covered); n > 0 {
		c.d.count("covered_by_reread", int64(n))
	}
	if !v.left {
		it.batch.Done(1)
	}
	return v.left
}

// lookAhead adds to need what later entries of the batch need as well, so that one question serves them all. It returns
// the offset behind the last entry that it has looked at.
func (c *cluster) lookAhead(ctx context.Context, it item, need *keySet) (int64, error) {
	b, from := it.batch, it.entry().End
	for i := int(it.first) + 1; i < len(b.Entries) && len(need.list) < rereadKeys; i++ {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone || e.Big != nil || slices.ContainsFunc(b.CommandsOf(e), func(c haul.Command) bool { return c.Spec == nil }) {
			continue
		}
		v, err := c.judge(ctx, item{batch: b, first: uint32(i), n: 1}, need)
		if err != nil {
			continue // it is dealt with in its turn
		}
		for _, k := range v.need.list {
			need.add(k)
		}
		from = e.End
	}
	return from, nil
}

// reread writes keys at a place of the stream as the source has them now, at offset from or behind it. From then on they
// are ahead: what writes them before that offset is left out. hold, unless it is nil, is not complete before that is
// acknowledged.
func (c *cluster) reread(ctx context.Context, at place, from int64, keys []haul.KeyName, hold *haul.Batch) error {
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b haul.KeyName) int { return int(a.DB - b.DB) })
	for some := range slices.Chunk(keys, rereadKeys) {
		values, offset, err := c.readKeys(ctx, from, some)
		if err != nil {
			return err
		}
		c.d.count("rereads", 1)
		c.d.count("reread_keys", int64(len(some)))
		read := make([]ownKey, len(some))
		for i, k := range some {
			read[i] = ownKey{checkpoint.Ahead{Key: k, Slot: slotOf(k), Generation: at.end.Generation, Offset: offset}, values[i]}
			c.rereads.table.set(read[i].Ahead)
		}
		for len(read) > 0 {
			n := fitting(read)
			c.sendOwn(at, read[:n], hold, (*ownBatch).restore)
			read = read[n:]
		}
	}
	return nil
}

// readKeys asks the source until it answers, and mends what goes wrong on the target meanwhile.
func (c *cluster) readKeys(ctx context.Context, from int64, keys []haul.KeyName) ([]haul.Value, int64, error) {
	const who = "keys of the source"
	defer c.d.cfg.Waits.Clear(who)
	c.flush() // so that what is mended keeps its order
	for c.rereads.held.Load() >= rereadBytes {
		if err := c.pause(ctx, c.rereads.fewer, nil); err != nil {
			return nil, 0, err
		}
	}
	for try := 0; ; try++ {
		values, offset, err := c.d.cfg.Source.ReadKeys(ctx, from, keys)
		if err == nil || errors.As(err, new(*resp.Error)) || errors.Is(err, haul.ErrSuperseded) {
			return values, offset, err
		}
		c.d.cfg.Waits.Set(who, err.Error(), "none needed: keys that span slots of the target are read when the source can be reached")
		timer := time.NewTimer(min(50*time.Millisecond<<min(try, 5), time.Second))
		err = c.pause(ctx, nil, timer.C)
		timer.Stop()
		if err != nil {
			return nil, 0, err
		}
	}
}

// pause waits for one of two things, and mends what goes wrong on the target meanwhile.
func (c *cluster) pause(ctx context.Context, event <-chan struct{}, timer <-chan time.Time) error {
	for {
		select {
		case <-event:
			return nil
		case <-timer:
			return nil
		case <-c.d.moves:
			if err := c.attend(); err != nil {
				return err
			}
		case <-c.d.trouble:
			if err := c.d.recover(ctx); err != nil {
				return err
			}
		case err := <-c.d.dead:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// forget takes those keys off the target's list that the stream has caught up with at a place.
func (c *cluster) forget(at place) {
	if c.rereads.table.empty() || time.Since(c.rereads.forgot) < forgetEvery {
		return
	}
	c.rereads.forgot = time.Now()
	var gone []ownKey
	for _, a := range c.rereads.table.reached(at.entry.End, forgetKeys) {
		gone = append(gone, ownKey{Ahead: a})
	}
	if len(gone) > 0 && c.d.cfg.Store != nil {
		c.sendOwn(at, gone, nil, (*ownBatch).forget)
	}
}

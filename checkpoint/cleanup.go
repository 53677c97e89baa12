package checkpoint

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// Cleanup removes the haul's keys from the target, the lease among them, unregisters its name, and leaves the
// tombstone, whose value is the time in unix seconds. It returns how many keys it removed. It tries until ctx ends,
// and may be repeated. It looks at no key but the haul's own.
func (s *Store) Cleanup(ctx context.Context) (int64, error) {
	var removed atomic.Int64
	count := func(_ int, r resp.Reply) error {
		removed.Add(r.Int)
		return r.Err()
	}
	err := s.retry(ctx, "remove the haul's keys", func(ctx context.Context, l *layout) error {
		return s.fresh(ctx, l.owner().addr, true, func(owner *conn) error {
			// First the tombstone: a haul that is removed in part cannot be resumed.
			if _, err := owner.do(ctx, "SET", s.Keys().Tombstone(), strconv.FormatInt(time.Now().Unix(), 10)); err != nil {
				return err
			}
			err := l.each(ctx, func(ctx context.Context, n node) error {
				return s.fresh(ctx, n.addr, true, func(c *conn) error {
					if err := c.exchange(ctx, s.fenceRemoval(n), count); err != nil {
						return c.fail("DEL", err)
					}
					if err := s.removeAhead(ctx, c, n, count); err != nil {
						return err
					}
					return s.removeParts(ctx, c, n, count)
				})
			})
			if err != nil {
				return err
			}
			// Last the lease: until then it guards what is removed.
			var b batch
			keys := s.Keys()
			for _, keys := range s.everyKeys() {
				b.add("DEL", keys.Record(), keys.Refusals())
			}
			b.add("DEL", keys.Lease())
			err = owner.exchange(ctx, &b, count)
			if err == nil {
				_, err = owner.do(ctx, "SREM", namesKey, s.cfg.Name)
			}
			return owner.fail("DEL", err)
		})
	})
	if err == nil {
		s.remember(Record{}, false)
	}
	return removed.Load(), err
}

// removeAhead removes what says which keys are ahead.
func (s *Store) removeAhead(ctx context.Context, c *conn, n node, count func(i int, r resp.Reply) error) error {
	if n.slots == nil {
		return nil
	}
	dbs, err := databases(ctx, c)
	for _, db := range dbs {
		if err == nil {
			err = s.eachSlot(ctx, c, n, db, "DEL", s.Keys().Ahead, func(_ uint16, r resp.Reply) error { return count(0, r) })
		}
	}
	return err
}

// removeParts removes what a process has left that died while it built a large value.
func (s *Store) removeParts(ctx context.Context, c *conn, n node, count func(i int, r resp.Reply) error) error {
	dbs, err := databases(ctx, c)
	for _, db := range dbs {
		for _, keys := range s.everyKeys() {
			names, in := []func(uint16) string{keys.Part, keys.MovingPart}, n
			if n.slots == nil {
				names, in.slots = []func(uint16) string{func(uint16) string { return keys.WholePart() }}, []uint16{0}
			}
			for _, name := range names {
				if err == nil {
					err = s.eachSlot(ctx, c, in, db, "UNLINK", name, func(_ uint16, r resp.Reply) error { return count(0, r) })
				}
			}
		}
	}
	return err
}

func (s *Store) fenceRemoval(n node) *batch {
	b := &batch{}
	for _, keys := range s.everyKeys() {
		if n.slots == nil {
			b.add("DEL", keys.Whole(), keys.WholeMark())
		}
		for _, slot := range n.slots {
			b.add("DEL", keys.Fence(slot), keys.Mark(slot), keys.Ahead(slot))
		}
	}
	return b
}

// everyKeys returns the names of the haul's keys, and of those of its links.
func (s *Store) everyKeys() []Keys {
	all := []Keys{{Name: s.cfg.Name}}
	for _, link := range s.Record().Links {
		all = append(all, Keys{s.cfg.Name, link})
	}
	return all
}

// Retire removes the keys of a link whose shard is gone from the target. It tries until ctx ends.
func (s *Store) Retire(ctx context.Context) error {
	return s.retry(ctx, "remove the keys of a link", func(ctx context.Context, l *layout) error {
		return l.each(ctx, func(ctx context.Context, n node) error {
			b, keys := &batch{}, s.Keys()
			if n.addr == l.owner().addr {
				b.add("DEL", keys.Record(), keys.Refusals())
			}
			if n.slots == nil {
				b.add("DEL", keys.Whole(), keys.WholeMark())
			}
			for _, slot := range n.slots {
				b.add("DEL", keys.Fence(slot), keys.Mark(slot))
			}
			return s.fresh(ctx, n.addr, true, func(c *conn) error {
				_, err := c.ask(ctx, b)
				return c.fail("DEL", err)
			})
		})
	})
}

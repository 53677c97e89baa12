package checkpoint

import (
	"context"
	"errors"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// pageKeys is how many listed keys of one node and database are sent at once.
const pageKeys = 500

// page is listed keys of one database.
type page struct {
	db        int32
	keys      []string
	deadlines []int64 // true ones, or unknown
}

// shiftListed moves the deadlines of the keys that p lists. It tries once: where it fails they must be looked for.
func (s *Store) shiftListed(ctx context.Context, p *PutOff, by shift, tick func(seen, changed int64)) error {
	l, err := s.look(ctx, true)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var seen, changed int64
	count := func(n, moved int64) {
		mu.Lock()
		defer mu.Unlock()
		seen, changed = seen+n, changed+moved
		if tick != nil {
			tick(seen, changed)
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	pages := make([]chan page, len(l.nodes))
	for i, n := range l.nodes {
		pages[i] = make(chan page, lookers)
		for range lookers {
			group.Go(func() error {
				return s.fresh(groupCtx, n.addr, true, func(c *conn) error {
					return c.fail(settingDeadlines, by.serve(groupCtx, c, pages[i], count))
				})
			})
		}
	}
	group.Go(func() error {
		err := l.deal(groupCtx, p, pages)
		for _, c := range pages {
			close(c)
		}
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	now, err := s.look(ctx, true)
	if err == nil && !l.same(now) {
		err = errors.New("slots have moved, or a node failed over")
	}
	return err
}

// deal gives the listed keys to their nodes.
func (l *layout) deal(ctx context.Context, p *PutOff, pages []chan page) error {
	owners := make([]int, command.Slots) // on a standalone the one node's
	for i, n := range l.nodes {
		for _, slot := range n.slots {
			owners[slot] = i
		}
	}
	type where struct {
		node int
		db   int32
	}
	open := map[where]page{}
	send := func(at where) error {
		select {
		case pages[at.node] <- open[at]:
			delete(open, at)
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	err := p.each(func(db int32, key []byte, deadline int64) error {
		at := where{0, db}
		if len(l.nodes) > 1 {
			at.node = owners[command.Slot(key)]
		}
		pg, ok := open[at]
		if !ok {
			pg = page{db: db, keys: make([]string, 0, pageKeys), deadlines: make([]int64, 0, pageKeys)}
		}
		pg.keys, pg.deadlines = append(pg.keys, string(key)), append(pg.deadlines, deadline)
		open[at] = pg
		if len(pg.keys) < pageKeys {
			return nil
		}
		return send(at)
	})
	for at := range open {
		if err == nil {
			err = send(at)
		}
	}
	return err
}

// serve moves the deadlines of one node's keys.
func (s shift) serve(ctx context.Context, c *conn, pages <-chan page, count func(n, moved int64)) error {
	about, err := topology.Inspect(ctx, c.Conn)
	if err != nil {
		return err
	}
	v, err := s.on(ctx, c, about, nil)
	if err != nil {
		return err
	}
	db := int32(0)
	for pg := range pages {
		if pg.db != db {
			if _, err := c.do(ctx, "SELECT", strconv.Itoa(int(pg.db))); err != nil {
				return err
			}
			db = pg.db
		}
		moved, err := v.move(ctx, c, pg)
		if err != nil {
			return err
		}
		count(int64(len(pg.keys)), moved)
	}
	return nil
}

// move moves the deadlines of a page, and returns how many. Those that are not known are asked for; so are all where a
// key whose deadline was taken away since could get it back.
func (s shifter) move(ctx context.Context, c *conn, pg page) (int64, error) {
	var questions, changes batch
	var asked []string
	for i, key := range pg.keys {
		deadline := pg.deadlines[i]
		if deadline == unknown || !s.flags {
			s.ask(&questions, key)
			asked = append(asked, key)
		} else if to, ok := s.to(deadline + s.offset); ok {
			changes.add(s.expireAt(key, to)...)
		}
	}
	if len(asked) > 0 {
		replies, err := c.ask(ctx, &questions)
		if err != nil {
			return 0, err
		}
		each := len(replies) / len(asked)
		for i, key := range asked {
			args, err := s.decide(pg.db, key, replies[i*each:(i+1)*each])
			if err != nil {
				return 0, err
			}
			if args != nil {
				changes.add(args...)
			}
		}
	}
	if changes.n == 0 {
		return 0, nil
	}
	moved := int64(0)
	err := c.exchange(ctx, &changes, func(_ int, r resp.Reply) error {
		moved += r.Int
		return r.Err()
	})
	return moved, err
}

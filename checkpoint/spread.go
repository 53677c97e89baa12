package checkpoint

import (
	"context"
	"errors"
	"fmt"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// Spread sets every fence and every mark to f. On a cluster these are 16,384 fences, and each node's mark in the first
// slot that it owns; marks in other slots are removed. It tries until ctx ends.
//
// A node's mark is written when its fences are there: a sparse one says until then that some may be missing.
//
// A node that is another process than the one which Load has read may lack what fences would claim: then the error is
// ErrRestarted.
//
// Of a link only its slots have fences.
func (s *Store) Spread(ctx context.Context, f Fence) error {
	return s.spread(ctx, f, func(node) (func(uint16) bool, error) { return s.mine, nil })
}

// spread writes the fences of those slots of a node that which tells, and its mark; nothing on a node for which it tells
// none.
func (s *Store) spread(ctx context.Context, f Fence, which func(n node) (func(slot uint16) bool, error)) error {
	f.Sparse = false
	text := f.text()
	return s.retry(ctx, "write fences", func(ctx context.Context, l *layout) error {
		return l.each(ctx, func(ctx context.Context, n node) error {
			fenced, err := which(n)
			if fenced == nil || err != nil {
				return err
			}
			return s.fresh(ctx, n.addr, true, func(c *conn) error {
				if err := s.sameProcess(ctx, c); err != nil {
					return err
				}
				return s.spreadNode(ctx, c, n, text, fenced)
			})
		})
	})
}

// ErrRestarted says that a node of the target was restarted or failed over since Load.
var ErrRestarted = errors.New("the target was restarted or failed over")

// sameProcess checks that a node is one of the processes which Load has read.
func (s *Store) sameProcess(ctx context.Context, c *conn) error {
	return sameProcess(ctx, c, s.processes())
}

func sameProcess(ctx context.Context, c *conn, known map[string]bool) error {
	if len(known) == 0 {
		return nil
	}
	r, err := c.do(ctx, "INFO", "server")
	if refused(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if id := topology.ParseInfo(r.Text).RunID; id != "" && !known[id] {
		return fmt.Errorf("%w: %s", ErrRestarted, c.addr)
	}
	return nil
}

// spreadNode takes options of the SETs of fences.
func (s *Store) spreadNode(ctx context.Context, c *conn, n node, text string, fenced func(slot uint16) bool, options ...string) error {
	keys := s.Keys()
	var fences, marks batch
	if n.slots == nil {
		fences.add("SET", keys.Whole(), text)
		marks.add("SET", keys.WholeMark(), text)
	}
	for i, slot := range n.slots {
		if fenced(slot) {
			fences.add(append([]string{"SET", keys.Fence(slot), text}, options...)...)
		}
		if i == 0 {
			marks.add("SET", keys.Mark(slot), text)
		} else {
			marks.add("DEL", keys.Mark(slot))
		}
	}
	for _, b := range []*batch{&fences, &marks} {
		if err := c.exchange(ctx, b, func(_ int, r resp.Reply) error { return r.Err() }); err != nil {
			return c.fail("write fences", err)
		}
	}
	if n.slots != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, slot := range n.slots {
			delete(s.marked, slot)
		}
		s.marked[n.slots[0]] = struct{}{}
	}
	return nil
}

// Complete ends what FlushNodes has begun on nodes whose mark in st is sparse: it writes the fences that are missing
// there, and then a mark that is not sparse. As long as it has not, no other mark may be written. It tries until ctx ends.
func (s *Store) Complete(ctx context.Context, st *State) error {
	return s.retry(ctx, "write fences", func(ctx context.Context, l *layout) error {
		return l.each(ctx, func(ctx context.Context, n node) error {
			for _, was := range st.Nodes {
				if was.Addr != n.addr || !was.Mark.Sparse {
					continue
				}
				f := was.Mark
				f.Sparse = false
				return s.fresh(ctx, n.addr, true, func(c *conn) error { return s.spreadNode(ctx, c, n, f.text(), s.mine, "NX") })
			}
			return nil
		})
	})
}

// Mark sets each node's mark to f and waits for the replies. After an error it looks where the slots are and tries
// once more: the caller has a newer mark soon. A node of a cluster that is another process than the one which Load has
// read may lack what the mark would claim: then the error is ErrRestarted.
func (s *Store) Mark(ctx context.Context, f Fence) error {
	f.Sparse = false
	text := f.text()
	var err error
	for try := range 2 {
		var l *layout
		if l, err = s.look(ctx, try > 0); err == nil {
			err = s.mark(ctx, l, text)
		}
		if err == nil || ctx.Err() != nil || !heals(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("write marks: %w", err)
	}
	return nil
}

// mark also removes the marks that slots took with them when they moved: they speak of another node.
func (s *Store) mark(ctx context.Context, l *layout, text string) error {
	keys := s.Keys()
	batches := make(map[string]*batch, len(l.nodes))
	firsts := make(map[uint16]struct{}, len(l.nodes))
	for _, n := range l.nodes {
		b := &batch{}
		batches[n.addr] = b
		if n.slots == nil {
			b.add("SET", keys.WholeMark(), text)
			continue
		}
		firsts[n.slots[0]] = struct{}{}
		b.add("SET", keys.Mark(n.slots[0]), text)
	}
	if s.cfg.Cluster {
		stale := s.staleMarks(firsts)
		for _, n := range l.nodes {
			for _, slot := range n.slots {
				if _, ok := stale[slot]; ok {
					batches[n.addr].add("DEL", keys.Mark(slot))
				}
			}
		}
	}
	err := l.each(ctx, func(ctx context.Context, n node) error {
		return s.kept(ctx, n.addr, func(c *conn) error {
			if s.cfg.Cluster { // a standalone tells by its fence
				if err := s.sameProcess(ctx, c); err != nil {
					return err
				}
			}
			_, err := c.ask(ctx, batches[n.addr])
			return c.fail("write marks", err)
		})
	})
	if err == nil && s.cfg.Cluster {
		s.mu.Lock()
		s.marked = firsts
		s.mu.Unlock()
	}
	return err
}

// staleMarks returns the slots that have a mark and should have none, and remembers that firsts are about to have one.
func (s *Store) staleMarks(firsts map[uint16]struct{}) map[uint16]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	var stale map[uint16]struct{}
	for slot := range s.marked {
		if _, ok := firsts[slot]; !ok {
			if stale == nil {
				stale = map[uint16]struct{}{}
			}
			stale[slot] = struct{}{}
		}
	}
	for slot := range firsts {
		s.marked[slot] = struct{}{}
	}
	return stale
}

// Applied reads the fences of slots from the node at addr, and raises into[slot] to what they say. On a standalone
// slots is nil, and into[0] is set. It tries once. A fence that is missing, or is of another generation than the
// record, is ErrLost.
func (s *Store) Applied(ctx context.Context, addr string, slots []uint16, into []int64) error {
	keys, generation := s.Keys(), s.Record().Generation
	var b batch
	if slots == nil {
		b.add("GET", keys.Whole())
	}
	for _, slot := range slots {
		b.add("GET", keys.Fence(slot))
	}
	read := func(i int, r resp.Reply) error {
		v := parseValue(r)
		switch {
		case !v.found:
			return fmt.Errorf("%w: a fence is missing", ErrLost)
		case errors.Is(v.err, ErrNewer):
			return s.unreadable(v.err)
		case v.err != nil:
			return fmt.Errorf("%w: a fence cannot be read", ErrLost)
		case v.Generation != generation:
			return fmt.Errorf("%w: a fence is of generation %d, the record of generation %d", ErrLost, v.Generation, generation)
		}
		if slots == nil {
			into[0] = v.Applied()
		} else if slot := slots[i]; v.Applied() > into[slot] {
			into[slot] = v.Applied()
		}
		return nil
	}
	return s.fresh(ctx, addr, false, func(c *conn) error {
		var opened []int // indexes of slots that are being migrated
		err := c.exchange(ctx, &b, func(i int, r resp.Reply) error {
			switch err := r.Err(); {
			case open(err):
				opened = append(opened, i)
				return nil
			case err != nil:
				return err
			}
			return read(i, r)
		})
		from := reader{s: s, from: c}
		defer from.close()
		for _, i := range opened {
			var r resp.Reply
			if err == nil {
				r, err = from.do(ctx, "GET", keys.Fence(slots[i]))
			}
			if err == nil {
				err = read(i, r)
			}
		}
		return c.fail("read fences", err)
	})
}

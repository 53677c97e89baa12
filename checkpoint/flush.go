package checkpoint

import (
	"context"
	"fmt"
	"strconv"
)

// Standing returns the commands that write record, lease and the registration of the haul anew behind a FLUSHALL in the
// same transaction. lease is its text, and is left out if empty, as is a record that was neither loaded nor saved.
func (s *Store) Standing(lease string) [][]string {
	s.mu.Lock()
	r, known := s.record, s.known
	s.mu.Unlock()
	var commands [][]string
	if text, err := r.text(); known && err == nil {
		commands = append(commands, []string{"SET", s.Keys().Record(), text})
	}
	if lease != "" {
		commands = append(commands, []string{"SET", s.Keys().Lease(), lease})
	}
	if len(commands) > 0 {
		commands = append(commands, []string{"SADD", namesKey, s.cfg.Name})
	}
	return commands
}

// Flush empties all databases of the target. Record and lease, if not empty, never vanish: the transaction that
// empties their node writes them anew. Memory is freed in the background: a cluster would replace a primary that
// spends minutes on it. It tries until ctx ends.
//
// Of a link only its slots are emptied.
func (s *Store) Flush(ctx context.Context, lease string) error {
	if s.cfg.Link != "" {
		return s.removeSlots(ctx, allDBs, s.mine)
	}
	return s.retry(ctx, "empty the target", func(ctx context.Context, l *layout) error {
		return l.each(ctx, func(ctx context.Context, n node) error {
			return s.fresh(ctx, n.addr, true, func(c *conn) error {
				commands := [][]string{{"FLUSHALL", "ASYNC"}}
				if n.addr == l.owner().addr {
					commands = append(commands, s.Standing(lease)...)
				}
				if s.cfg.NoTransactions {
					return c.oneByOne(ctx, commands)
				}
				return c.transaction(ctx, commands)
			})
		})
	})
}

// FlushNodes carries out a source's FLUSHALL, or FLUSHDB of db unless all, on a cluster. Each node is emptied in one
// transaction with a sparse mark of f, so that whoever resumes within it knows that fences are missing because of f;
// then all fences are written anew. Everything sent before must be acknowledged, and nothing sent until it returns.
//
// applied is what State.Applied has been: a node that is behind f already is left alone, for what it has got since would
// not be sent again. It tries until ctx ends, or until a node turns out to be another process than the one that Load has
// read (ErrRestarted), or to be on both sides of f (ErrLost).
func (s *Store) FlushNodes(ctx context.Context, db int32, all bool, lease string, f Fence, applied []int64) error {
	f.Sparse = true
	text := f.text()
	err := s.retry(ctx, "empty the target's nodes", func(ctx context.Context, l *layout) error {
		return l.each(ctx, func(ctx context.Context, n node) error {
			if done, err := n.behind(f, applied); done || err != nil {
				return err
			}
			return s.fresh(ctx, n.addr, true, func(c *conn) error {
				return s.flushNode(ctx, c, n, n.addr == l.owner().addr, db, all, lease, text)
			})
		})
	})
	if err != nil {
		return err
	}
	return s.spread(ctx, f, func(n node) (func(uint16) bool, error) {
		if done, err := n.behind(f, applied); done || err != nil {
			return nil, err
		}
		return s.mine, nil
	})
}

// behind reports whether all slots of a node have what is before f.
func (n node) behind(f Fence, applied []int64) (bool, error) {
	has := 0
	for _, slot := range n.slots {
		if applied != nil && applied[slot] >= f.Applied() {
			has++
		}
	}
	if has > 0 && has < len(n.slots) {
		return false, fmt.Errorf("%w: %s has some slots from before the source was emptied and some from behind it", ErrLost, n.addr)
	}
	return has > 0, nil
}

func (s *Store) flushNode(ctx context.Context, c *conn, n node, owner bool, db int32, all bool, lease, mark string) error {
	if err := s.sameProcess(ctx, c); err != nil {
		return err
	}
	var commands [][]string
	switch {
	case all:
		commands = [][]string{{"FLUSHALL", "ASYNC"}}
	case db == 0:
		commands = [][]string{{"FLUSHDB", "ASYNC"}}
	default: // selected before the transaction, in which a refused SELECT would not keep FLUSHDB from another database
		if _, err := c.do(ctx, "SELECT", strconv.Itoa(int(db))); err != nil {
			return err
		}
		commands = [][]string{{"FLUSHDB", "ASYNC"}, {"SELECT", "0"}}
	}
	if owner { // a transaction has one slot
		commands = append(commands, []string{"SET", s.Keys().Mark(haulSlot), mark})
		commands = append(commands, s.Standing(lease)...)
	} else {
		commands = append(commands, []string{"SET", s.Keys().Mark(n.slots[0]), mark})
	}
	return c.transaction(ctx, commands)
}

// Others returns the other hauls that are registered on the target. It tries until ctx ends.
func (s *Store) Others(ctx context.Context) (others []string, err error) {
	err = s.retry(ctx, "read which hauls write to the target", func(ctx context.Context, l *layout) error {
		return s.kept(ctx, l.owner().addr, func(c *conn) error {
			r, err := c.do(ctx, "SMEMBERS", namesKey)
			others = others[:0]
			for _, name := range r.Array {
				if name.Text != s.cfg.Name {
					others = append(others, name.Text)
				}
			}
			return err
		})
	})
	return others, err
}

package checkpoint

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// allDBs stands for every database.
const allDBs = -1

// FlushSlots carries out the FLUSHALL of one shard of a cluster source, or its FLUSHDB of db unless all: it removes the
// keys of the link's slots, and then sets the link's fences and marks to f. Everything that the link has sent before must
// be acknowledged, and nothing sent until it returns.
//
// applied is what State.Applied has been: slots that are behind f already are left alone, for what they have got since
// would not be sent again. It tries until ctx ends, or until a node turns out to be another process than the one that
// Load has read (ErrRestarted).
func (s *Store) FlushSlots(ctx context.Context, db int32, all bool, f Fence, applied []int64) error {
	if all {
		db = allDBs
	}
	behind := func(slot uint16) bool {
		if len(applied) == 1 { // a standalone
			slot = 0
		}
		return applied != nil && applied[slot] >= f.Applied()
	}
	left := func(slot uint16) bool { return s.mine(slot) && !behind(slot) }
	if err := s.removeSlots(ctx, db, left); err != nil {
		return err
	}
	return s.spread(ctx, f, func(node) (func(uint16) bool, error) { return left, nil })
}

// removeSlots removes the keys of slots from a database of the target, or from all.
func (s *Store) removeSlots(ctx context.Context, db int32, gone func(slot uint16) bool) error {
	w := &sweep{
		store: s, what: "remove the keys of a shard", same: true,
		begin: func(context.Context, *conn, topology.Node) (visitor, error) { return remover{db, gone}, nil },
	}
	return w.run(ctx)
}

// remover removes the keys of slots.
type remover struct {
	db   int32
	gone func(slot uint16) bool
}

func (remover) ask(*batch, string) {}

func (r remover) decide(db int32, key string, _ []resp.Reply) ([]string, error) {
	if r.db != allDBs && r.db != db || !r.gone(command.Slot([]byte(key))) {
		return nil, nil
	}
	return []string{"UNLINK", key}, nil
}

// HeldKeys returns the keys that the target holds in some slots, but for keyhaul's own. Nothing may write to them
// meanwhile. It tries until ctx ends.
func (s *Store) HeldKeys(ctx context.Context, slots *topology.SlotSet) (map[uint16][]haul.KeyName, error) {
	held := &holdings{slots: slots, keys: make(map[uint16][]haul.KeyName)}
	if !s.cfg.Cluster {
		w := &sweep{
			store: s, what: lookingForKeys,
			begin: func(context.Context, *conn, topology.Node) (visitor, error) { return held, nil },
		}
		err := w.run(ctx)
		return held.keys, err
	}
	for range 2 { // a key that the target moves between two of its nodes meanwhile is found the second time
		err := s.retry(ctx, lookingForKeys, func(ctx context.Context, l *layout) error {
			return l.each(ctx, func(ctx context.Context, n node) error {
				return s.fresh(ctx, n.addr, false, func(c *conn) error { return held.node(ctx, c) })
			})
		})
		if err != nil {
			return nil, err
		}
	}
	for slot, keys := range held.keys {
		slices.SortFunc(keys, haul.KeyName.Compare)
		held.keys[slot] = slices.Compact(keys)
	}
	return held.keys, nil
}

const lookingForKeys = "look for the keys of slots"

// node asks one node of a cluster for all of its keys in the slots, in every database.
func (h *holdings) node(ctx context.Context, c *conn) error {
	dbs, err := databases(ctx, c)
	if err != nil {
		return err
	}
	for _, db := range dbs {
		if db > 0 {
			if _, err := c.do(ctx, "SELECT", strconv.Itoa(int(db))); err != nil {
				return err
			}
		}
		var b batch
		h.slots.Each(func(slot uint16) {
			b.add("CLUSTER", "GETKEYSINSLOT", strconv.Itoa(int(slot)), strconv.Itoa(math.MaxInt32))
		})
		err := c.exchange(ctx, &b, func(_ int, r resp.Reply) error {
			for _, name := range r.Array {
				if !strings.HasPrefix(name.Text, Prefix) {
					h.add(db, name.Text)
				}
			}
			return r.Err()
		})
		if err != nil {
			return c.fail("CLUSTER GETKEYSINSLOT", err)
		}
	}
	return nil
}

// holdings collects the keys of slots.
type holdings struct {
	slots *topology.SlotSet
	mu    sync.Mutex
	keys  map[uint16][]haul.KeyName
}

func (*holdings) ask(*batch, string) {}

func (h *holdings) decide(db int32, key string, _ []resp.Reply) ([]string, error) {
	h.add(db, key)
	return nil, nil
}

func (h *holdings) add(db int32, key string) {
	if slot := command.Slot([]byte(key)); h.slots.Has(slot) {
		h.mu.Lock()
		h.keys[slot] = append(h.keys[slot], haul.KeyName{DB: db, Name: key})
		h.mu.Unlock()
	}
}

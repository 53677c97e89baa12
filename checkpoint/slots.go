package checkpoint

import (
	"context"

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

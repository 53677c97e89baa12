package checkpoint

import (
	"context"
	"errors"
	"strconv"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// turns is how often the two nodes of a slot that is being migrated are asked in turn for a key that neither has.
const turns = 3

// reader asks one node for keys one by one, also for those of slots that are being migrated to another node. Such a slot
// needs not be waited for: each of its keys is on one of the two nodes, and nobody writes them at the moment. Where they
// are on both, in the middle of a MIGRATE, they are alike.
type reader struct {
	s     *Store
	from  *conn
	db    int32
	evict bool             // end what is left of connections to the other node first: what they have sent counts
	other map[string]*conn // by address
}

func (r *reader) close() {
	for _, c := range r.other {
		_ = c.Close()
	}
}

// open tells whether an error reply is that of a slot which is being migrated.
func open(err error) bool { return code(err) == "ASK" || code(err) == "TRYAGAIN" }

// do sends a command about one key. The node says ASK for a key that it does not have: then the other one has it, or
// nobody, or it has gone back meanwhile.
func (r *reader) do(ctx context.Context, command, key string) (resp.Reply, error) {
	var reply resp.Reply
	for range turns {
		var err error
		if reply, err = r.from.do(ctx, command, key); code(err) != "ASK" {
			return reply, err
		}
		var asked *resp.Error
		errors.As(err, &asked)
		_, to, ok := asked.Redirect()
		if !ok {
			return reply, err
		}
		reply, err = r.ask(ctx, topology.Complete(to, r.from.addr), command, key)
		if absent := reply.Null || reply.Kind == resp.KindArray && len(reply.Array) == 0; err != nil || !absent {
			return reply, err
		}
	}
	return reply, nil
}

// ask sends the command to the node that the slot is being migrated to.
func (r *reader) ask(ctx context.Context, addr, command, key string) (resp.Reply, error) {
	c := r.other[addr]
	if c == nil {
		if r.evict {
			if err := r.s.evictImporter(ctx, addr); err != nil {
				return resp.Reply{}, err
			}
		}
		var err error
		if c, err = r.s.dial(ctx, addr, false); err != nil {
			return resp.Reply{}, err
		}
		if r.other == nil {
			r.other = make(map[string]*conn)
		}
		r.other[addr] = c
		if r.db > 0 {
			if _, err := c.do(ctx, "SELECT", strconv.Itoa(int(r.db))); err != nil {
				return resp.Reply{}, err
			}
		}
	}
	var b batch
	b.add("ASKING")
	b.add(command, key)
	replies, err := c.ask(ctx, &b)
	if err != nil {
		return resp.Reply{}, c.fail(command, err)
	}
	return replies[1], nil
}

// readOpened reads the fences and marks of slots that are being migrated, by their indexes.
func (s *Store) readOpened(ctx context.Context, c *conn, r *reading, opened []int) error {
	from, keys := reader{s: s, from: c, evict: true}, s.Keys()
	defer from.close()
	for _, i := range opened {
		fence, err := from.do(ctx, "GET", keys.Fence(r.slots[i]))
		if err != nil {
			return err
		}
		mark, err := from.do(ctx, "GET", keys.Mark(r.slots[i]))
		if err != nil {
			return err
		}
		r.fences[i], r.marks[i] = parseValue(fence), parseValue(mark)
	}
	return nil
}

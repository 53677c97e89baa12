package checkpoint

import (
	"context"
	"errors"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// turns is how often the two nodes of a slot that is being migrated are asked in turn for a key that neither has.
const turns = 3

// reader reads keys of one node one by one, also those of slots that are being migrated to another node. Such a slot
// needs not be waited for: each of its keys is on one of the two nodes, and nobody writes them at the moment. Where they
// are on both, in the middle of a MIGRATE, they are alike.
type reader struct {
	s     *Store
	from  *conn
	other map[string]*conn // by address
}

func (r *reader) close() {
	for _, c := range r.other {
		_ = c.Close()
	}
}

// open tells whether an error reply is that of a slot which is being migrated.
func open(err error) bool { return code(err) == "ASK" || code(err) == "TRYAGAIN" }

// get reads a key. The node says ASK for one that it does not have: then the other one has it, or nobody, or it has gone
// back meanwhile.
func (r *reader) get(ctx context.Context, key string) (resp.Reply, error) {
	var reply resp.Reply
	for range turns {
		var err error
		if reply, err = r.from.do(ctx, "GET", key); code(err) != "ASK" {
			return reply, err
		}
		var asked *resp.Error
		errors.As(err, &asked)
		_, to, ok := asked.Redirect()
		if !ok {
			return reply, err
		}
		if reply, err = r.ask(ctx, topology.Complete(to, r.from.addr), key); err != nil || !reply.Null {
			return reply, err
		}
	}
	return reply, nil
}

// ask reads a key on the node that its slot is being migrated to.
func (r *reader) ask(ctx context.Context, addr, key string) (resp.Reply, error) {
	c := r.other[addr]
	if c == nil {
		var err error
		if c, err = r.s.dial(ctx, addr, false); err != nil {
			return resp.Reply{}, err
		}
		if r.other == nil {
			r.other = make(map[string]*conn)
		}
		r.other[addr] = c
	}
	var b batch
	b.add("ASKING")
	b.add("GET", key)
	replies, err := c.ask(ctx, &b)
	if err != nil {
		return resp.Reply{}, c.fail("GET", err)
	}
	return replies[1], nil
}

package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// Load reads the state of the haul. It tries once; errors of the network and of a cluster in motion come back as they
// are, and the caller tries again. What is no state that this program can read is a *haul.Error.
//
// Writes of closed connections may still be under way: their connections are to be evicted before.
func (s *Store) Load(ctx context.Context) (*State, error) {
	l, err := s.look(ctx, true)
	if err != nil {
		return nil, err
	}
	s.evicting.Lock()
	s.evicted = map[string]bool{}
	for _, addr := range l.all() { // whoever took the lease, or begins again, has seen to these
		s.evicted[addr] = true
	}
	s.evicting.Unlock()
	st := &State{}
	if err := s.loadHaul(ctx, l.owner().addr, st); err != nil {
		return nil, err
	}
	read, err := s.readAll(ctx, l)
	if err != nil {
		return nil, err
	}
	if err := st.judge(read, s.cfg.Cluster); err != nil {
		return nil, s.unreadable(err)
	}
	marked := map[uint16]struct{}{}
	for _, n := range read {
		for i, m := range n.marks {
			if m.found && s.cfg.Cluster {
				marked[n.slots[i]] = struct{}{}
			}
		}
	}
	runIDs := map[string]bool{}
	for _, n := range st.Nodes {
		if n.RunID != "" {
			runIDs[n.RunID] = true
		}
	}
	s.mu.Lock()
	s.marked, s.runIDs = marked, runIDs
	s.mu.Unlock()
	s.remember(st.Record, st.Found)
	return st, nil
}

// loadHaul reads what the target has once for the whole haul.
func (s *Store) loadHaul(ctx context.Context, addr string, st *State) error {
	keys := s.Keys()
	var b batch
	b.add("GET", keys.Record())
	b.add("EXISTS", keys.Tombstone())
	b.add("LRANGE", keys.Refusals(), "0", "-1")
	b.add("SMEMBERS", namesKey)
	b.add("EXISTS", keys.Record(), keys.Lease(), keys.Refusals(), keys.Tombstone(), namesKey)
	b.add("EXISTS", keys.Lease())
	var replies []resp.Reply
	err := s.fresh(ctx, addr, false, func(c *conn) (err error) {
		replies, err = c.ask(ctx, &b)
		return c.fail("read the record of the haul", err)
	})
	if err != nil {
		return err
	}
	if r := replies[0]; !r.Null {
		if st.Record, err = parseRecord(r.Text); err != nil {
			return s.unreadable(err)
		}
		st.Found = true
	}
	st.Tombstone = replies[1].Int > 0
	for i, r := range replies[2].Array {
		var refusal Refusal
		if i > 0 && r.Text == replies[2].Array[i-1].Text {
			continue // noted twice, because the reply to the first was lost
		}
		if err := json.Unmarshal([]byte(r.Text), &refusal); err != nil {
			return s.unreadable(err)
		}
		st.Refusals = append(st.Refusals, refusal)
	}
	for _, r := range replies[3].Array {
		if r.Text != s.cfg.Name {
			st.Others = append(st.Others, r.Text)
		}
	}
	slices.Sort(st.Others)
	st.Own, st.Leased = replies[4].Int, replies[5].Int > 0
	return nil
}

// unreadable is the end of a run: nothing was written.
func (s *Store) unreadable(err error) error {
	remedy := "use another name for this haul, or remove its keys from the target"
	if errors.Is(err, ErrNewer) {
		remedy = "use the keyhaul that wrote it, or a newer one"
	}
	return haul.Errorf(haul.ExitRefused, remedy, "the state of haul %q on the target: %w", s.cfg.Name, err)
}

// reading is what one node told.
type reading struct {
	node
	about  topology.Node
	fences []value // by index in slots; one on a standalone
	marks  []value
	ahead  []Ahead
	hashes int64 // that say what is ahead
	lost   error // why that cannot be read
}

// value is a fence or mark as it was read.
type value struct {
	Fence
	found bool
	err   error // it cannot be parsed
}

func parseValue(r resp.Reply) value {
	if r.Null {
		return value{}
	}
	f, err := ParseFence(r.Text)
	return value{f, true, err}
}

// readAll reads fences and marks of all nodes.
func (s *Store) readAll(ctx context.Context, l *layout) ([]reading, error) {
	var mu sync.Mutex
	at := map[string]reading{}
	err := l.each(ctx, func(ctx context.Context, n node) error {
		return s.fresh(ctx, n.addr, false, func(c *conn) error {
			r, err := s.readNode(ctx, c, n)
			mu.Lock()
			at[n.addr] = r
			mu.Unlock()
			return c.fail("read fences", err)
		})
	})
	all := make([]reading, len(l.nodes))
	for i, n := range l.nodes {
		all[i] = at[n.addr]
	}
	return all, err
}

// readNode reads every fence and mark in one round trip. Fence and mark of a slot are in that slot, so one MGET may
// name both; in a slot that is being migrated they may be apart, and are read one by one.
func (s *Store) readNode(ctx context.Context, c *conn, n node) (reading, error) {
	keys := s.Keys()
	r := reading{node: n}
	var b batch
	b.add("INFO")
	if n.slots == nil { // one by one: behind a proxy the two may be on different servers
		b.add("GET", keys.Whole())
		b.add("GET", keys.WholeMark())
	}
	for _, slot := range n.slots {
		b.add("MGET", keys.Fence(slot), keys.Mark(slot))
	}
	r.fences = make([]value, 0, b.n)
	r.marks = make([]value, 0, b.n)
	var opened []int // indexes of slots that are being migrated
	err := c.exchange(ctx, &b, func(i int, reply resp.Reply) error {
		if i == 0 {
			r.about = topology.ParseInfo(reply.Text) // nothing from a user without INFO
			return nil
		}
		if err := reply.Err(); n.slots != nil && open(err) {
			opened = append(opened, i-1)
			reply.Array = []resp.Reply{{Null: true}, {Null: true}}
		} else if err != nil {
			return err
		}
		if n.slots == nil {
			if i == 1 {
				r.fences = append(r.fences, parseValue(reply))
			} else {
				r.marks = append(r.marks, parseValue(reply))
			}
			return nil
		}
		if len(reply.Array) != 2 {
			return errors.New("MGET of two keys has other than two values")
		}
		r.fences = append(r.fences, parseValue(reply.Array[0]))
		r.marks = append(r.marks, parseValue(reply.Array[1]))
		return nil
	})
	if err == nil {
		err = s.readOpened(ctx, c, &r, opened)
	}
	if err == nil {
		r.ahead, r.hashes, err = s.readAhead(ctx, c, n)
	}
	if errors.Is(err, ErrLost) {
		r.lost, err = err, nil
	}
	return r, err
}

package verify

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// side is one end: a server, or the primaries of a cluster. Its methods may run at once.
type side struct {
	name    string // "source" or "target"
	dialer  *topology.Dialer
	cluster bool

	mu      sync.Mutex // guards the following
	topo    *topology.Cluster
	primary string // of what is no cluster
	at      time.Time
	node    topology.Node // of any of its nodes
	ahead   time.Duration // by which the clock of any node is ahead of this machine's, at most
}

// lookAgain is how soon another look at the nodes of an end may follow.
const lookAgain = 200 * time.Millisecond

// refresh finds the nodes anew, unless somebody has just done so.
func (s *side) refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Since(s.at) < lookAgain {
		return nil
	}
	s.at = time.Now()
	if !s.cluster {
		addr, err := s.dialer.Primary(ctx)
		if err == nil {
			s.primary = addr
		}
		return err
	}
	seeds := s.dialer.Endpoint.Addrs
	if s.topo != nil {
		for _, shard := range s.topo.Shards {
			seeds = append(append(seeds[:len(seeds):len(seeds)], shard.Primary), shard.Replicas...)
		}
	}
	topo, err := topology.Discover(ctx, s.dialer, seeds)
	if err == nil {
		s.topo = topo
	}
	return err
}

// nodes returns the addresses of the primaries.
func (s *side) nodes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cluster {
		return []string{s.primary}
	}
	addrs := make([]string, len(s.topo.Shards))
	for i, shard := range s.topo.Shards {
		addrs[i] = shard.Primary
	}
	return addrs
}

// view is who served which slot at one moment.
type view struct {
	topo    *topology.Cluster
	primary string
}

func (s *side) view() view {
	s.mu.Lock()
	defer s.mu.Unlock()
	return view{s.topo, s.primary}
}

// owner returns the address of the node that has a key.
func (v view) owner(key []byte) string {
	if v.topo == nil {
		return v.primary
	}
	addr, _ := v.topo.Owner(command.Slot(key))
	return addr
}

// home returns a slot of the node at addr.
func (v view) home(addr string) uint16 {
	if v.topo != nil {
		for _, s := range v.topo.Shards {
			if s.Primary == addr {
				return s.Slots[0].From
			}
		}
	}
	return 0
}

// first returns the lowest slot of the node that serves slot: its mark is there.
func (v view) first(slot uint16) uint16 {
	if i, ok := v.topo.ShardOf(slot); ok {
		return v.topo.Shards[i].Slots[0].From
	}
	return slot
}

// seen notes what a node has told.
func (s *side) seen(n topology.Node, ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.node, s.ahead = n, max(s.ahead, ahead)
}

func (s *side) about() (topology.Node, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.node, s.ahead
}

func (s *side) release() rdb.Release {
	n, _ := s.about()
	return n.Release()
}

// wires are the connections of one goroutine to the nodes of an end.
type wires struct {
	*side
	conns map[string]*conn
}

func (s *side) wires() *wires { return &wires{side: s, conns: map[string]*conn{}} }

// to returns the connection to a node, on which nothing is due.
func (w *wires) to(ctx context.Context, addr string) (*conn, error) {
	if c := w.conns[addr]; c != nil {
		if c.due == 0 && len(c.out) == 0 {
			return c, nil
		}
		w.drop(addr)
	}
	if addr == "" {
		return nil, fmt.Errorf("%s: a slot has no owner at the moment", w.name)
	}
	c, err := open(ctx, w.dialer, addr)
	if err != nil {
		return nil, err
	}
	if c.node.Role == "slave" {
		c.close()
		return nil, &topology.Error{Addr: addr, Op: "INFO", Err: topology.ErrReplica(c.node)}
	}
	ahead, err := c.clock()
	if err != nil {
		c.close()
		return nil, err
	}
	w.seen(c.node, ahead)
	w.conns[addr] = c
	return c, nil
}

// clock returns by how much the server's clock is ahead of this machine's.
func (c *conn) clock() (time.Duration, error) {
	c.add("TIME")
	r, err := c.ask()
	if err != nil {
		if e := (*resp.Error)(nil); errors.As(err, &e) {
			return 0, nil
		}
		return 0, err
	}
	return time.Duration(milliseconds(r)-time.Now().UnixMilli()) * time.Millisecond, nil
}

// milliseconds reads the reply of TIME.
func milliseconds(r resp.Reply) int64 {
	if len(r.Array) != 2 {
		return time.Now().UnixMilli()
	}
	seconds, _ := strconv.ParseInt(r.Array[0].Text, 10, 64)
	micros, _ := strconv.ParseInt(r.Array[1].Text, 10, 64)
	return seconds*1000 + micros/1000
}

func (w *wires) drop(addr string) {
	if c := w.conns[addr]; c != nil {
		c.close()
		delete(w.conns, addr)
	}
}

func (w *wires) close() {
	for addr := range w.conns {
		w.drop(addr)
	}
}

// lasting returns err if no later try can mend it, as an error that says what to do; else nil.
func (w *wires) lasting(err error) error {
	var e *resp.Error
	if !errors.As(err, &e) || passing(e) {
		return nil
	}
	switch e.Code {
	case "NOAUTH", "WRONGPASS", "NOPERM":
		return haul.Errorf(haul.ExitRefused, "give its user what docs/verify.md lists under permissions", "the %s does not let its keys be compared: %w", w.name, err)
	case "ERR":
		return haul.Errorf(haul.ExitRefused, "look into docs/verify.md for what a server must have", "the %s cannot be compared: %w", w.name, err)
	}
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/reader"
)

// survey is what the nodes of a cluster source said at one moment.
type survey struct {
	*topology.Cluster
	nodes   map[string]topology.Node // primaries that have slots and answer, by address
	missing error                    // why others do not
	open    topology.SlotSet         // slots that are being moved
}

// surveyor asks a cluster source who has which slots. It keeps a connection to each primary.
type surveyor struct {
	dialer *topology.Dialer

	mu    sync.Mutex // held over network calls: one look at a time
	conns map[string]*resp.Conn
	seeds []string // addresses that answered last
	last  *survey
	at    time.Time
}

// fresh is how old a look may be that is shared by those who ask at about the same time.
const fresh = 100 * time.Millisecond

// look asks anew, unless somebody has just done so.
func (s *surveyor) look(ctx context.Context) (*survey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && time.Since(s.at) < fresh {
		return s.last, nil
	}
	v, err := s.ask(ctx)
	if err != nil {
		return nil, err
	}
	s.last, s.at = v, time.Now()
	return v, nil
}

func (s *surveyor) ask(ctx context.Context) (*survey, error) {
	topo, err := topology.Discover(ctx, s.dialer, append(s.seeds[:len(s.seeds):len(s.seeds)], s.dialer.Endpoint.Addrs...))
	if err != nil {
		return nil, err
	}
	v := &survey{Cluster: topo, nodes: make(map[string]topology.Node)}
	s.seeds = s.seeds[:0]
	for _, shard := range topo.Shards {
		s.seeds = append(s.seeds, append([]string{shard.Primary}, shard.Replicas...)...)
		node, open, err := s.node(ctx, shard.Primary)
		if err == nil && node.Role == "slave" {
			err = fmt.Errorf("%s is a replica now", shard.Primary)
		}
		if err != nil { // it fails over, or has done so
			v.missing = errors.Join(v.missing, err)
			continue
		}
		v.nodes[shard.Primary] = node
		for _, slot := range open {
			v.open.Add(slot)
		}
	}
	if len(v.nodes) == 0 {
		return nil, errors.Join(v.whole(), v.missing)
	}
	for addr, c := range s.conns {
		if _, ok := v.nodes[addr]; !ok {
			_ = c.Close()
			delete(s.conns, addr)
		}
	}
	return v, nil
}

// node asks one primary about itself.
func (s *surveyor) node(ctx context.Context, addr string) (topology.Node, []uint16, error) {
	c := s.conns[addr]
	if c == nil {
		var err error
		if c, err = s.dialer.Open(ctx, addr); err != nil {
			return topology.Node{}, nil, err
		}
		if s.conns == nil {
			s.conns = make(map[string]*resp.Conn)
		}
		s.conns[addr] = c
	}
	node, err := topology.Inspect(ctx, c)
	var r resp.Reply
	if err == nil {
		r, err = c.Do(ctx, questionTimeout, "CLUSTER", "NODES")
	}
	if err != nil {
		_ = c.Close()
		delete(s.conns, addr)
		return node, nil, fmt.Errorf("%s: %w", addr, err)
	}
	return node, topology.OpenSlots(r.Text), nil
}

// replicas asks the replicas of the primary at addr what they are. Those that do not answer are left out.
func (s *surveyor) replicas(ctx context.Context, v *survey, addr string) (all []reader.Candidate) {
	for _, shard := range v.Shards {
		if shard.Primary != addr {
			continue
		}
		for _, replica := range shard.Replicas {
			if node, err := inspectAt(ctx, s.dialer, replica); err == nil {
				all = append(all, reader.Candidate{Addr: replica, Node: node})
			}
		}
	}
	return all
}

func (s *surveyor) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		_ = c.Close()
	}
	s.conns, s.last = nil, nil
}

// whole fails unless every slot has an owner.
func (v *survey) whole() error {
	if n := v.Covered(); n < topology.SlotCount {
		return fmt.Errorf("only %d of %d slots of the source cluster are covered", n, topology.SlotCount)
	}
	return nil
}

// errNoHeir says that no primary of the source goes on with a link's history.
var errNoHeir = errors.New("no primary of the source cluster continues its history")

// heir returns the address of the primary that goes on with the history of this replication id.
func (v *survey) heir(id string) (string, bool) {
	for addr, node := range v.nodes {
		if node.ReplID == id {
			return addr, true
		}
	}
	for addr, node := range v.nodes {
		if node.ReplID2 == id {
			return addr, true
		}
	}
	return "", false
}

// slotsOf returns the slots of the primary at addr.
func (v *survey) slotsOf(addr string) (slots topology.SlotSet) {
	for _, shard := range v.Shards {
		if shard.Primary == addr {
			slots.AddRanges(shard.Slots)
		}
	}
	return slots
}

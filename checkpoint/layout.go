package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// parallel is how many nodes are talked to at once.
const parallel = 16

// layout is who holds what on the target. It does not change once it is made.
type layout struct {
	nodes []node
	haul  int // index of the node that has the haul's record and lease
}

// node is a primary of the target.
type node struct {
	addr     string
	replicas []string
	slots    []uint16 // ascending; nil on a standalone
}

func (l *layout) owner() node { return l.nodes[l.haul] }

// all returns the addresses of all primaries and replicas.
func (l *layout) all() []string {
	var addrs []string
	for _, n := range l.nodes {
		addrs = append(append(addrs, n.addr), n.replicas...)
	}
	return addrs
}

// Addresses returns those of all nodes of the target, replicas included, as they were last seen.
func (s *Store) Addresses() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layout == nil {
		return nil
	}
	return s.layout.all()
}

// same tells whether the same primaries have the same slots.
func (l *layout) same(other *layout) bool {
	return slices.EqualFunc(l.nodes, other.nodes, func(a, b node) bool {
		return a.addr == b.addr && slices.Equal(a.slots, b.slots)
	})
}

// each calls fn for every primary, for several at once, and returns the first error when all have returned.
func (l *layout) each(ctx context.Context, fn func(ctx context.Context, n node) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, n := range l.nodes {
		group.Go(func() error { return fn(ctx, n) })
	}
	return group.Wait()
}

// look returns the layout: the last one, unless there is none or a new look is asked for.
func (s *Store) look(ctx context.Context, again bool) (*layout, error) {
	s.mu.Lock()
	last := s.layout
	s.mu.Unlock()
	if last != nil && !again {
		return last, nil
	}
	var l *layout
	var err error
	if s.cfg.Cluster {
		l, err = s.discover(ctx, last)
	} else {
		l, err = s.primary(ctx)
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.layout = l
	s.mu.Unlock()
	return l, nil
}

// seedTimeout bounds the question to one of several addresses: one that hangs must not keep others from being asked
// before the lease runs out.
const seedTimeout = 3 * time.Second

// first asks nodes of a cluster in turn, and returns the first good answer or the causes why there is none. It begins with
// the one behind that which answered last: a node that lost touch with the others tells what was.
func (s *Store) first(ctx context.Context, addrs []string, ask func(ctx context.Context, addr string) (*layout, error)) (*layout, error) {
	s.mu.Lock()
	last := s.seed
	s.mu.Unlock()
	i := slices.Index(addrs, last) + 1
	addrs = slices.Concat(addrs[i:], addrs[:i])
	var causes []error
	for _, addr := range addrs {
		l, err := s.askOne(ctx, addr, len(addrs) > 1, ask)
		if err == nil {
			s.mu.Lock()
			s.seed = addr
			s.mu.Unlock()
			return l, nil
		}
		causes = append(causes, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(causes) == 1 {
		return nil, causes[0]
	}
	return nil, fmt.Errorf("no address of the target can be used: %w", errors.Join(causes...))
}

func (s *Store) askOne(ctx context.Context, addr string, several bool, ask func(ctx context.Context, addr string) (*layout, error)) (*layout, error) {
	if several {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, seedTimeout, fmt.Errorf("no answer within %v", seedTimeout))
		defer cancel()
	}
	return ask(ctx, addr)
}

// discover asks the configured nodes, and those that were known last, for the slots of the cluster.
func (s *Store) discover(ctx context.Context, last *layout) (*layout, error) {
	seeds := slices.Clone(s.cfg.Dialer.Endpoint.Addrs)
	if last != nil {
		for _, addr := range last.all() {
			if !slices.Contains(seeds, addr) {
				seeds = append(seeds, addr)
			}
		}
	}
	return s.first(ctx, seeds, func(ctx context.Context, addr string) (*layout, error) {
		cluster, err := topology.Discover(ctx, s.cfg.Dialer, []string{addr})
		if err != nil {
			return nil, err
		}
		if n := cluster.Covered(); n < topology.SlotCount {
			text := fmt.Sprintf("CLUSTERDOWN %d slots have no owner", topology.SlotCount-n)
			return nil, &topology.Error{Addr: addr, Op: "CLUSTER SLOTS", Err: resp.NewError(text)}
		}
		return layoutOf(cluster), nil
	})
}

func layoutOf(cluster *topology.Cluster) *layout {
	l := &layout{}
	l.haul, _ = cluster.ShardOf(haulSlot)
	for _, shard := range cluster.Shards {
		n := node{addr: shard.Primary, replicas: shard.Replicas}
		for _, r := range shard.Slots {
			for slot := int(r.From); slot <= int(r.To); slot++ {
				n.slots = append(n.slots, uint16(slot))
			}
		}
		l.nodes = append(l.nodes, n)
	}
	return l
}

// primary finds the server of a standalone target that is no replica.
func (s *Store) primary(ctx context.Context) (*layout, error) {
	addr, err := s.cfg.Dialer.Primary(ctx)
	return &layout{nodes: []node{{addr: addr}}}, err
}

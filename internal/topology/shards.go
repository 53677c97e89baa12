package topology

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// SlotCount is the number of slots of every cluster.
const SlotCount = 16384

const noShard = 0xffff

// SlotRange is the slots From to To, both included.
type SlotRange struct{ From, To uint16 }

// Shard is a primary, its replicas, and the slots that it serves. Addresses are as announced; a Dialer's address map
// applies when they are dialled.
type Shard struct {
	ID       string // node id of the primary; empty before Redis 4.0
	Primary  string
	Replicas []string
	Slots    []SlotRange
}

// Cluster is who served which slot at one moment. It does not change once it is made.
type Cluster struct {
	Shards []Shard // in the order of their lowest slots
	Seed   string  // the address that told

	owner [SlotCount]uint16 // index into Shards, or noShard
}

// Owner returns the address of the primary that serves slot, or false if no one does.
func (c *Cluster) Owner(slot uint16) (addr string, ok bool) {
	i, ok := c.ShardOf(slot)
	if !ok {
		return "", false
	}
	return c.Shards[i].Primary, true
}

// ShardOf returns the index in Shards of the shard that serves slot, or false if none does.
func (c *Cluster) ShardOf(slot uint16) (int, bool) {
	if int(slot) >= len(c.owner) || c.owner[slot] == noShard {
		return 0, false
	}
	return int(c.owner[slot]), true
}

// Covered returns how many slots have an owner; SlotCount means that the cluster is whole.
func (c *Cluster) Covered() int {
	n := 0
	for _, i := range c.owner {
		if i != noShard {
			n++
		}
	}
	return n
}

// ErrNotCluster says that the server does not run in cluster mode.
var ErrNotCluster = errors.New("the server does not run in cluster mode")

// Discover asks the seeds in turn for the slots of their cluster, and returns the first answer that covers all slots,
// else the one that covers most: a node that was taken out of its cluster still answers, with little. It fails only
// if no seed answers, and then names the cause of each.
func Discover(ctx context.Context, d *Dialer, seeds []string) (*Cluster, error) {
	var best *Cluster
	var causes []error
	for _, seed := range seeds {
		c, err := discover(ctx, d, seed)
		if err != nil {
			causes = append(causes, err)
			continue
		}
		covered := c.Covered()
		if covered == SlotCount {
			return c, nil
		}
		if best == nil || covered > best.Covered() {
			best = c
		}
	}
	switch {
	case best != nil:
		return best, nil
	case len(causes) == 0:
		return nil, errors.New("cluster: no address to ask for its slots")
	}
	return nil, fmt.Errorf("cluster: no node told its slots: %w", joined(causes))
}

func discover(ctx context.Context, d *Dialer, seed string) (*Cluster, error) {
	conn, err := d.Open(ctx, seed)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // one question
	r, err := conn.Do(ctx, loginTimeout, "CLUSTER", "SLOTS")
	if e := (*resp.Error)(nil); errors.As(err, &e) && e.Code == "ERR" {
		// "ERR This instance has cluster support disabled", or an unknown command before 3.0 and behind some proxies
		return nil, &Error{seed, "CLUSTER SLOTS", fmt.Errorf("%w (%s)", ErrNotCluster, e.Text)}
	}
	if err != nil {
		return nil, failed(seed, "CLUSTER SLOTS", err)
	}
	host := "127.0.0.1" // behind a unix socket the server is on this machine
	if h, _, err := net.SplitHostPort(seed); err == nil {
		host = h
	}
	c, err := ParseSlots(r, host)
	if err != nil {
		return nil, &Error{seed, "CLUSTER SLOTS", err}
	}
	c.Seed = seed
	return c, nil
}

// ParseSlots reads the reply to CLUSTER SLOTS (protocol.md 7). dialled is the host of the node that was asked: it
// stands in for a node's host that is null or empty.
func ParseSlots(r resp.Reply, dialled string) (*Cluster, error) {
	if r.Kind != resp.KindArray {
		return nil, errors.New("the reply is no array")
	}
	c := &Cluster{}
	byID := map[string]int{}
	for i, entry := range r.Array {
		slots, nodes, err := parseRange(entry, dialled)
		if err != nil {
			return nil, fmt.Errorf("range %d: %w", i, err)
		}
		key := nodes[0].id
		if key == "" {
			key = nodes[0].addr
		}
		at, seen := byID[key]
		if !seen {
			at = len(c.Shards)
			byID[key] = at
			c.Shards = append(c.Shards, Shard{ID: nodes[0].id, Primary: nodes[0].addr})
		}
		s := &c.Shards[at]
		s.Slots = append(s.Slots, slots)
		for _, n := range nodes[1:] {
			if n.addr != "" && !slices.Contains(s.Replicas, n.addr) {
				s.Replicas = append(s.Replicas, n.addr)
			}
		}
	}
	c.index()
	return c, nil
}

// Complete completes the address of a redirect without host: that of the node which has sent it.
func Complete(to, from string) string {
	if to != "" && to[0] == ':' {
		if host, _, err := net.SplitHostPort(from); err == nil {
			return net.JoinHostPort(host, to[1:])
		}
	}
	return to
}

// index sorts slots and shards, and fills the owner table.
func (c *Cluster) index() {
	for i := range c.Shards {
		slices.SortFunc(c.Shards[i].Slots, func(a, b SlotRange) int { return cmp.Compare(a.From, b.From) })
	}
	slices.SortFunc(c.Shards, func(a, b Shard) int { return cmp.Compare(a.Slots[0].From, b.Slots[0].From) })
	for i := range c.owner {
		c.owner[i] = noShard
	}
	for i, s := range c.Shards {
		for _, r := range s.Slots {
			for slot := int(r.From); slot <= int(r.To); slot++ {
				c.owner[slot] = uint16(i)
			}
		}
	}
}

type slotNode struct{ addr, id string }

// parseRange reads [from, to, primary, replica...].
func parseRange(r resp.Reply, dialled string) (SlotRange, []slotNode, error) {
	if len(r.Array) < 3 {
		return SlotRange{}, nil, errors.New("has no primary")
	}
	from, to := r.Array[0], r.Array[1]
	if from.Kind != resp.KindInteger || to.Kind != resp.KindInteger ||
		from.Int < 0 || to.Int < from.Int || to.Int >= SlotCount {
		return SlotRange{}, nil, errors.New("has no valid bounds")
	}
	nodes := make([]slotNode, 0, len(r.Array)-2)
	for i, e := range r.Array[2:] {
		n, err := parseNode(e, dialled)
		if err != nil && i == 0 {
			return SlotRange{}, nil, err
		}
		nodes = append(nodes, n) // a replica without an address is passed over by the caller
	}
	return SlotRange{uint16(from.Int), uint16(to.Int)}, nodes, nil
}

// parseNode reads [endpoint, port, id, [key, value...]]: the id since 4.0, the list since 7.0. An endpoint "?" means
// that the node should be known by a host name and has none; the list then has its address under "ip".
func parseNode(r resp.Reply, dialled string) (slotNode, error) {
	if len(r.Array) < 2 {
		return slotNode{}, errors.New("node has no address")
	}
	var n slotNode
	if len(r.Array) > 2 {
		n.id = r.Array[2].Text
	}
	host := r.Array[0].Text
	if host == "?" {
		host = ""
		if len(r.Array) > 3 {
			host = pairValue(r.Array[3].Array, "ip")
		}
		if host == "" {
			return n, fmt.Errorf("node %s announces neither host name nor address: set cluster-announce-hostname on it, or cluster-preferred-endpoint-type ip", n.id)
		}
	}
	if host == "" {
		host = dialled
	}
	port := r.Array[1].Int
	if port <= 0 || port > 65535 {
		return n, fmt.Errorf("node %s has no valid port", n.id)
	}
	n.addr = net.JoinHostPort(host, strconv.FormatInt(port, 10))
	return n, nil
}

func pairValue(pairs []resp.Reply, key string) string {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i].Text == key {
			return pairs[i+1].Text
		}
	}
	return ""
}

package redistest

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// ClusterOptions are how to form a cluster. Options apply to every node; TLS is not supported here.
type ClusterOptions struct {
	Options
	Primaries int // 3 if 0
	Replicas  int // of each primary
}

// Cluster is a running cluster: first its primaries, which share the slots evenly in that order, then the replicas of
// the first primary, of the second, and so on.
type Cluster struct {
	Nodes []*Server

	t        TB
	opts     Options
	importer *Server // of the last slot that was moved
}

// StartCluster starts and forms a cluster, and waits until every node says that it is whole.
func StartCluster(t TB, opts ClusterOptions) *Cluster {
	t.Helper()
	opts.Primaries = cmp.Or(opts.Primaries, 3)
	config := map[string]string{"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
	maps.Copy(config, opts.Config)
	opts.Config = config
	c := &Cluster{t: t, opts: opts.Options}
	for range opts.Primaries * (1 + opts.Replicas) {
		c.Nodes = append(c.Nodes, Start(t, opts.Options))
	}
	primaries := c.Nodes[:opts.Primaries]
	for i, node := range c.Nodes {
		node.MustDo("CLUSTER", "SET-CONFIG-EPOCH", i+1)
	}
	for i, node := range primaries {
		addSlots(node, i*slots/len(primaries), (i+1)*slots/len(primaries))
	}
	for _, node := range c.Nodes[1:] {
		c.Nodes[0].MustDo("CLUSTER", "MEET", "127.0.0.1", node.Port)
	}
	c.waitKnown()
	for i, node := range c.Nodes[opts.Primaries:] {
		node.MustDo("CLUSTER", "REPLICATE", nodeID(primaries[i/opts.Replicas]))
	}
	for _, node := range c.Nodes[opts.Primaries:] {
		node.WaitReplica()
	}
	c.WaitOK()
	return c
}

// AddPrimary starts one more node, which has no slots yet, and puts it behind the others.
func (c *Cluster) AddPrimary() *Server {
	c.t.Helper()
	node := Start(c.t, c.opts)
	c.Nodes = append(c.Nodes, node)
	c.Nodes[0].MustDo("CLUSTER", "MEET", "127.0.0.1", node.Port)
	c.waitKnown()
	c.WaitOK()
	return node
}

// addSlots assigns the slots of [first, end) to node.
func addSlots(node *Server, first, end int) {
	node.t.Helper()
	if node.Version.AtLeast(7, 0) {
		node.MustDo("CLUSTER", "ADDSLOTSRANGE", first, end-1)
		return
	}
	args := []any{"CLUSTER", "ADDSLOTS"}
	for slot := first; slot < end; slot++ {
		args = append(args, slot)
	}
	node.MustDo(args...)
}

func nodeID(s *Server) string {
	s.t.Helper()
	return s.MustDo("CLUSTER", "MYID").Text
}

// waitKnown waits until every node has shaken hands with every other.
func (c *Cluster) waitKnown() {
	c.t.Helper()
	Eventually(c.t, startTimeout, func() error {
		for _, node := range c.Nodes {
			table := strings.TrimSpace(node.MustDo("CLUSTER", "NODES").Text)
			if n := strings.Count(table, "\n") + 1; n != len(c.Nodes) || strings.Contains(table, "handshake") {
				return fmt.Errorf("%s knows %d nodes of %d", node.Addr, n, len(c.Nodes))
			}
		}
		return nil
	})
}

// WaitOK waits until every node that runs says that the cluster is whole, and all agree on who owns which slots and on the
// epoch: two nodes that claim slots under one epoch would dispute them.
func (c *Cluster) WaitOK() {
	c.t.Helper()
	Eventually(c.t, time.Minute, func() error {
		var owners, epoch string
		for _, node := range c.Nodes {
			if !node.responsive() {
				continue
			}
			info := parseInfo(node.MustDo("CLUSTER", "INFO").Text)
			if info["cluster_state"] != "ok" || info["cluster_slots_assigned"] != strconv.Itoa(slots) {
				return fmt.Errorf("%s: cluster_state is %s with %s slots", node.Addr, info["cluster_state"], info["cluster_slots_assigned"])
			}
			if mine := info["cluster_current_epoch"]; epoch == "" {
				epoch = mine
			} else if epoch != mine {
				return fmt.Errorf("%s: nodes disagree on the epoch", node.Addr)
			}
			table, err := parseSlots(node.MustDo("CLUSTER", "SLOTS"), "127.0.0.1")
			if err != nil {
				return fmt.Errorf("%s: %w", node.Addr, err)
			}
			if mine := strings.Join(table, " "); owners == "" {
				owners = mine
			} else if owners != mine {
				return fmt.Errorf("%s: nodes disagree on slots", node.Addr)
			}
		}
		return nil
	})
}

// Seeds returns the addresses of all nodes.
func (c *Cluster) Seeds() []string {
	addrs := make([]string, len(c.Nodes))
	for i, node := range c.Nodes {
		addrs[i] = node.Addr
	}
	return addrs
}

// Proxies starts a proxy for each node, in their order. addresses maps what a node announces to its proxy, as
// announced=reachable.
func (c *Cluster) Proxies() (proxies []*Proxy, addresses []string) {
	c.t.Helper()
	for _, node := range c.Nodes {
		p := NewProxy(c.t, node.Addr)
		proxies, addresses = append(proxies, p), append(addresses, node.Addr+"="+p.Addr())
	}
	return proxies, addresses
}

// Endpoint returns how to reach the cluster.
func (c *Cluster) Endpoint() Endpoint {
	ep := c.Nodes[0].Endpoint()
	ep.Addrs = c.Seeds()
	return ep
}

// NodeFor returns the primary that owns a slot now.
func (c *Cluster) NodeFor(slot int) *Server {
	c.t.Helper()
	for _, node := range c.Nodes {
		if !node.responsive() {
			continue
		}
		table, err := parseSlots(node.MustDo("CLUSTER", "SLOTS"), "127.0.0.1")
		if err != nil {
			c.t.Fatalf("redistest: %s: %v", node.Addr, err)
		}
		for _, owner := range c.Nodes {
			if owner.Addr == table[slot] {
				return owner
			}
		}
		c.t.Fatalf("redistest: slot %d belongs to %q, no node of this cluster", slot, table[slot])
	}
	c.t.Fatalf("redistest: no node of the cluster runs")
	return nil
}

// Do sends a command to the owner of key, which need not be among the arguments.
func (c *Cluster) Do(key string, args ...any) resp.Reply {
	c.t.Helper()
	return c.NodeFor(Slot(key)).Do(args...)
}

// MustDo is Do, but an error reply fails the test too.
func (c *Cluster) MustDo(key string, args ...any) resp.Reply {
	c.t.Helper()
	return c.NodeFor(Slot(key)).MustDo(args...)
}

// Failover makes a replica the primary of its shard, in agreement with the old one.
func (c *Cluster) Failover(replica *Server) {
	c.t.Helper()
	Eventually(c.t, startTimeout, func() error {
		if replica.Info("replication")["role"] == "master" {
			return nil
		}
		return fmt.Errorf("%s is still a replica: %w", replica.Addr, replica.Do("CLUSTER", "FAILOVER").Err())
	})
	c.WaitOK()
}

// parseSlots reads CLUSTER SLOTS as the address of each slot's primary. It refuses a table with holes. A node that was
// never met does not know its own address, which is then host, where it was asked.
func parseSlots(r resp.Reply, host string) ([]string, error) {
	table := make([]string, slots)
	for _, entry := range r.Array {
		if len(entry.Array) < 3 || len(entry.Array[2].Array) < 2 {
			return nil, fmt.Errorf("redistest: CLUSTER SLOTS has an entry of %d fields", len(entry.Array))
		}
		first, last, owner := entry.Array[0].Int, entry.Array[1].Int, entry.Array[2].Array
		if first < 0 || last >= slots {
			return nil, fmt.Errorf("redistest: CLUSTER SLOTS names slots %d to %d", first, last)
		}
		addr := net.JoinHostPort(cmp.Or(owner[0].Text, host), strconv.FormatInt(owner[1].Int, 10))
		for slot := first; slot <= last; slot++ {
			table[slot] = addr
		}
	}
	for slot, owner := range table {
		if owner == "" {
			return nil, fmt.Errorf("redistest: nobody owns slot %d", slot)
		}
	}
	return table, nil
}

// Primaries returns the nodes that run and are primaries with slots, as they say themselves.
func (c *Cluster) Primaries() []*Server {
	c.t.Helper()
	var primaries []*Server
	for _, node := range c.Nodes {
		if !node.responsive() {
			continue
		}
		for line := range strings.Lines(node.MustDo("CLUSTER", "NODES").Text) {
			fields := strings.Fields(line)
			if len(fields) > 8 && strings.Contains(fields[2], "myself,master") {
				primaries = append(primaries, node)
			}
		}
	}
	return primaries
}

// ReplicaOf returns a running replica of a primary, waiting until there is one.
func (c *Cluster) ReplicaOf(primary *Server) (replica *Server) {
	c.t.Helper()
	Eventually(c.t, time.Minute, func() error {
		for _, node := range c.Nodes {
			if node == primary || !node.responsive() {
				continue
			}
			info := node.Info("replication")
			if info["role"] == "slave" && info["master_port"] == strconv.Itoa(primary.Port) && info["master_link_status"] == "up" {
				replica = node
				return nil
			}
		}
		return fmt.Errorf("%s has no replica", primary.Addr)
	})
	return replica
}

package redistest

import (
	"fmt"
	"strings"
	"testing"
)

func TestSlot(t *testing.T) {
	for key, want := range map[string]int{"123456789": 12739, "{user1000}.following": Slot("user1000"), "foo{}{bar}": Slot("foo{}{bar}"), "": 0} {
		if got := Slot(key); got != want {
			t.Errorf("slot of %q is %d, want %d", key, got, want)
		}
	}
	if Slot("foo{{bar}}zap") != Slot("{bar") {
		t.Error("a tag ends at the first closing brace")
	}
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, ClusterOptions{Primaries: 3})
	single := Start(t, Options{})
	for i := range 300 {
		key := fmt.Sprintf("k%d", i)
		c.MustDo(key, "SET", key, i)
		single.MustDo("SET", key, i)
	}
	mustEqual(t, single.Endpoint(), c.Endpoint(), 300)

	slot := Slot("k7")
	from := c.NodeFor(slot)
	to := c.Nodes[0]
	if to == from {
		to = c.Nodes[1]
	}
	c.MoveSlot(slot, from, to)
	if c.NodeFor(slot) != to {
		t.Fatalf("slot %d is not where it was moved", slot)
	}
	if r := from.Do("GET", "k7"); !strings.HasPrefix(r.Text, "MOVED") {
		t.Errorf("the former owner answers %q, want MOVED", r.Text)
	}
	mustEqual(t, c.Endpoint(), single.Endpoint(), 300)

	c.MustDo("k9", "APPEND", "k9", "!")
	mustDiffer(t, c.Endpoint(), single.Endpoint(), CompareOptions{}, `key "k9": value of string`)
}

func TestClusterFailover(t *testing.T) {
	t.Parallel()
	c := StartCluster(t, ClusterOptions{Primaries: 1, Replicas: 1})
	c.MustDo("a", "SET", "a", 1)
	c.Failover(c.Nodes[1])
	if c.NodeFor(0) != c.Nodes[1] {
		t.Error("the replica is not the primary after Failover")
	}
	if got := c.MustDo("a", "GET", "a").Text; got != "1" {
		t.Errorf("GET after Failover is %q", got)
	}
}

func TestClusterOldCommands(t *testing.T) {
	t.Parallel()
	Require(t, "redis-6.0")
	c := StartCluster(t, ClusterOptions{Options: Options{Release: "redis-6.0"}, Primaries: 1})
	c.MustDo("a", "SET", "a", 1)
	mustEqual(t, c.Endpoint(), c.Endpoint(), 1)
}

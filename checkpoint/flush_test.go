package checkpoint

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// keysOf returns all keys of all nodes, in all databases.
func keysOf(t *testing.T, nodes ...*redistest.Server) []string {
	t.Helper()
	var keys []string
	for _, node := range nodes {
		for name := range node.Info("keyspace") {
			db, ok := strings.CutPrefix(name, "db")
			if !ok {
				continue
			}
			if db != "0" {
				node.MustDo("SELECT", db)
			}
			for _, key := range node.MustDo("KEYS", "*").Array {
				keys = append(keys, key.Text)
			}
			if db != "0" {
				node.MustDo("SELECT", 0)
			}
		}
	}
	slices.Sort(keys)
	return keys
}

func TestFlushKeepsRecordAndLease(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	begun(t, s)
	server.MustDo("SELECT", 3)
	server.MustDo("SET", "a", 1)
	server.MustDo("SELECT", 0)
	must(t, s.Flush(testContext(t), "1 1 w1 1"))
	k := s.Keys()
	want := []string{k.Lease(), k.Record(), namesKey}
	slices.Sort(want)
	if got := keysOf(t, server); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if st := load(t, s); !st.Found || st.Lost == nil {
		t.Errorf("%+v", st)
	}
	if got := s.Standing("1 1 w1 1"); len(got) != 3 || got[0][1] != k.Record() || got[1][2] != "1 1 w1 1" || got[2][1] != namesKey {
		t.Errorf("%q", got)
	}
	must(t, s.Flush(testContext(t), ""))
	if got := keysOf(t, server); len(got) != 2 {
		t.Errorf("%q", got)
	}
}

func TestFlushOfACluster(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	begun(t, s)
	for i := range 100 {
		key := strconv.Itoa(i)
		c.MustDo(key, "SET", key, i)
	}
	must(t, s.Flush(testContext(t), "1 1 w1 1"))
	if got := keysOf(t, c.Nodes...); len(got) != 3 {
		t.Errorf("%q", got)
	}
}

func TestFlushNodes(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	for _, all := range []bool{true, false} {
		begun(t, s)
		l := newLease(s, "w1")
		must(t, l.Acquire(testContext(t), false, nil))
		for i := range 100 {
			key := strconv.Itoa(i)
			c.MustDo(key, "SET", key, i)
		}
		must(t, s.FlushNodes(testContext(t), 0, all, l.Text(), at(700), nil))
		must(t, l.Check(testContext(t), ""))
		st := load(t, s)
		if st.Lost != nil || st.Base != at(700).At || st.Nodes[0].Mark.Sparse || slices.Min(st.Applied) != 700 {
			t.Errorf("base %v, lost %v", st.Base, st.Lost)
		}
		if got := keysOf(t, c.Nodes...); len(got) != 16384+3+3 {
			t.Errorf("%d keys", len(got))
		}
		must(t, l.Release(testContext(t)))
	}
}

// A crash within leaves some nodes flushed.
func TestFlushNodesIsResumedFrom(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	ctx := testContext(t)
	for flushed := 1; flushed <= 3; flushed++ {
		begun(t, s)
		l, err := s.look(ctx, true)
		must(t, err)
		f := at(700)
		f.Sparse = true
		for _, n := range l.nodes[:flushed] {
			must(t, s.fresh(ctx, n.addr, true, func(c *conn) error {
				return s.flushNode(ctx, c, n, n.addr == l.owner().addr, 0, true, "", f.text())
			}))
		}
		st := load(t, newStore(t, c.Endpoint(), true, "w2"))
		base, last := int64(100), int64(100)
		if flushed == 3 {
			base, last = 700, 700
		}
		if st.Lost != nil || st.Base.Offset != base || st.Applied[0] != 700 || st.Applied[16383] != last || !st.Found {
			t.Errorf("%d flushed: base %v, lost %v", flushed, st.Base, st.Lost)
		}
	}
}

// A FLUSHALL that is read again, because one node has lost it, empties only that node; a node with slots of both kinds
// can be neither emptied nor left alone.
func TestFlushNodesAgain(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	ctx := testContext(t)
	begun(t, s)
	keys := []string{"a", "b", "c"} // slots 15495, 3300, 7365: one on each node
	for _, key := range keys {
		c.MustDo(key, "SET", key, 1)
	}
	applied := make([]int64, 16384)
	l, err := s.look(ctx, true)
	must(t, err)
	for _, slot := range l.nodes[1].slots {
		applied[slot] = 600
	}
	for _, i := range []int{0, 2} {
		for _, slot := range l.nodes[i].slots {
			applied[slot] = 900
		}
	}
	must(t, s.FlushNodes(ctx, 0, true, "", at(700), applied))
	for _, key := range keys {
		if got := c.MustDo(key, "EXISTS", key).Int; got != 1 && key != "c" || got != 0 && key == "c" {
			t.Errorf("%s: %d", key, got)
		}
	}
	for key, want := range map[string]int64{s.Keys().Fence(3300): 100, s.Keys().Fence(7365): 700} {
		if f, err := ParseFence(c.MustDo(key, "GET", key).Text); err != nil || f.Applied() != want {
			t.Errorf("%s: %v, %v", key, f, err)
		}
	}
	applied[7365] = 900
	if err := s.FlushNodes(ctx, 0, true, "", at(700), applied); !errors.Is(err, ErrLost) {
		t.Errorf("%v", err)
	}
}

// What Load has read of one process holds for no other.
func TestNothingIsClaimedForAnotherProcess(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	begun(t, s)
	load(t, s)
	must(t, s.Spread(testContext(t), at(200)))
	server.Kill()
	server.Restart()
	if err := s.Spread(testContext(t), at(300)); !errors.Is(err, ErrRestarted) {
		t.Errorf("Spread: %v", err)
	}
	if _, err := s.Prune(testContext(t), NewKeySet(t.TempDir()), nil); !errors.Is(err, ErrRestarted) {
		t.Errorf("Prune: %v", err)
	}
	load(t, s)
	must(t, s.Spread(testContext(t), at(300)))
}

// Valkey 9 has several databases in a cluster.
func TestFlushNodesOfOneDatabase(t *testing.T) {
	redistest.Require(t, "valkey-9.1")
	c, s := cluster(t, redistest.ClusterOptions{Options: redistest.Options{Release: "valkey-9.1", Config: map[string]string{"cluster-databases": "4"}}})
	begun(t, s)
	c.MustDo("a", "SET", "a", 1)
	node := c.NodeFor(redistest.Slot("b"))
	node.MustDo("SELECT", 2)
	node.MustDo("SET", "b", 1)
	node.MustDo("SELECT", 0)
	must(t, s.FlushNodes(testContext(t), 2, false, "", at(700), nil))
	st := load(t, s)
	if st.Lost != nil || st.Base.Offset != 700 {
		t.Errorf("base %v, lost %v", st.Base, st.Lost)
	}
	got := keysOf(t, c.Nodes...)
	if slices.Contains(got, "b") || !slices.Contains(got, "a") {
		t.Error("the wrong database was flushed")
	}
	if err := s.FlushNodes(testContext(t), 9, false, "", at(800), nil); code(err) != "ERR" {
		t.Errorf("%v", err)
	}
	if got := keysOf(t, c.Nodes...); !slices.Contains(got, "a") {
		t.Error("the wrong database was flushed")
	}
}

func TestCleanupLeavesTheTombstone(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	ctx := testContext(t)
	begun(t, s)
	must(t, s.Note(ctx, Refusal{}))
	c.MustDo("a", "SET", "a", 1)
	l := newLease(s, "w1")
	must(t, l.Acquire(ctx, false, nil))
	n, err := s.Cleanup(ctx)
	if err != nil || n != 16384+3+3 {
		t.Errorf("%d removed, %v", n, err)
	}
	if got := keysOf(t, c.Nodes...); !slices.Equal(got, []string{"a", s.Keys().Tombstone()}) {
		t.Errorf("%q", got)
	}
	must(t, l.Release(ctx))
	st := load(t, s)
	if st.Found || !st.Tombstone {
		t.Errorf("%+v", st)
	}
	if n, err := s.Cleanup(ctx); err != nil || n != 0 {
		t.Errorf("again: %d, %v", n, err)
	}
}

func TestCleanupOfAStandalone(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	begun(t, s)
	server.MustDo("SADD", namesKey, "other")
	n, err := s.Cleanup(context.Background())
	if err != nil || n != 3 {
		t.Errorf("%d removed, %v", n, err)
	}
	if got := keysOf(t, server); !slices.Equal(got, []string{s.Keys().Tombstone(), namesKey}) {
		t.Errorf("%q", got)
	}
}

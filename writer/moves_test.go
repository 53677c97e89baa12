package writer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

func clusterRig(t *testing.T, c *rt.Cluster, change func(*Config)) (target, *rig) {
	t.Helper()
	for _, n := range c.Nodes {
		n.Do("FLUSHALL")
	}
	return target{c.Nodes[0].Addr, c.MustDo, c.Nodes}, newRig(t, c.Nodes[0].Addr, change)
}

// keysIn returns n names of keys in a slot of their own, the same for all of them.
func keysIn(tag string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("{%s}%d", tag, i)
	}
	return all
}

func TestSlots(t *testing.T) {
	c := rt.StartCluster(t, rt.ClusterOptions{})
	t.Run("move under load", func(t *testing.T) { slotsMove(t, c) })
	t.Run("moved is exact", func(t *testing.T) { slotsMovedIsExact(t, c) })
	t.Run("open", func(t *testing.T) { slotsOpen(t, c) })
	t.Run("to an added node", func(t *testing.T) { slotsAddedNode(t, c) })
}

// slotsMove moves slots one after the other while writes pour in.
func slotsMove(t *testing.T, c *rt.Cluster) {
	_, r := clusterRig(t, c, nil)
	var keys []string
	for _, tag := range []string{"a", "b", "c", "d", "e", "f"} {
		keys = append(keys, keysIn(tag, 20)...)
	}
	const rounds = 6
	stop := make(chan struct{})
	done := feedSequences(r, keys, stop)
	for i := range rounds {
		slot := rt.Slot([]string{"{a}", "{b}", "{c}", "{d}"}[i%4])
		from := c.NodeFor(slot)
		to := c.Nodes[0]
		if to == from {
			to = c.Nodes[1]
		}
		c.MoveSlot(slot, from, to)
	}
	close(stop)
	last := <-done
	r.drained()
	for key, n := range last {
		if got := answerOf(c.MustDo(key, "GET", key)); got != fmt.Sprint(n) {
			t.Errorf("%s is %s, want %d", key, got, n)
		}
	}
	s := r.w.Status()
	redirects := int64(0)
	for _, l := range s.Lanes {
		redirects += l.Redirects
		if l.Reconnects != 0 {
			t.Errorf("a connection was lost: %+v", l)
		}
	}
	t.Logf("%d redirects, %d resends, %d entries", redirects, s.Resends, r.ch.Watermark.Progress().Entries)
	if redirects == 0 {
		t.Error("there was no redirect")
	}
	r.waitsNoMore()
}

// feedSequences sends SET key n with growing n.
func feedSequences(r *rig, keys []string, stop <-chan struct{}) <-chan map[string]int {
	done := make(chan map[string]int, 1)
	go func() {
		last := map[string]int{}
		for n := 1; ; n++ {
			select {
			case <-stop:
				done <- last
				return
			default:
			}
			b := r.batch(false)
			for i := range 100 {
				key := keys[(n*37+i)%len(keys)]
				if i%10 == 0 {
					b.tx(0, fmt.Sprintf("SET %s %d", key, n-1), fmt.Sprintf("SET %s %d", key, n))
				} else {
					b.words(fmt.Sprintf("SET %s %d", key, n))
				}
				last[key] = n
			}
			b.send()
		}
	}()
	return done
}

// slotsMovedIsExact moves a slot between two entries: what is redirected is applied once.
func slotsMovedIsExact(t *testing.T, c *rt.Cluster) {
	_, r := clusterRig(t, c, nil)
	slot := rt.Slot("{x}")
	for round := range 4 {
		r.do(lines("RPUSH {x}list "+fmt.Sprint(round)+".#", 0, 1)...)
		r.drained()
		from := c.NodeFor(slot)
		c.MoveSlot(slot, from, c.Nodes[(round+1)%3])
		b := r.batch(false)
		b.words(fmt.Sprintf("RPUSH {x}list %d.a", round)) // alone, so that nothing behind it is sent again
		b.send()
		r.drained()
	}
	var wantList []string
	for round := range 4 {
		wantList = append(wantList, fmt.Sprintf("%d.0", round), fmt.Sprintf("%d.a", round))
	}
	if got := answerOf(c.MustDo("{x}", "LRANGE", "{x}list", 0, -1)); got != strings.Join(wantList, " ") {
		t.Errorf("the list is %s", got)
	}
	if s := r.w.Status(); s.Resends != 0 || strings.Contains(r.log.String(), mayBeTwice) {
		t.Errorf("it tells of resends: %+v", s)
	}
}

// slotsOpen writes while a slot has keys on both of its sides.
func slotsOpen(t *testing.T, c *rt.Cluster) {
	for _, kind := range []string{"commands", "snapshot"} {
		t.Run(kind, func(t *testing.T) {
			_, r := clusterRig(t, c, func(cfg *Config) { cfg.Existing = ExistingReplace })
			slot := rt.Slot("{x}")
			from := c.NodeFor(slot)
			to := c.Nodes[0]
			if to == from {
				to = c.Nodes[1]
			}
			fromID, toID := from.MustDo("CLUSTER", "MYID").Text, to.MustDo("CLUSTER", "MYID").Text
			for i := range 10 {
				from.MustDo("SET", fmt.Sprintf("{x}%d", i), 0)
			}
			to.MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
			from.MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
			for i := range 5 { // half of them are on the other side
				from.MustDo("MIGRATE", "127.0.0.1", to.Port, fmt.Sprintf("{x}%d", i), 0, 5000)
			}
			if kind == "snapshot" {
				b := r.batch(true)
				for i := range 20 {
					b.key(0, fmt.Sprintf("{x}%d", i), []byte("\x00\xc0\x01"+strings.Repeat("\x00", 10)), nil)
				}
				b.send()
				r.drained()
			} else {
				for i := range 20 {
					r.do(fmt.Sprintf("INCR {x}%d", i), fmt.Sprintf("INCR other:%d", i))
					r.drained() // what follows a refused entry in its slot is sent again
				}
				b := r.batch(false)
				b.tx(0, "INCR {x}1", "INCR {x}1")
				b.send()
				r.drained()
				r.do("MSET {x}2 7 {x}8 7", "INCR {x}2", "INCR {x}8", "INCR {x}new") // neither side has both
				r.waitsFor("TRYAGAIN")
				r.do("SET elsewhere 1")
			}
			for _, k := range from.MustDo("CLUSTER", "GETKEYSINSLOT", slot, 100).Array {
				from.MustDo("MIGRATE", "127.0.0.1", to.Port, k.Text, 0, 5000)
			}
			to.MustDo("CLUSTER", "SETSLOT", slot, "NODE", toID)
			from.MustDo("CLUSTER", "SETSLOT", slot, "NODE", toID)
			c.WaitOK()
			r.drained()
			r.waitsNoMore()
			for i := range 20 {
				key, n := fmt.Sprintf("{x}%d", i), 1
				if kind == "commands" {
					switch i {
					case 1:
						n = 3
					case 2, 8:
						n = 8
					}
				}
				if got := answerOf(c.MustDo(key, "GET", key)); got != fmt.Sprint(n) {
					t.Errorf("%s is %s, want %d", key, got, n)
				}
			}
			if s := r.w.Status(); s.Resends != 0 && kind != "commands" { // of those, some stood behind a refused one
				t.Errorf("%+v", s)
			}
			c.MoveSlot(slot, to, from)
		})
	}
}

func TestFailovers(t *testing.T) {
	c := rt.StartCluster(t, rt.ClusterOptions{Replicas: 1})
	t.Run("agreed", func(t *testing.T) {
		g, r := clusterRig(t, c, nil)
		stormy(t, g, r, 2, func(i int) {
			primary := c.NodeFor(0)
			for _, n := range c.Nodes {
				if n != primary && (n == c.Nodes[0] || n == c.Nodes[3]) {
					c.Failover(n)
				}
			}
		})
	})
	t.Run("barriers meanwhile", func(t *testing.T) { barrierWhileTheClusterChanges(t, c) })
	t.Run("killed", func(t *testing.T) {
		_, r := clusterRig(t, c, nil)
		keys := keysIn("quiet", 50)
		keys = append(keys, "a", "b", "c", "d", "e", "f")
		stop := make(chan struct{})
		done := feedSequences(r, keys, stop)
		rt.Eventually(t, limit, func() error {
			if n := r.ch.Watermark.Progress().Entries; n < 1000 {
				return fmt.Errorf("%d entries", n)
			}
			return nil
		})
		victim := c.NodeFor(rt.Slot("{quiet}"))
		lane := func() (l haul.LaneStatus) {
			for _, l = range r.w.Status().Lanes {
				if l.Address == victim.Addr {
					break
				}
			}
			return l
		}
		victim.Freeze() // so that it dies with entries unanswered: what is written from now on
		before := lane().Written
		rt.Eventually(t, limit, func() error {
			if l := lane(); l.Entries == 0 || l.Written == before {
				return fmt.Errorf("nothing is in flight: %+v", l)
			}
			return nil
		})
		victim.Kill()
		at := r.ch.Watermark.Progress().Entries
		rt.Eventually(t, time.Minute, func() error {
			if r.over() {
				t.Fatalf("the writer has ended: %v", r.err)
			}
			if n := r.ch.Watermark.Progress().Entries; n < at+20_000 {
				return fmt.Errorf("%d entries since; waits %+v", n-at, r.waits.List())
			}
			return nil
		})
		close(stop)
		last := <-done
		r.drainedIn(30 * time.Second)
		for key, n := range last { // each key was written again after the failover
			if got := answerOf(c.MustDo(key, "GET", key)); got != fmt.Sprint(n) {
				t.Errorf("%s is %s, want %d", key, got, n)
			}
		}
		if !strings.Contains(r.log.String(), mayBeTwice) {
			t.Error("it does not say that something may be applied twice")
		}
		r.waitsNoMore()
		if n := len(r.w.Status().Lanes); n != 3 {
			t.Errorf("there are %d lanes", n)
		}
	})
}

// barrierWhileTheClusterChanges: a node that was emptied too early, or not at all, would keep keys.
func barrierWhileTheClusterChanges(t *testing.T, c *rt.Cluster) {
	_, r := clusterRig(t, c, nil)
	stop := make(chan struct{})
	done := make(chan int, 1)
	go func() {
		for n := 1; ; n++ {
			select {
			case <-stop:
				done <- n
				b := r.batch(false)
				b.words("FLUSHALL")
				for i := range 100 {
					b.words(fmt.Sprintf("SET last:%d 1", i))
				}
				b.send()
				return
			default:
			}
			b := r.batch(false)
			for i := range 20 {
				b.words(fmt.Sprintf("SET key:%d:%d 1", n, i))
			}
			b.words("FLUSHALL")
			for i := range 20 {
				b.words(fmt.Sprintf("SET other:%d:%d 1", n, i))
			}
			b.send()
		}
	}()
	for i := range 2 {
		replica := c.Nodes[3]
		if i%2 == 1 {
			replica = c.Nodes[0]
		}
		c.Failover(replica)
		slot := rt.Slot("{x}")
		from := c.NodeFor(slot)
		to := c.Nodes[2]
		if from == to {
			to = c.Nodes[1]
		}
		c.MoveSlot(slot, from, to)
		for _, n := range c.Nodes[1:3] {
			n.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		}
	}
	close(stop)
	n := <-done
	r.drained()
	keys := int64(0)
	for _, node := range c.Nodes {
		if node.Info("replication")["role"] == "master" {
			keys += node.MustDo("DBSIZE").Int
		}
	}
	t.Logf("%d rounds", n)
	if keys != 100 {
		t.Errorf("there are %d keys, want 100", keys)
	}
}

// addPrimary adds a primary without slots to a cluster.
func addPrimary(t *testing.T, c *rt.Cluster) *rt.Server {
	t.Helper()
	config := map[string]string{"cluster-enabled": "yes", "cluster-node-timeout": "2000"}
	if c.Nodes[0].Version.AtLeast(7, 0) {
		config["cluster-allow-replica-migration"] = "no" // it stays a primary without slots
	}
	extra := rt.Start(t, rt.Options{Config: config})
	extra.MustDo("CLUSTER", "MEET", "127.0.0.1", c.Nodes[0].Port)
	c.Nodes = append(c.Nodes, extra)
	rt.Eventually(t, limit, func() error {
		for _, n := range c.Nodes {
			if table := n.MustDo("CLUSTER", "NODES").Text; strings.Count(table, "connected") != 4 || strings.Contains(table, "handshake") {
				return fmt.Errorf("%s does not know all yet", n.Addr)
			}
		}
		return nil
	})
	c.WaitOK()
	return extra
}

func slotsAddedNode(t *testing.T, c *rt.Cluster) {
	_, r := clusterRig(t, c, nil)
	stop := make(chan struct{})
	done := feedSequences(r, append(keysIn("x", 20), "a", "b", "c"), stop)
	extra := addPrimary(t, c)
	slot := rt.Slot("{x}")
	c.MoveSlot(slot, c.NodeFor(slot), extra)
	at := r.ch.Watermark.Progress().Entries
	rt.Eventually(t, limit, func() error {
		if n := r.ch.Watermark.Progress().Entries; n < at+2000 {
			return fmt.Errorf("%d entries since", n-at)
		}
		return nil
	})
	close(stop)
	last := <-done
	r.drained()
	for key, n := range last {
		if got := answerOf(c.MustDo(key, "GET", key)); got != fmt.Sprint(n) {
			t.Errorf("%s is %s, want %d", key, got, n)
		}
	}
	if n := len(r.w.Status().Lanes); n != 4 {
		t.Errorf("there are %d lanes, want 4", n)
	}
	// and it goes again
	c.MoveSlot(slot, extra, c.Nodes[0])
	r.do("SET {x}0 last", "SET b last")
	r.drained()
	if got := answerOf(c.MustDo("{x}0", "GET", "{x}0")); got != "last" {
		t.Errorf("{x}0 is %s", got)
	}
	rt.Eventually(t, limit, func() error {
		if n := len(r.w.Status().Lanes); n != 3 {
			return fmt.Errorf("there are %d lanes, want 3", n)
		}
		return nil
	})
	r.waitsNoMore()
}

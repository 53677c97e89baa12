package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// shardsTrial is a haul whose source is a cluster under load.
type shardsTrial struct {
	*trial
	from *rt.Cluster
	tags map[int]string // beginnings of keys, by the slots that move
}

// newShardsTrial starts the servers. The target is one server, or a cluster of so many primaries.
func newShardsTrial(t *testing.T, from rt.ClusterOptions, target int, flags ...string) *shardsTrial {
	t.Helper()
	return newShardsTrialTo(t, from, target, rt.Options{}, flags...)
}

// newShardsTrialTo is newShardsTrial with options of the target's servers.
func newShardsTrialTo(t *testing.T, from rt.ClusterOptions, target int, to rt.Options, flags ...string) *shardsTrial {
	t.Helper()
	if from.Config == nil {
		from.Config = map[string]string{"repl-backlog-size": "64mb"}
	}
	s := &shardsTrial{trial: &trial{t: t, state: t.TempDir(), stopLoad: func() {}, setup: setup{cluster: true}}}
	s.from = rt.StartCluster(t, from)
	s.source = s.from.Nodes[0]
	if target == 0 {
		server := rt.Start(t, to)
		s.nodes, s.target, s.to = []*rt.Server{server}, server.Endpoint(), server.URL()
	} else {
		cluster := rt.StartCluster(t, rt.ClusterOptions{Primaries: target, Options: to})
		s.whole, s.nodes, s.target, s.to = cluster, cluster.Nodes, cluster.Endpoint(), cluster.Nodes[0].URL()
	}
	s.args = append([]string{"--source", s.from.Nodes[0].URL(), "--target", s.to}, flags...)
	if err := rt.FillMixed(context.Background(), s.from.Endpoint(), 0.003, rand.Uint64()); err != nil {
		t.Fatal(err)
	}
	return s
}

// offsets returns how far each primary of the source is, by its address.
func (s *shardsTrial) offsets() map[string]int64 {
	at := make(map[string]int64)
	for _, n := range s.from.Primaries() {
		at[n.Addr] = n.Offset()
	}
	return at
}

// level stops the load and waits until all of it is on the target.
func (s *shardsTrial) level() {
	s.t.Helper()
	s.stopLoad()
	at := s.offsets()
	rt.Eventually(s.t, patience, func() error {
		_, r, err := s.look(s.keyhaul)
		if err != nil {
			return err
		}
		reached := 0
		for _, l := range r.Links {
			if want, ok := at[l.Address]; ok && l.SnapshotDone && l.Applied >= want {
				reached++
			}
		}
		if reached < len(at) || r.Unsettled > 0 {
			return fmt.Errorf("%d of %d links are level, %d slots unsettled: %+v", reached, len(at), r.Unsettled, r)
		}
		return nil
	})
}

// equal expects the target to hold what the source holds.
func (s *shardsTrial) equal() report {
	s.t.Helper()
	s.level()
	_, r, err := s.look(s.keyhaul)
	if err != nil {
		s.t.Fatal(err)
	}
	c, err := rt.Compare(context.Background(), s.from.Endpoint(), s.target, rt.CompareOptions{Grace: grace, IgnoreReadCounts: true})
	if err != nil {
		s.t.Fatal(err)
	}
	if !c.Equal() || c.Keys == 0 {
		s.t.Errorf("source and target differ: %s", c)
	}
	return r
}

// begin starts keyhaul and the load, and waits until the copy is whole.
func (s *shardsTrial) begin() {
	s.t.Helper()
	s.start()
	s.loadInto(s.from.Endpoint(), int(lasting(3000, 10_000)))
	s.streaming(len(s.from.Primaries()))
}

// streaming waits until so many links are behind their snapshots.
func (s *shardsTrial) streaming(links int) {
	s.t.Helper()
	rt.Eventually(s.t, patience, func() error {
		_, r, err := s.look(s.keyhaul)
		if err != nil {
			return err
		}
		done := 0
		for _, l := range r.Links {
			if l.SnapshotDone {
				done++
			}
		}
		if done != links || len(r.Links) != links {
			return fmt.Errorf("%d of %d links have copied: %+v", done, links, r)
		}
		return nil
	})
}

func TestShards(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3, 2} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			s.begin()
			s.equal()
			for range rounds() { // killed and started again
				s.loadInto(s.from.Endpoint(), 3000)
				pause(50e6, 200e6)
				s.kill()
				s.start()
				s.streaming(3)
				r := s.equal()
				if all := r.overall(); all.FullSyncs != 0 {
					t.Errorf("%d full copies by a resumed keyhaul", all.FullSyncs)
				}
			}
			if done := s.run("finish", s.args...); done.cmd.ProcessState.ExitCode() != int(haul.ExitHeld) {
				t.Errorf("finish beside a running sync ended with %d", done.cmd.ProcessState.ExitCode())
			}
		})
	}
}

// TestShardsOneShot: a copy that ends by itself, its finish and its cleanup.
func TestShardsOneShot(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			// without sessions, which expire between the two runs: the first ends with true deadlines
			s.write(rt.Load{Endpoint: s.from.Endpoint(), Mix: rt.MixPlain, Rate: 2000, Keys: 1000})
			s.launch(s.state, "--until", "caught-up").exit(haul.ExitDone)
			s.stopLoad()
			s.launch(s.state, "--until", "caught-up").exit(haul.ExitDone)
			c, err := rt.Compare(context.Background(), s.from.Endpoint(), s.target, rt.CompareOptions{IgnoreReadCounts: true})
			if err != nil || !c.Equal() || c.Keys == 0 {
				t.Errorf("%v, %s", err, c)
			}
			done := s.run("cleanup", "--target", s.to)
			if done.cmd.ProcessState.ExitCode() != 0 {
				t.Fatal("cleanup failed")
			}
			for _, n := range s.nodes {
				if left := n.MustDo("KEYS", "keyhaul:*").Array; len(left) > 1 || len(left) == 1 && left[0].Text != "keyhaul:default:{haul}:tombstone" {
					t.Errorf("%d keys of keyhaul's own are left on %s, such as %s", len(left), n.Addr, left[0].Text)
				}
			}
		})
	}
}

// TestShardFlushed: the FLUSHALL of one shard empties that shard only.
func TestShardFlushed(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			s.begin()
			for _, n := range s.from.Nodes[:2] {
				pause(20e6, 100e6)
				n.MustDo("FLUSHALL")
			}
			s.equal()
		})
	}
}

// reads reports whether a link is connected to a server.
func (s *shardsTrial) reads(r report, addr string) bool {
	for _, l := range r.Links {
		if l.Address == addr && l.Connected {
			return true
		}
	}
	return false
}

// TestShardsReshard moves slots between the shards of the source under load, back and forth.
func TestShardsReshard(t *testing.T) {
	t.Parallel()
	for _, target := range []int{3, 0} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			s.begin()
			s.reshard(20 * rounds())
			r := s.equal()
			if all := r.overall(); all.FullSyncs != 3 {
				t.Errorf("%d full copies", all.FullSyncs)
			}
			t.Logf("%v", r.Target.Counts)
		})
	}
}

// reshard moves so many slots that hold keys from the first primary of the source to the second, some of them back, and
// some on to the third. Slots are written while they are open.
func (s *shardsTrial) reshard(n int) {
	s.t.Helper()
	p := s.from.Primaries()
	slots := s.filledSlots(p[0], n)
	open := func() { pause(1e6, 20e6) }
	for i, slot := range slots {
		s.from.MoveSlotWhile(slot, p[0], p[1], open)
		switch i % 4 {
		case 1:
			s.from.MoveSlotWhile(slot, p[1], p[0], open)
		case 2:
			s.from.MoveSlotWhile(slot, p[1], p[2], open)
		case 3:
			s.from.MoveSlotWhile(slot, p[1], p[0], nil)
			s.from.MoveSlotWhile(slot, p[0], p[1], open)
		}
	}
	s.from.WaitOK()
}

// filledSlots returns slots of a primary in which there are keys.
func (s *shardsTrial) filledSlots(p *rt.Server, n int) []int {
	s.t.Helper()
	seen := make(map[int]bool)
	var slots []int
	for _, key := range p.MustDo("KEYS", "*").Array {
		if slot := rt.Slot(key.Text); !seen[slot] && len(slots) < n {
			seen[slot] = true
			slots = append(slots, slot)
		}
	}
	if len(slots) < n {
		s.t.Fatalf("only %d slots hold keys", len(slots))
	}
	return slots
}

// TestShardsKilledEarly: keyhaul is killed while it begins, again and again.
func TestShardsKilledEarly(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			s.loadInto(s.from.Endpoint(), 1000)
			for range 2 * rounds() {
				s.start()
				pause(20e6, 400e6)
				s.kill()
			}
			s.start()
			s.streaming(3)
			s.equal()
		})
	}
}

// TestShardsFunctions: libraries are loaded and deleted on each shard.
func TestShardsFunctions(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			if !s.source.Version.AtLeast(7, 0) {
				t.Skip("this release has no functions")
			}
			s.begin()
			for _, n := range s.from.Primaries() {
				n.MustDo("FUNCTION", "LOAD", "#!lua name=kept\nredis.register_function('f', function() return 1 end)")
				n.MustDo("FUNCTION", "LOAD", "#!lua name=gone\nredis.register_function('g', function() return 1 end)")
			}
			for _, n := range s.from.Primaries() {
				n.MustDo("FUNCTION", "DELETE", "gone")
			}
			s.equal()
			for _, n := range s.nodes {
				if libraries := n.MustDo("FUNCTION", "LIST").Array; len(libraries) != 1 {
					t.Errorf("%s has %d libraries", n.Addr, len(libraries))
				}
			}
		})
	}
}

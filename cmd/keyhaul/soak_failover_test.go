package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// failovers is how many of them a test needs.
func failovers() int {
	if rounds() >= longRounds {
		return 20
	}
	return 3
}

// TestSoakFailover: a primary of the target dies under load and its replica takes over, again and again.
func TestSoakFailover(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]struct {
		waits  bool // for replicas
		before func(s *trial, primary, replica *rt.Server)
		flags  []string
		cross  bool // the load has commands whose keys span slots
	}{
		"waiting for replicas":                  {waits: true, before: func(*trial, *rt.Server, *rt.Server) {}},
		"not waiting":                           {before: func(*trial, *rt.Server, *rt.Server) {}},
		"replica behind":                        {before: (*trial).leaveBehind},
		"replica behind, waiting for it":        {waits: true, before: (*trial).holdBack},
		"replica behind, keys span slots":       {before: (*trial).leaveBehind, cross: true},
		"replica further behind than the spool": {before: (*trial).leaveBehind, flags: []string{"--spool-retain", "0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flags := kind.flags
			if kind.waits {
				flags = append(flags, "--wait-replicas", "1")
			}
			s := newTrial(t, setup{cluster: true, replica: true, flags: flags})
			mix := rt.MixHard
			if kind.cross {
				mix = rt.MixCross
			}
			s.startLoadOf(mix)
			s.start()
			for range failovers() {
				primary, replica := s.shard()
				s.strike(func() {
					kind.before(s, primary, replica)
					s.failOver(primary, replica, kind.waits)
				})
				s.inStep(primary)
			}
			s.equal(1)
		})
	}
}

// shard returns a primary that has slots, and its replica: first the one that keyhaul was given the address of.
func (s *trial) shard() (primary, replica *rt.Server) {
	s.t.Helper()
	primary = s.nodes[0]
	if s.counted > 0 {
		primary = s.whole.NodeFor(rt.Slot(fmt.Sprint(s.counted)))
	}
	for _, node := range s.nodes {
		if info := node.Info("replication"); info["role"] == "slave" && info["master_port"] == fmt.Sprint(primary.Port) {
			return primary, node
		}
	}
	s.t.Fatalf("%s has no replica", primary.Addr)
	return nil, nil
}

// cutReplica ends the replication of a primary and keeps it from beginning again.
func cutReplica(primary, replica *rt.Server) {
	primary.MustDo("ACL", "SETUSER", "default", "-psync", "-sync")
	primary.MustDo("CLIENT", "KILL", "TYPE", "replica")
}

// leaveBehind has the target acknowledge what the replica will not have when it is promoted.
func (s *trial) leaveBehind(primary, replica *rt.Server) {
	s.t.Helper()
	cutReplica(primary, replica)
	l, _, err := s.look(s.keyhaul)
	if err != nil {
		s.t.Fatal(err)
	}
	has := l.Received // the replica cannot have anything behind it
	rt.Eventually(s.t, patience, func() error {
		if on := s.markOn(primary); on <= has {
			return fmt.Errorf("the mark is at %d, %d was received when the replica was cut off", on, has)
		}
		return nil
	})
	acknowledged := s.markOn(primary)
	if info := replica.Info("replication"); info["role"] != "slave" || info["master_link_status"] != "down" {
		s.t.Errorf("%s is a %s, its link is %s", replica.Addr, info["role"], info["master_link_status"])
	}
	s.until(s.keyhaul, "acknowledged", func(l haul.LinkStatus) bool { return l.Applied >= acknowledged })
	s.t.Logf("the replica lacks at least %d bytes of the stream that were acknowledged", acknowledged-has)
}

// holdBack expects that nothing counts as applied that the replica does not have.
func (s *trial) holdBack(primary, replica *rt.Server) {
	s.t.Helper()
	cutReplica(primary, replica)
	who := "replicas of target " + primary.Addr
	rt.Eventually(s.t, patience, func() error {
		_, r, err := s.look(s.keyhaul)
		for _, w := range r.Waiting {
			if w.Who == who {
				return nil
			}
		}
		return fmt.Errorf("no word of %s: %+v, %w", who, r.Waiting, err)
	})
	first, _, err := s.look(s.keyhaul)
	if err != nil {
		s.t.Fatal(err)
	}
	s.until(s.keyhaul, "goes on reading", func(l haul.LinkStatus) bool { return l.Received > first.Received+10_000 })
	last, _, err := s.look(s.keyhaul)
	if err != nil {
		s.t.Fatal(err)
	}
	if last.Applied != first.Applied {
		s.t.Errorf("applied went from %d to %d without the replica", first.Applied, last.Applied)
	}
	s.applied = last.Applied
}

// markOn returns the offset of the highest mark that a primary has.
func (s *trial) markOn(node *rt.Server) (at int64) {
	s.t.Helper()
	c := node.Dial()
	defer c.Close()
	ctx := s.t.Context()
	keys, err := c.Do(ctx, patience, "KEYS", "keyhaul:default:mark:*")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, key := range keys.Array {
		text, err := c.Do(ctx, patience, "GET", key.Text)
		if err != nil || text.Null {
			continue // it has just gone
		}
		f, err := checkpoint.ParseFence(text.Text)
		if err != nil {
			s.t.Fatal(err)
		}
		at = max(at, f.Applied())
	}
	return at
}

// failOver kills a primary and waits until its replica serves and entries flow again, and restarts it as a replica of
// that: before they can flow, if they wait for one.
func (s *trial) failOver(primary, replica *rt.Server, waits bool) {
	s.t.Helper()
	began := time.Now()
	primary.Kill()
	rt.Eventually(s.t, patience, func() error {
		if role := replica.Info("replication")["role"]; role != "master" {
			return fmt.Errorf("%s is a %s", replica.Addr, role)
		}
		return nil
	})
	promoted := time.Since(began)
	if l, _, err := s.look(s.keyhaul); err == nil {
		s.applied = l.Applied
	}
	if waits {
		primary.Restart()
	}
	s.moving(s.keyhaul)
	flows := time.Since(began)
	s.t.Logf("promoted after %v, entries flow again after %v", promoted.Round(10*time.Millisecond), flows.Round(10*time.Millisecond))
	if !waits {
		primary.Restart()
	}
}

// inStep waits until a node that was restarted is a replica that has everything, and all nodes agree.
func (s *trial) inStep(node *rt.Server) {
	s.t.Helper()
	rt.Eventually(s.t, patience, func() error {
		if info := node.Info("replication"); info["role"] != "slave" || info["master_link_status"] != "up" {
			return fmt.Errorf("%s is a %s, its link is %s:\n%s", node.Addr, info["role"], info["master_link_status"], node.MustDo("CLUSTER", "NODES").Text)
		}
		return nil
	})
	s.whole.WaitOK()
}

// TestSoakManualFailover: primary and replica change places in agreement, under load.
func TestSoakManualFailover(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true, replica: true})
	s.startLoad()
	s.start()
	for range failovers() {
		primary, replica := s.shard()
		s.strike(func() {
			began := time.Now()
			rt.Eventually(t, patience, func() error {
				s.whole.Failover(replica)
				if role := replica.Info("replication")["role"]; role != "master" { // it lost another vote meanwhile
					return fmt.Errorf("%s is a %s again", replica.Addr, role)
				}
				return nil
			})
			promoted := time.Since(began)
			if l, _, err := s.look(s.keyhaul); err == nil {
				s.applied = l.Applied
			}
			s.moving(s.keyhaul)
			t.Logf("promoted after %v, entries flow again after %v", promoted.Round(10*time.Millisecond), time.Since(began).Round(10*time.Millisecond))
		})
		s.inStep(primary)
	}
	s.equal(1)
}

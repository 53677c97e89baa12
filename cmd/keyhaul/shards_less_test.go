package main

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestShardsTargetWithLess: a server of the target comes back without what was written of a slot when it was settled. The
// slot had been there before, and its link reads on from behind what the source's nodes have told each other of it.
func TestShardsTargetWithLess(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			p := s.from.Primaries()
			slots := s.fillSlots(p[1], 40)
			node, slot := s.nodes[0], slots[0]
			if s.whole != nil { // the node that has the record of the haul keeps what it has
				i := slices.IndexFunc(slots, func(x int) bool { return s.whole.NodeFor(x) != s.whole.NodeFor(rt.Slot("{haul}")) })
				slot = slots[i]
				node = s.whole.NodeFor(slot)
			}
			s.begin()
			s.stopLoad()
			s.move(slot, p[1], p[0])
			other := slots[slices.IndexFunc(slots, func(x int) bool { return x != slot })]
			s.moveLosing(slot, other, p[0], p[1], node)
			s.equal()
		})
	}
}

// moveLosing moves a slot that is written meanwhile. A server of the target is saved when all keys have moved, and is
// restarted with that when the slot is settled. The other slot is written just before.
func (s *shardsTrial) moveLosing(slot, other int, from, to, node *rt.Server) {
	s.t.Helper()
	tag := s.tags[slot]
	to.MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", from.MustDo("CLUSTER", "MYID").Text)
	from.MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", to.MustDo("CLUSTER", "MYID").Text)
	s.migrate(from, to, tag+"0")
	s.reached(to)
	for i := 1; i < 6; i++ {
		from.MustDo("INCRBY", tag+strconv.Itoa(i), 1000)
	}
	from.MustDo("RPUSH", tag+"list", "b")
	s.reached(from)
	for _, key := range from.MustDo("CLUSTER", "GETKEYSINSLOT", slot, 1000).Array {
		s.migrate(from, to, key.Text)
	}
	to.MustDo("SET", s.tags[other]+"last", 1) // of one server the fence says the same now as when the slot is settled
	s.reached(to)
	pause(1500*time.Millisecond, 1600*time.Millisecond) // for marks
	node.MustDo("SAVE")
	_, before, err := s.look(s.keyhaul)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, n := range []*rt.Server{to, from, s.from.Primaries()[2]} {
		n.MustDo("CLUSTER", "SETSLOT", slot, "NODE", to.MustDo("CLUSTER", "MYID").Text)
	}
	s.from.WaitOK()
	s.settled(before)
	pause(1500*time.Millisecond, 1600*time.Millisecond)
	node.Kill()
	node.Restart()
	to.MustDo("APPEND", tag+"text", "behind")
}

// migrate moves a key of an open slot.
func (s *shardsTrial) migrate(from, to *rt.Server, key string) {
	s.t.Helper()
	from.MustDo("MIGRATE", "127.0.0.1", to.Port, key, 0, 5000)
}

// reached waits until everything that a primary of the source has written is applied, or passed over.
func (s *shardsTrial) reached(p *rt.Server) {
	s.t.Helper()
	at := p.Offset()
	rt.Eventually(s.t, patience, func() error {
		_, r, err := s.look(s.keyhaul)
		for _, l := range r.Links {
			if err == nil && l.Address == p.Addr && l.Applied >= at {
				return nil
			}
		}
		return fmt.Errorf("not at %d of %s: %v", at, p.Addr, err)
	})
}

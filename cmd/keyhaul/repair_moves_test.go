package main

import (
	"strconv"
	"testing"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestRepairFailover: a primary of the target dies while keys are repaired.
func TestRepairFailover(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true, replica: true, flags: append([]string{"--wait-replicas", "1"}, goesOn...)})
	s.startLoad()
	s.start()
	s.streaming()
	s.plant()
	stop := s.repairAlways()
	primary, replica := s.shard()
	s.strike(func() { s.failOver(primary, replica, true) })
	s.inStep(primary)
	stop()
	s.repair()
	s.equal(1)
}

// hotSlots are the slots of keys that the load writes to most.
func hotSlots() (slots []int) {
	for group := range 5 {
		slots = append(slots, rt.Slot("{"+strconv.Itoa(group)+"}"))
	}
	return slots
}

// TestRepairMovedSlots: slots of the target move while keys in them are repaired.
func TestRepairMovedSlots(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true, drift: 100 * time.Millisecond, flags: goesOn}) // MIGRATE sends the time that is left
	s.startLoad()
	s.start()
	s.streaming()
	s.plant()
	stop := s.repairAlways()
	for _, slot := range hotSlots() {
		from := s.whole.NodeFor(slot)
		to := s.nodes[0]
		if to == from {
			to = s.nodes[1]
		}
		s.whole.MoveSlot(slot, from, to)
	}
	stop()
	s.repair()
	s.equal(1)
}

// TestRepairShards: the source is a cluster, of which slots move while keys in them are repaired.
func TestRepairShards(t *testing.T) {
	t.Parallel()
	for name, target := range map[string]int{"standalone": 0, "cluster": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newShardsTrial(t, rt.ClusterOptions{Primaries: 2}, target, goesOn...)
			s.setup.cluster = true
			s.begin()
			s.plant()
			stop := s.repairAlways()
			for _, slot := range hotSlots() {
				from := s.from.NodeFor(slot)
				to := s.from.Nodes[0]
				if to == from {
					to = s.from.Nodes[1]
				}
				s.from.MoveSlot(slot, from, to)
			}
			stop()
			s.repair()
			s.equal()
		})
	}
}

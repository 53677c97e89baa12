package main

import (
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestSoakCrossSlot: commands whose keys are in several slots of the target, while keyhaul is killed, mostly while it
// catches up: then keys that it has read from the source are far ahead of the stream.
func TestSoakCrossSlot(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true})
	s.startLoadOf(rt.MixCross)
	s.start()
	for i := range rounds() {
		s.strike(func() {
			pause(0, 100*time.Millisecond)
			s.kill()
		})
		pause(200*time.Millisecond, time.Second) // the source goes on
		if i%3 == 2 {
			s.state = t.TempDir()
		}
		s.start()
	}
	s.equal(1)
	s.hasReread()
}

// hasReread expects the keyhaul that works to have read keys from the source.
func (s *trial) hasReread() {
	s.t.Helper()
	_, r, err := s.look(s.keyhaul)
	if err != nil || r.Target.Counts["rereads"] == 0 {
		s.t.Errorf("nothing was read from the source: %v, %v", r.Target.Counts, err)
	}
	s.t.Log(r.Target.Counts)
}

// TestSoakCrossSlotFaults: the same load, and what befalls the servers.
func TestSoakCrossSlotFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		setup setup
		fault func(s *trial)
	}{
		"a node of the target killed": {setup{target: durable}, func(s *trial) {
			node := s.anyNode()
			node.Kill()
			pause(0, 500*time.Millisecond)
			node.Restart()
		}},
		"the source emptied, keyhaul killed": {setup{}, func(s *trial) {
			s.source.MustDo([]any{"FLUSHALL", "FLUSHDB"}[rand.IntN(2)])
			pause(0, 30*time.Millisecond)
			s.kill()
			pause(0, 500*time.Millisecond)
			s.start()
		}},
		"slots of the target moved": {setup{drift: 100 * time.Millisecond}, func(s *trial) {
			for i := range 5 {
				slot := rt.Slot("load:count:" + strconv.Itoa(i))
				from, to := s.whole.NodeFor(slot), s.anyNode()
				if to != from {
					s.whole.MoveSlot(slot, from, to) // MIGRATE sends the time that is left
				}
			}
		}},
		"connections cut": {setup{proxied: true}, func(s *trial) {
			s.gate.Cut()
			for _, gate := range s.gates {
				gate.Cut()
			}
		}},
		"no fences": {setup{flags: []string{"--delivery", "at-least-once"}}, func(*trial) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.setup.cluster = true
			s := newTrial(t, c.setup)
			s.startLoadOf(rt.MixCross)
			s.start()
			for range rounds() {
				pause(0, time.Second)
				s.strike(func() { c.fault(s) })
			}
			s.equal(1)
			s.hasReread()
		})
	}
}

// TestSoakCrossSlotSuperseded: a source that comes back with another history while commands wait for keys of the last
// one: those wait no longer, and a new copy replaces everything.
func TestSoakCrossSlotSuperseded(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true, proxied: true, flags: []string{"--on-lost-history", "resync"}})
	s.startLoadOf(rt.MixCross)
	s.start()
	s.streams()
	for _, gate := range s.gates {
		gate.Stall() // so that there is something left of the old stream
	}
	s.source.Kill()
	s.source.Restart()
	pause(0, 300*time.Millisecond)
	for _, gate := range s.gates {
		gate.Resume()
	}
	s.until(s.keyhaul, "copied again", func(l haul.LinkStatus) bool { return l.FullSyncs == 2 && l.SnapshotDone })
	s.equal(1) // since the source was restarted
}

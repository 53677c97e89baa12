package main

import (
	"testing"
	"time"

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
	_, r, err := s.look(s.keyhaul)
	if err != nil || r.Target.Counts["rereads"] == 0 {
		t.Errorf("nothing was read from the source: %v, %v", r.Target.Counts, err)
	}
	t.Log(r.Target.Counts)
}

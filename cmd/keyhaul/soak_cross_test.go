package main

import (
	"testing"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestSoakCrossSlot: commands whose keys are in several slots of the target, while keyhaul is killed.
func TestSoakCrossSlot(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true})
	s.startLoadOf(rt.MixCross)
	s.start()
	for i := range rounds() {
		pause(300*time.Millisecond, 2*time.Second)
		s.strike(s.kill)
		if i%3 == 2 {
			s.state = t.TempDir()
		}
		s.start()
		s.moving(s.keyhaul)
	}
	s.equal(1)
	_, r, err := s.look(s.keyhaul)
	if err != nil || r.Target.Counts["rereads"] == 0 {
		t.Errorf("nothing was read from the source: %v, %v", r.Target.Counts, err)
	}
	t.Log(r.Target.Counts)
}

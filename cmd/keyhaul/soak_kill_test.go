package main

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestSoakKill: kill -9 every one to three seconds, resumed from the same state directory or from the target alone.
func TestSoakKill(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, fresh := range map[string]bool{"same state directory": false, "fresh state directory": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster})
				s.killOften(fresh)
				s.equal(1)
			})
		}
	})
}

// killOften kills keyhaul and starts it again.
func (s *trial) killOften(fresh bool) {
	s.t.Helper()
	s.startLoad()
	s.start()
	var longest time.Duration
	for range rounds() {
		pause(time.Second, 3*time.Second)
		s.strike(s.kill)
		if fresh {
			s.state = s.t.TempDir()
		}
		s.start()
		longest = max(longest, s.moving(s.keyhaul))
	}
	s.t.Logf("entries flowed again after %v at most", longest)
}

// TestSoakFencesOff: the same test sees that commands are applied twice where nothing prevents it.
func TestSoakFencesOff(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{flags: fencesOff})
	s.killOften(false)
	s.level()
	r := s.compare(rt.CompareOptions{Grace: grace})
	if r.Equal() {
		t.Errorf("no difference after %d faults without fences: this test is blind", s.counted)
	}
	t.Logf("%d of %d keys differ after %d faults", r.Different, r.Keys, s.counted)
}

// TestSoakTerm: told to stop under load, keyhaul drains and ends well, and resumes.
func TestSoakTerm(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster})
		s.startLoad()
		s.start()
		for range rounds() {
			pause(200*time.Millisecond, 2*time.Second)
			s.strike(func() {
				s.keyhaul.signal(syscall.SIGTERM)
				s.keyhaul.exit(haul.ExitDone)
			})
			s.start()
		}
		s.equal(1)
	})
}

// TestSoakKillSnapshot: killed before the stream begins, keyhaul goes on with the snapshot that it has, or takes another
// one; never a mixture.
func TestSoakKillSnapshot(t *testing.T) {
	t.Parallel()
	moments := map[string]func(s *trial){
		"first second": func(*trial) { pause(0, time.Second) },
		"in the snapshot": func(s *trial) {
			part := 0.05 + 0.9*rand.Float64()
			s.until(s.keyhaul, "in the snapshot", func(l haul.LinkStatus) bool {
				return l.SnapshotDone || float64(l.SnapshotKeys) > part*float64(l.SnapshotKeysAll) && l.SnapshotKeys > 0
			})
		},
		"at its end": func(s *trial) {
			s.until(s.keyhaul, "at the snapshot's end", func(l haul.LinkStatus) bool {
				return l.SnapshotDone || l.SnapshotTotal > 0 && l.SnapshotBytes >= l.SnapshotTotal
			})
			pause(0, 50*time.Millisecond)
		},
	}
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, wait := range moments {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, proxied: true, fill: 0.01})
				for range rounds() {
					s.startLoad()
					s.gate.Limit(2_000_000) // the snapshot takes one or two seconds
					s.start()
					wait(s)
					s.kill()
					s.counted++
					s.gate.Limit(0)
					s.start()
					s.until(s.keyhaul, "streaming", func(l haul.LinkStatus) bool { return l.SnapshotDone })
					s.level()
					copies := s.source.FullSyncs()
					if copies > 2 {
						t.Errorf("%d full copies", copies)
					}
					s.equal(copies)
					s.again()
				}
			})
		}
	})
}

// again empties the target and forgets the haul, for another one between the same servers.
func (s *trial) again() {
	s.t.Helper()
	s.kill()
	s.eachNode(func(node *rt.Server) { node.MustDo("FLUSHALL") })
	s.source.MustDo("CONFIG", "RESETSTAT")
	if err := rt.SmallWrites(context.Background(), s.source.Endpoint(), 100); err != nil {
		s.t.Fatal(err)
	}
	s.state = s.t.TempDir()
}

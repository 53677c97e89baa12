package main

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

const beyondLease = 12 * time.Second

// TestSoakTwoAtOnce: of two keyhauls with the same source and target one works. The other is ready to take over when the
// first is killed; one that was to end by itself does not wait.
func TestSoakTwoAtOnce(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster})
		s.startLoad()
		first, second := s.launch(t.TempDir()), s.launch(t.TempDir())
		worker, standby := s.elected(first, second)
		s.launch(t.TempDir(), "--until", "caught-up").exit(haul.ExitHeld)
		for range rounds() {
			s.standsBy(standby)
			s.keyhaul = worker
			s.strike(s.kill)
			s.moving(standby)
			worker, standby = standby, s.launch(t.TempDir())
		}
		s.standsBy(standby)
		s.keyhaul = worker
		s.equal(1)
	})
}

// elected waits until one of two processes works, and returns that one first.
func (s *trial) elected(a, b *process) (worker, standby *process) {
	s.t.Helper()
	rt.Eventually(s.t, patience, func() error {
		for _, pair := range [][2]*process{{a, b}, {b, a}} {
			if l, _, err := s.look(pair[0]); err == nil && l.SnapshotDone && l.Connected {
				worker, standby = pair[0], pair[1]
				return nil
			}
		}
		return fmt.Errorf("neither of two works")
	})
	return worker, standby
}

// standsBy expects a process to be ready and to leave source and target alone.
func (s *trial) standsBy(p *process) {
	s.t.Helper()
	rt.Eventually(s.t, patience, func() error {
		if code, body := p.get("/readyz"); code != 200 {
			return fmt.Errorf("standby: %d %s", code, body)
		}
		if l, r, err := s.look(p); err != nil || l.Connected {
			return fmt.Errorf("standby: %w, %+v", err, r)
		}
		if n := s.source.Number("replication", "connected_slaves"); n > 1 {
			return fmt.Errorf("%d keyhauls follow the source", n)
		}
		return nil
	})
}

// TestSoakFrozenWorker: a worker that is frozen beyond its lease is replaced, and when it wakes up it writes nothing more,
// what its sockets still held included.
func TestSoakFrozenWorker(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Run("daemon", func(t *testing.T) {
			t.Parallel()
			s := newTrial(t, setup{cluster: cluster})
			s.startLoad()
			s.start()
			s.moving(s.keyhaul)
			standby := s.launch(t.TempDir())
			s.standsBy(standby)
			for range slowRounds() {
				s.strike(func() { s.keyhaul.signal(syscall.SIGSTOP) })
				s.outlast(standby, func(l haul.LinkStatus) bool { return l.Applied > s.applied })
				s.keyhaul.signal(syscall.SIGCONT)
				s.keyhaul, standby = standby, s.keyhaul
				s.standsBy(standby)
			}
			s.equal(1)
		})
		t.Run("one-shot in its snapshot", func(t *testing.T) {
			t.Parallel()
			s := newTrial(t, setup{cluster: cluster, proxied: true, fill: 0.02})
			s.startLoad()
			s.gate.Limit(3_000_000)
			once := s.launch(t.TempDir(), "--until", "caught-up")
			s.until(once, "in the snapshot", func(l haul.LinkStatus) bool { return l.SnapshotKeys > 1000 && !l.SnapshotDone })
			once.signal(syscall.SIGSTOP)
			s.gate.Limit(0)
			s.start()
			s.outlast(s.keyhaul, func(l haul.LinkStatus) bool { return l.SnapshotDone })
			once.signal(syscall.SIGCONT)
			once.exit(haul.ExitHeld)
			s.equal(2)
		})
	})
}

// outlast waits until the lease of a frozen worker is over and its successor works.
func (s *trial) outlast(successor *process, works func(l haul.LinkStatus) bool) {
	s.t.Helper()
	frozen := time.Now()
	s.until(successor, "takes over", works)
	if took := time.Since(frozen); took < 8*time.Second {
		s.t.Errorf("taken over after %v, within the lease", took)
	}
	time.Sleep(time.Until(frozen.Add(beyondLease)))
}

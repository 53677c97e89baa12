package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// forgetful is a source whose backlog covers some milliseconds.
var forgetful = map[string]string{"repl-backlog-size": "16kb"}

// TestSoakLostHistory: the source has forgotten what follows, under each policy and with each state of the spool.
func TestSoakLostHistory(t *testing.T) {
	t.Parallel()
	spools := map[string]func(s *trial){
		"gone": func(s *trial) {
			if err := os.RemoveAll(filepath.Join(s.state, "default", "spool")); err != nil {
				s.t.Fatal(err)
			}
		},
		"whole":     func(*trial) {},
		"damaged":   func(s *trial) { s.damage(flipped, 20_000) },
		"elsewhere": func(s *trial) { s.state = s.t.TempDir() },
	}
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for _, c := range []struct{ policy, spool string }{
			{"fail", "gone"},
			{"fail", "whole"},
			{"fail", "damaged"},
			{"fail", "elsewhere"},
			{"resync", "gone"},
			{"flush", "gone"},
		} {
			t.Run(c.policy+", spool "+c.spool, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, source: forgetful})
				s.startLoad()
				s.start()
				s.strike(func() { s.unapplied(100_000) })
				s.stopLoad()
				spools[c.spool](s)
				s.forget()
				held, written := s.heldKeys(), s.source.Offset()
				s.start("--on-lost-history", c.policy)
				if c.policy == "fail" {
					s.keyhaul.exit(haul.ExitHistoryLost, "What to do: ")
					s.namesBacklog(written)
					if now := s.heldKeys(); (c.spool == "gone" || c.spool == "elsewhere") && now != held {
						t.Errorf("the target holds %d keys, had %d", now, held)
					}
					if copies := s.source.FullSyncs(); copies != 1 {
						t.Errorf("%d full copies", copies)
					}
					return
				}
				s.startLoad()
				s.until(s.keyhaul, "streaming", func(l haul.LinkStatus) bool { return l.SnapshotDone })
				s.equal(2)
			})
		}
	})
}

// namesBacklog expects the last words of keyhaul to name a backlog that would have sufficed for a source which had
// written that much before.
func (s *trial) namesBacklog(written int64) {
	s.t.Helper()
	said := regexp.MustCompile(`behind offset (\d+)(?s:.*)repl-backlog-size\D{0,20}(\d+)`).FindStringSubmatch(s.keyhaul.stderr())
	if said == nil {
		s.t.Error("no word of the offset and of a sufficient repl-backlog-size")
		return
	}
	from, _ := strconv.ParseInt(said[1], 10, 64) // digits, by the expression
	size, _ := strconv.ParseInt(said[2], 10, 64)
	if lost := written - from; size < lost {
		s.t.Errorf("a backlog of %d bytes does not reach back %d", size, lost)
	}
}

// forget deletes keys of every database that the target has, and writes more than the backlog holds.
func (s *trial) forget() {
	s.t.Helper()
	for db := range s.databases() {
		s.source.MustDo("SELECT", db)
		for range 200 {
			if key := s.source.MustDo("RANDOMKEY"); !key.Null {
				s.source.MustDo("DEL", key.Text)
			}
		}
	}
	s.source.MustDo("SELECT", 0)
	fill(s.t, s.source, 20_000)
}

func (s *trial) heldKeys() (sum int64) {
	s.t.Helper()
	s.eachNode(func(node *rt.Server) { sum += keys(node) })
	return sum
}

// TestSoakSpoolBridges: what is spooled and not applied is used before the source is asked, which has it no longer.
func TestSoakSpoolBridges(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster, source: forgetful})
		s.start()
		for range rounds() {
			s.startLoad()
			s.strike(func() {
				s.eachNode((*rt.Server).Freeze)
				s.until(s.keyhaul, "spools", func(l haul.LinkStatus) bool { return l.Received-l.Applied > 200_000 })
				s.stopLoad()
				at := s.source.Offset()
				s.until(s.keyhaul, "received all", func(l haul.LinkStatus) bool { return l.Received >= at })
				pause(time.Second, 1500*time.Millisecond) // to disk
				s.kill()
				s.eachNode((*rt.Server).Thaw)
			})
			s.start()
			s.level()
		}
		s.equal(1)
	})
}

// TestSoakSourceRestart: a source that saves its data when it is shut down keeps its history.
func TestSoakSourceRestart(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster, source: map[string]string{"save": "3600 100000000"}})
		if !s.source.Version.AtLeast(7, 0) {
			t.Skipf("%s does not wait for its replicas when it is shut down", s.source.Version)
		}
		s.startLoad()
		s.start()
		for range rounds() {
			pause(500*time.Millisecond, 2*time.Second)
			s.strike(s.source.Restart)
		}
		s.equal(0) // none since it was started
	})
}

package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// durable makes a server keep whatever it has acknowledged.
var durable = map[string]string{"appendonly": "yes", "appendfsync": "always"}

// TestSoakTarget: what befalls a server of the target while one keyhaul goes on.
func TestSoakTarget(t *testing.T) {
	t.Parallel()
	kinds := map[string]struct {
		rounds int
		fault  func(s *trial, node *rt.Server)
	}{
		"killed": {rounds(), func(_ *trial, node *rt.Server) {
			node.Kill()
			pause(0, 500*time.Millisecond)
			node.Restart()
		}},
		"loading": {slowRounds(), (*trial).load},
		"frozen": {slowRounds(), func(_ *trial, node *rt.Server) {
			node.Freeze()
			time.Sleep(lasting(5*time.Second, 30*time.Second))
			node.Thaw()
		}},
	}
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, kind := range kinds {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, target: durable})
				s.startLoad()
				s.start()
				for range kind.rounds {
					pause(500*time.Millisecond, 1500*time.Millisecond)
					s.strike(func() { kind.fault(s, s.anyNode()) })
				}
				s.moving(s.keyhaul)
				s.equal(1)
			})
		}
	})
}

// load restarts a node that then takes a few seconds to load its data.
func (s *trial) load(node *rt.Server) {
	s.t.Helper()
	const takes = 3 * time.Second
	node.MustDo("BGREWRITEAOF") // so that what is loaded are its keys, not their history
	rt.Eventually(s.t, patience, func() error {
		if info := node.Info("persistence"); info["aof_rewrite_in_progress"] != "0" || info["aof_rewrite_scheduled"] != "0" {
			return fmt.Errorf("%s still rewrites its file", node.Addr)
		}
		return nil
	})
	node.Reconfigure(map[string]string{
		"key-load-delay":                        strconv.FormatInt(takes.Microseconds()/max(keys(node), 1), 10),
		"loading-process-events-interval-bytes": "1024",
	})
	node.Kill()
	began := time.Now()
	node.Restart()
	if took := time.Since(began); took < takes/2 {
		s.t.Errorf("loading took only %v", took)
	}
}

// keys counts the keys of all databases.
func keys(node *rt.Server) (sum int64) {
	for _, line := range node.Info("keyspace") {
		text, _, _ := strings.Cut(strings.TrimPrefix(line, "keys="), ",")
		n, _ := strconv.ParseInt(text, 10, 64)
		sum += n
	}
	return sum
}

// TestSoakTargetWithLess: a server of the target is restarted from a snapshot of its own that lacks what it has
// acknowledged since.
func TestSoakTargetWithLess(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster})
		s.startLoad()
		s.start()
		for range failovers() {
			node := s.anyNode()
			s.strike(func() {
				node.MustDo("SAVE")
				saved := s.applied
				s.until(s.keyhaul, "acknowledged", func(l haul.LinkStatus) bool { return l.Applied > saved+100_000 })
				node.Kill()
				node.Restart()
			})
		}
		s.moving(s.keyhaul)
		s.equal(1)
	})
}

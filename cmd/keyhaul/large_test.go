package main

import (
	"errors"
	"maps"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestLargeValueKill: a keyhaul that is killed while it builds a large value shows none of it, and the next one leaves the
// value and no part of it.
func TestLargeValueKill(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster, flags: []string{"--writer-big-value-bytes", "16KiB"}})
		const fields = 200_000
		s.source.MustDo("EVAL", "for i = 1, 200000 do redis.call('HSET', KEYS[1], 'field' .. i, i) end", 1, "large")
		s.source.MustDo("EVAL", "for i = 1, 50000 do redis.call('XADD', KEYS[1], '*', 'n', i) end", 1, "large stream")
		target := s.nodes[0]
		if cluster {
			target = s.whole.NodeFor(rt.Slot("large"))
		}
		s.startLoad()
		for range rounds() {
			left := parts(s)
			s.start()
			rt.Eventually(t, patience, func() error {
				if now := parts(s); len(now) == 0 || maps.Equal(left, now) {
					return errors.New("nothing is being built")
				}
				return nil
			})
			s.kill()
			if n := target.MustDo("HLEN", "large").Int; n != 0 && n != fields {
				t.Errorf("readers of the target see %d fields", n)
			}
		}
		s.start()
		s.until(s.keyhaul, "streams", func(l haul.LinkStatus) bool { return l.SnapshotDone })
		s.level()
		if r := s.compare(rt.CompareOptions{Grace: grace}); !r.Equal() || r.Keys == 0 {
			t.Errorf("source and target differ: %s", r)
		}
		s.kill()
		s.run("finish", append([]string{"--state-dir", s.state, "--http", ""}, s.args...)...).exit(haul.ExitDone)
		if left := parts(s); len(left) > 0 {
			t.Errorf("parts of values are left: %v", left)
		}
	})
}

// parts returns what the nodes of the target hold of values that are being built, and how much that is.
func parts(s *trial) map[string]int64 {
	s.t.Helper()
	found := make(map[string]int64)
	s.eachNode(func(node *rt.Server) {
		for _, k := range node.MustDo("KEYS", "keyhaul:default:part*").Array {
			found[k.Text] = node.Do("MEMORY", "USAGE", k.Text).Int
		}
	})
	return found
}

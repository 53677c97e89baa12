package main

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestCutInSnapshot: the second copy begins on an empty target, and is the only other one.
func TestCutInSnapshot(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, rt.Options{})
	fill(t, source, 30_000)
	standalone := rt.Start(t, rt.Options{})
	cluster := rt.StartCluster(t, rt.ClusterOptions{Primaries: 3})
	for name, target := range map[string]struct {
		url string
		ep  rt.Endpoint
	}{
		"standalone": {standalone.URL(), standalone.Endpoint()},
		"cluster":    {"redis://" + cluster.Seeds()[0], cluster.Endpoint()},
	} {
		t.Run(name, func(t *testing.T) {
			source.MustDo("SET", "stale", "v")
			proxy := rt.NewProxy(t, source.Addr)
			proxy.Limit(3_000_000)
			proxy.CutAfter(600_000, rt.ToClient)
			p := start(t, "--source", "redis://"+proxy.Addr(), "--target", target.url)
			p.eventually("second copy", func(r report) bool { return r.Links[0].FullSyncs == 2 })
			p.streaming()
			source.MustDo("DEL", "stale")
			p.eventually("level", func(r report) bool { return r.Phase == haul.PhaseCaughtUp })
			rt.Eventually(t, 10*time.Second, func() error {
				r, err := rt.Compare(t.Context(), source.Endpoint(), target.ep, rt.CompareOptions{})
				if err == nil && !r.Equal() {
					err = fmt.Errorf("%s", r)
				}
				return err
			})
			if r := p.status(); r.Links[0].FullSyncs != 2 || r.Links[0].SnapshotKeys != r.Links[0].SnapshotKeysAll {
				t.Errorf("%+v", r.Links[0])
			}
		})
	}
}

// TestHistoryLostWhileStalled: the exit code tells of the history, not of the target that could not be drained.
func TestHistoryLostWhileStalled(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	p := start(t, between(source, target, "--drain-deadline", "500ms")...)
	p.streaming()
	target.Freeze()
	defer target.Thaw()
	source.MustDo("SET", "k", "v")
	p.eventually("received", func(r report) bool { return r.Links[0].LagBytes > 0 })
	source.Kill()
	source.Restart()
	p.exit(haul.ExitHistoryLost, "--on-lost-history resync")
}

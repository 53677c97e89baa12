package main

import (
	"slices"
	"testing"
	"time"
)

// TestSoakSourceFailover: the source is failed over again and again under 10,000 writes a second. Nothing is copied anew,
// unless keyhaul has read what the promoted server lacks.
func TestSoakSourceFailover(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(f *family){
		"handed over": (*family).handOver,
		"killed": func(f *family) {
			f.kill9()
			f.comeBack()
		},
	}
	for by, sentinels := range map[string]bool{"addresses": false, "sentinels": true} {
		for kind, fault := range kinds {
			t.Run("by "+by+", "+kind, func(t *testing.T) {
				t.Parallel()
				f := newFamily(t, setup{rate: 10_000}, sentinels)
				if !f.source.Version.AtLeast(6, 2) {
					t.Skip("it has no FAILOVER")
				}
				f.startLoad()
				f.start()
				f.streams()
				var took []time.Duration
				for range min(slowRounds(), 10) {
					pause(500*time.Millisecond, 1500*time.Millisecond)
					d, lost := f.survives(func() { fault(f) })
					if lost {
						t.Logf("round %d: keyhaul was ahead of the promoted server", len(took))
						return
					}
					took = append(took, d)
				}
				f.followed()
				slices.Sort(took)
				t.Logf("%d failovers; entries flowed again after %v, at most %v", len(took), took[len(took)/2], took[len(took)-1])
			})
		}
	}
}

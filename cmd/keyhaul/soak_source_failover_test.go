package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
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

var behindOffset = regexp.MustCompile(`cannot continue behind offset (\d+)`)

// survives does a fault and returns how long it took, from its beginning, until keyhaul has applied what was written
// behind the promotion; or lost, if keyhaul has ended because it had read more than the promoted server has.
func (f *family) survives(fault func()) (took time.Duration, lost bool) {
	f.t.Helper()
	began := time.Now()
	fault()
	f.source.MustDo("INCR", "since the fault")
	at := f.source.Offset()
	rt.Eventually(f.t, patience, func() error {
		select {
		case <-f.keyhaul.ended:
			lost = true
			return nil
		default:
		}
		l, _, err := f.look(f.keyhaul)
		if err == nil && l.Applied < at {
			err = fmt.Errorf("applied up to %d of %d", l.Applied, at)
		}
		return err
	})
	if lost {
		f.keyhaul.exit(haul.ExitHistoryLost)
		has := f.source.Number("replication", "second_repl_offset") - 1
		said := behindOffset.FindStringSubmatch(f.keyhaul.stderr())
		if said == nil {
			f.t.Fatal("no word of the offset")
		}
		if read, _ := strconv.ParseInt(said[1], 10, 64); read <= has { // digits, by the expression
			f.t.Errorf("the history was given up, though %d was read and the promoted server has up to %d", read, has)
		}
	}
	return time.Since(began), lost
}

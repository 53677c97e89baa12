package main

import (
	"fmt"
	"strings"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestPieces: a transaction larger than the buffer allows goes in pieces. Whoever is killed between them goes on with
// the next piece, also if the buffer is so large by then that the rest goes as one.
func TestPieces(t *testing.T) {
	t.Parallel()
	const small, large, count = "1MiB", "64MiB", 3000
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, buffers := range map[string][]string{
			"same buffer":   {small, small, small, small},
			"larger buffer": {small, large, large, large},
		} {
			for where, fresh := range map[string]bool{"same state directory": false, "fresh state directory": true} {
				t.Run(name+", "+where, func(t *testing.T) {
					t.Parallel()
					s := newTrial(t, setup{cluster: cluster, proxied: true})
					s.start("--buffer-max-bytes", buffers[0])
					s.streams()
					s.source.MustDo("INCR", "{x}n")
					s.applies()
					for _, gate := range s.gates {
						gate.Limit(500_000)
					}
					value := strings.Repeat("v", 500)
					s.source.MustDo("MULTI")
					if !cluster {
						s.source.MustDo("SELECT", 3)
					}
					for i := range count {
						s.source.MustDo("RPUSH", "{x}list", fmt.Sprint(i, value))
						switch i % 100 {
						case 0:
							s.source.MustDo("INCR", "{x}n")
						case 50:
							s.source.MustDo("SET", "keyhaul:{x}own", i)
						case 70:
							s.source.MustDo("SET", "{x}text", i)
						case 90:
							if !cluster {
								s.source.MustDo("SELECT", i%4)
							}
						}
					}
					s.source.MustDo("EXEC")
					if !cluster {
						s.source.MustDo("SELECT", 0)
					}
					s.source.MustDo("RPUSH", "{x}list", "behind")
					length := func() (n int64) {
						for db := range s.databases() + 1 {
							if cluster && db > 0 {
								break
							}
							node := s.nodeFor("{x}list")
							if !cluster {
								node.MustDo("SELECT", db)
							}
							n += node.MustDo("LLEN", "{x}list").Int
						}
						if !cluster {
							s.nodes[0].MustDo("SELECT", 0)
						}
						return n
					}
					for i, buffer := range buffers[1:] {
						if i > 0 && buffer == large && !cluster {
							break // what is left goes as one
						}
						least := int64(count * (i + 1) / 5)
						rt.Eventually(t, patience, func() error {
							if n := length(); n <= least {
								return fmt.Errorf("%d elements are applied, of %d", n, count)
							}
							return nil
						})
						s.kill()
						if n := length(); i == 0 && n >= count {
							t.Errorf("killed too late for the middle of it: %d elements", n)
						}
						if fresh {
							s.state = t.TempDir()
						}
						s.start("--buffer-max-bytes", buffer)
						s.streams()
					}
					for _, gate := range s.gates {
						gate.Limit(0)
					}
					s.equal(1)
					if n := length(); n != count+1 {
						t.Errorf("%d elements, want %d", n, count+1)
					}
				})
			}
		}
	})
}

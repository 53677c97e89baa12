package main

import (
	"math/rand/v2"
	"testing"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestSoakCut: connections are cut every 300 ms, between bytes and in the middle of a command, a transaction or a reply.
// One process lives through all of it.
func TestSoakCut(t *testing.T) {
	t.Parallel()
	kinds := map[string]struct {
		every time.Duration
		cut   func(s *trial)
	}{
		"source link":  {300 * time.Millisecond, func(s *trial) { cut(s.gate) }},
		"target lanes": {300 * time.Millisecond, func(s *trial) { cut(s.anyGate()) }},
		"both": {300 * time.Millisecond, func(s *trial) {
			cut(s.gate)
			cut(s.anyGate())
		}},
		// what a closed lane has sent is not to be executed after its successor has read the fences
		"delayed delivery": {time.Second, func(s *trial) { s.anyGate().Orphan(400 * time.Millisecond) }},
	}
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, kind := range kinds {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, proxied: true})
				s.startLoad()
				s.start()
				s.moving(s.keyhaul)
				cuts := 0
				for end := time.Now().Add(lasting(8*time.Second, time.Minute)); time.Now().Before(end); cuts++ {
					s.counts()
					kind.cut(s)
					time.Sleep(kind.every)
				}
				if s.counted < rounds() {
					t.Errorf("only %d of %d cuts count, want %d", s.counted, cuts, rounds())
				}
				t.Logf("%d cuts", cuts)
				s.equal(1)
			})
		}
	})
}

func (s *trial) anyGate() *rt.Proxy { return s.gates[rand.IntN(len(s.gates))] }

// cut breaks all connections at once, or one of them within the next few kilobytes.
func cut(p *rt.Proxy) {
	if rand.IntN(2) == 0 {
		p.Cut()
		return
	}
	p.CutAfter(1+rand.IntN(4000), rt.Direction(rand.IntN(2)))
}

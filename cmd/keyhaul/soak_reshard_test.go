package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// mostStalled is how long an entry of a slot that stays may take while others move, beside the servers' own answers: those
// are slow on a busy machine.
const mostStalled = 250 * time.Millisecond

// TestSoakReshard moves slots of the target there and back while 10,000 entries a second are written: 1,000 of them in
// the long form.
func TestSoakReshard(t *testing.T) {
	kinds := map[string]func(s *trial, m *movers){"classic": (*trial).reshardClassic, "atomic": (*trial).reshardAtomic}
	for name, reshard := range kinds {
		t.Run(name, func(t *testing.T) {
			s := newTrial(t, setup{cluster: true, drift: 100 * time.Millisecond}) // MIGRATE sends the time that is left
			if name == "atomic" && !s.whole.MovesAtomically() {
				t.Skip("this release cannot")
			}
			m := s.newMovers(int(lasting(60, 1000)))
			s.write(rt.Load{Endpoint: s.source.Endpoint(), Mix: rt.MixHard, Tagged: true, Rate: 10_000, Keys: 4000, Writers: 4})
			s.start()
			s.until(s.keyhaul, "streams", func(l haul.LinkStatus) bool { return l.SnapshotDone && l.LagBytes < 1<<20 })
			probes := s.startProbes()
			reshard(s, m)
			longest, answer := probes.stop()
			s.whole.WaitOK()
			l, r, err := s.look(s.keyhaul)
			if err != nil {
				t.Fatal(err)
			}
			counts := r.Target.Counts
			t.Logf("%d slots, there and back: %d MOVED, %d ASK, %d TRYAGAIN, %d resends; the longest stall of a slot that stays: %v; the longest answer of a server to a probe: %v",
				len(m.slots), counts["moved"], counts["ask"], counts["tryagain"], r.Target.Resends, longest, answer)
			for _, what := range map[string][]string{"classic": {"moved", "ask", "tryagain"}, "atomic": {"moved"}}[name] {
				if counts[what] == 0 {
					t.Errorf("there was no %s", what)
				}
			}
			if longest-answer > mostStalled {
				t.Errorf("a slot that stays was stalled for %v", longest-answer)
			}
			if l.Reconnects != 0 || l.PartialSyncs != 0 {
				t.Errorf("the pipeline was started anew: %+v", l)
			}
			s.counted = len(m.slots)
			s.equal(1)
		})
	}
}

// TestSoakReshardBroken breaks a haul while slots of its target are open.
func TestSoakReshardBroken(t *testing.T) {
	faults := map[string]func(s *trial){
		"killed": func(s *trial) {
			s.kill()
			s.start()
		},
		"cut": func(s *trial) {
			s.eachNode(func(node *rt.Server) { node.Do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") })
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			s := newTrial(t, setup{cluster: true, drift: 100 * time.Millisecond})
			m := s.newMovers(5 * rounds())
			s.startLoad()
			s.start()
			s.until(s.keyhaul, "streams", func(l haul.LinkStatus) bool { return l.SnapshotDone })
			for pass := 0; s.counted < rounds(); pass++ {
				for i, slot := range s.byNode(m)[pass%3] {
					third := i%3 == 2
					s.whole.MoveSlotWhile(slot, s.nodes[pass%3], s.nodes[(pass+1)%3], func() {
						s.writeTo(m, slot)
						s.meets()
						if third {
							fault(s)
						}
					})
					if third {
						s.strike(func() {}) // it goes on
					}
				}
			}
			s.equal(1)
		})
	}
}

// movers are the slots that move, each with a tag of the load's keys.
type movers struct {
	slots []int
	tags  map[int]string
}

func (s *trial) newMovers(n int) *movers {
	m := &movers{tags: make(map[int]string)}
	for i := 0; len(m.slots) < n; i++ {
		tag := fmt.Sprintf("{%d}", i)
		slot := rt.Slot(tag)
		if m.tags[slot] != "" {
			continue
		}
		m.slots, m.tags[slot] = append(m.slots, slot), tag
		for k := range 6 {
			s.source.MustDo("SET", fmt.Sprintf("move:%s:%d", tag, k), k)
		}
	}
	return m
}

// writeTo writes what depends on its order, what needs several keys, and now and then something large, into a slot.
func (s *trial) writeTo(m *movers, slot int) {
	key := "move:" + m.tags[slot] + ":"
	s.source.MustDo("APPEND", key+"text", rand.IntN(1000))
	s.source.MustDo("SET", key+strconv.Itoa(rand.IntN(6)), "now")
	s.source.MustDo("MSET", key+"0", rand.IntN(1000), key+"3", rand.IntN(1000), key+"5", rand.IntN(1000))
	s.source.MustDo("RPUSH", key+"new"+strconv.Itoa(rand.IntN(1000)), "a")
	s.source.MustDo("EVAL", "redis.call('INCR', KEYS[1]) return redis.call('APPEND', KEYS[2], 'x')", 2, key+"count", key+"text")
	if rand.IntN(20) == 0 {
		s.source.MustDo("SET", key+"large", strings.Repeat("x", 1<<20+rand.IntN(1<<20)))
	}
}

// meets waits, while a slot is open, until keyhaul has met it; but not for long, as it may be over with it already.
func (s *trial) meets() {
	for range 10 {
		if _, r, err := s.look(s.keyhaul); err == nil && r.Target.FrozenSlots > 0 {
			return
		}
	}
}

func (s *trial) reshardClassic(m *movers) {
	groups := s.byNode(m)
	for pass := range 2 {
		for i := range groups {
			from, to := s.nodes[(i+pass)%3], s.nodes[(i+1-pass)%3]
			for _, slot := range groups[i] {
				s.whole.MoveSlotWhile(slot, from, to, func() {
					s.writeTo(m, slot)
					s.meets()
				})
			}
		}
	}
}

// byNode divides the slots that move by who has them now.
func (s *trial) byNode(m *movers) [][]int {
	groups := make([][]int, len(s.nodes))
	for _, slot := range m.slots {
		i := slices.Index(s.nodes, s.whole.NodeFor(slot))
		groups[i] = append(groups[i], slot)
	}
	return groups
}

func (s *trial) reshardAtomic(m *movers) {
	const atOnce = 50
	groups := s.byNode(m)
	for pass := range 2 {
		for i := range groups {
			from, to := s.nodes[(i+pass)%3], s.nodes[(i+1-pass)%3]
			for at := 0; at < len(groups[i]); at += atOnce {
				some := groups[i][at:min(at+atOnce, len(groups[i]))]
				var wg sync.WaitGroup
				wg.Go(func() {
					for _, slot := range some {
						s.writeTo(m, slot)
					}
				})
				s.whole.MigrateSlots(some, from, to)
				wg.Wait()
			}
		}
	}
}

// probes write a key of a slot that stays on each node, every 10 ms, and see when the target has it.
type probes struct {
	longest atomic.Int64    // from a write on the source until it is seen on the target
	answer  atomic.Int64    // of those, for one answer of a server: that is not keyhaul's doing
	ctx     context.Context //nolint:containedctx // of the goroutines
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func (s *trial) startProbes() *probes {
	p := newProbes()
	for _, node := range s.nodes {
		p.start(s, s.source, s.whole, node)
	}
	return p
}

func newProbes() *probes {
	p := &probes{}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// start writes a key on a source that a node of a cluster has, which may be that of the source, or of the target.
func (p *probes) start(s *trial, source *rt.Server, whole *rt.Cluster, node *rt.Server) {
	key := ""
	for n := 5000; key == ""; n++ { // no key of the load, nor of movers
		if tag := fmt.Sprintf("probe{%d}", n); whole.NodeFor(rt.Slot(tag)) == node {
			key = tag
		}
	}
	target := node
	if source == node && s.whole != nil {
		target = s.whole.NodeFor(rt.Slot(key))
	} else if source == node {
		target = s.nodes[0]
	}
	p.wg.Go(func() { p.run(p.ctx, s, source, target, key) })
}

// run writes one number after the other, each when the target has the one before.
func (p *probes) run(ctx context.Context, s *trial, primary, node *rt.Server, key string) {
	source, err1 := net.Dial("tcp", primary.Addr)
	target, err2 := net.Dial("tcp", node.Addr)
	if err1 != nil || err2 != nil {
		s.t.Errorf("probe: %v, %v", err1, err2)
		return
	}
	defer source.Close()
	defer target.Close()
	from, to := resp.NewConn(source), resp.NewConn(target)
	next, again := time.NewTicker(10*time.Millisecond), time.NewTicker(time.Millisecond)
	defer next.Stop()
	defer again.Stop()
	for n := 1; ctx.Err() == nil; n++ {
		want := strconv.Itoa(n)
		began := time.Now()
		if _, err := from.Do(context.Background(), patience, "SET", key, want); err != nil {
			s.t.Errorf("probe: %v", err)
			return
		}
		raise(&p.answer, time.Since(began))
		for {
			asked := time.Now()
			r, err := to.Do(context.Background(), patience, "GET", key)
			raise(&p.answer, time.Since(asked))
			if err != nil || time.Since(began) > patience {
				s.t.Errorf("probe %s: %q instead of %s: %v", key, r.Text, want, err)
				return
			}
			if r.Text == want {
				break
			}
			<-again.C
		}
		raise(&p.longest, time.Since(began))
		<-next.C
	}
}

func raise(to *atomic.Int64, d time.Duration) {
	for old := to.Load(); int64(d) > old && !to.CompareAndSwap(old, int64(d)); old = to.Load() {
	}
}

// stop returns the longest stall, and the longest time that a server took for one answer.
func (p *probes) stop() (longest, answer time.Duration) {
	p.cancel()
	p.wg.Wait()
	return time.Duration(p.longest.Load()), time.Duration(p.answer.Load())
}

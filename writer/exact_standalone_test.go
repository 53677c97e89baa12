package writer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

const wholeFence = "keyhaul:test:fence"

// TestOneTransactionInFlight: the commands of a second transaction are sent while the first is executed, but not its
// EXEC; and when the first is refused, neither fence is written, and both are sent again in order.
func TestOneTransactionInFlight(t *testing.T) {
	fence := []string{"SET", wholeFence, rt.Any}
	for _, c := range []struct {
		name, queued, exec string
		refused            bool
	}{
		{"applied", "+QUEUED", "*2\r\n:1\r\n+OK", false},
		{"refused when it is queued", "-OOM command not allowed when used memory > 'maxmemory'.", "-EXECABORT Transaction discarded because of previous errors.", true},
		{"refused when it is executed", "+QUEUED", "-EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to write.", true},
		{"the script of another client", "+QUEUED", "-BUSY Redis is busy running a script.", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second, third := make(chan struct{}), make(chan struct{}), make(chan struct{})
			s := script(
				exactLogin(7),
				expectAll("MULTI", "INCR a"), rt.Expect(fence...), rt.Expect("EXEC"), then(first),
				expectAll("MULTI", "INCR b"), then(second), expectAll("INCR c"), then(third),
				replyAll("+OK", c.queued, "+QUEUED", c.exec),
			)
			if c.refused {
				s = script(
					s, rt.Expect("DISCARD"), replyAll("+OK", "+QUEUED", "+QUEUED", "+OK"),
					expectAll("MULTI", "INCR a", "INCR b", "INCR c"), rt.Expect(fence...), rt.Expect("EXEC"),
					replyAll("+OK", "+QUEUED", "+QUEUED", "+QUEUED", "+QUEUED", "*4\r\n:1\r\n:1\r\n:1\r\n+OK"),
				)
			} else {
				s = script(
					s, rt.Expect(fence...), rt.Expect("EXEC"),
					replyAll("+OK", "+QUEUED", "+QUEUED", "+QUEUED", "*3\r\n:1\r\n:1\r\n+OK"),
				)
			}
			scripts := []rt.Script{s}
			if c.refused {
				scripts = append(scripts, fencesAt(0, false))
			}
			p := rt.NewPeer(t, scripts...)
			r := exactPeerRig(t, p, false)
			r.do("INCR a")
			reached(t, p, first)
			r.do("INCR b")
			reached(t, p, second)
			if at := r.ch.Watermark.Stream().Offset; at > 0 {
				t.Errorf("the watermark is at %d before anything is answered", at)
			}
			r.do("INCR c")
			reached(t, p, third)
			p.Wait()
			r.drained()
		})
	}
}

// TestRefusedTransactionMovesNothing: while the target has no memory nothing of a transaction is applied, also not what
// needs none, and the fence stays; behind it everything has arrived once.
func TestRefusedTransactionMovesNothing(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	g := target{dst.Addr, func(_ string, args ...any) resp.Reply { return dst.MustDo(args...) }, []*rt.Server{dst}}
	r := exactRig(t, dst.Addr, nil)
	c := &counter{keys: 20}
	for round := range 4 {
		for range 20 {
			c.send(r)
		}
		r.drained()
		b := r.batch(false)
		b.words("SET victim 1")
		b.send()
		r.drained()
		before := fenceOf(t, g, wholeFence)
		if before != r.offset {
			t.Errorf("the fence is at %d, want %d", before, r.offset)
		}
		dst.MustDo("CONFIG", "SET", "maxmemory", "1")
		b = r.batch(false)
		b.words("DEL victim") // needs no memory
		b.words(fmt.Sprintf("INCR round:%d", round))
		b.send()
		r.waitsFor("OOM")
		for range 20 {
			c.send(r)
		}
		time.Sleep(300 * time.Millisecond) // some tries
		want(t, dst, "EXISTS victim", "1")
		if now := fenceOf(t, g, wholeFence); now != before {
			t.Errorf("the fence has moved from %d to %d while everything was refused", before, now)
		}
		dst.MustDo("CONFIG", "SET", "maxmemory", "0")
		r.drained()
		want(t, dst, "EXISTS victim", "0")
		want(t, dst, fmt.Sprintf("GET round:%d", round), "1")
	}
	c.check(t, g)
	r.waitsNoMore()
	if at := fenceOf(t, g, wholeFence); at != r.offset {
		t.Errorf("the fence is at %d, want %d", at, r.offset)
	}
}

// TestMemoryComesAndGoes: transactions are refused and applied in turn while more pour in.
func TestMemoryComesAndGoes(t *testing.T) {
	for _, mode := range []struct {
		name string
		make func(testing.TB) target
	}{{"standalone", standaloneTarget}, {"cluster", clusterTarget}} {
		t.Run(mode.name, func(t *testing.T) {
			g := mode.make(t)
			r := exactRig(t, g.addr, nil)
			c := &counter{keys: 60}
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
						c.send(r)
						time.Sleep(time.Millisecond)
					}
				}
			}()
			for i := range 25 {
				node := g.nodes[i%len(g.nodes)]
				node.MustDo("CONFIG", "SET", "maxmemory", "1")
				time.Sleep(time.Duration(1+i%7*5) * time.Millisecond)
				node.MustDo("CONFIG", "SET", "maxmemory", "0")
				time.Sleep(time.Duration(1+i%5*20) * time.Millisecond)
			}
			close(stop)
			<-done
			r.drained()
			if !strings.Contains(r.log.String(), "OOM") {
				t.Error("nothing was refused")
			}
			c.check(t, g)
		})
	}
}

// TestAnotherServerThanWasRead: a target that was restarted or failed over since its fences were read is not written to.
func TestAnotherServerThanWasRead(t *testing.T) {
	for name, make := range map[string]func(testing.TB) target{"standalone": standaloneTarget, "cluster": clusterTarget} {
		t.Run(name, func(t *testing.T) {
			g := make(t)
			dialer := topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{g.addr}})
			node := inspect(t, dialer)
			store := exactStore(dialer, node.Cluster)
			t.Cleanup(store.Close)
			r := newRigFor(t, dialer, node, func(c *Config) {
				exactly(store, node.Cluster)(c)
				c.RunIDs = []string{"another"}
			})
			if err := r.end(); !errors.Is(err, ErrRewind) {
				t.Errorf("it ends with %v", err)
			}
		})
	}
}

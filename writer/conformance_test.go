package writer

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// target is what the conformance suite writes to.
type target struct {
	addr  string
	do    func(key string, args ...any) resp.Reply
	nodes []*rt.Server
}

func standaloneTarget(t testing.TB) target {
	return targetOf(rt.Start(t.(rt.TB), rt.Options{}))
}

func targetOf(s *rt.Server) target {
	return target{s.Addr, func(_ string, args ...any) resp.Reply { return s.MustDo(args...) }, []*rt.Server{s}}
}

func clusterTarget(t testing.TB) target {
	c := rt.StartCluster(t.(rt.TB), rt.ClusterOptions{})
	return target{c.Nodes[0].Addr, c.MustDo, c.Nodes}
}

func (g target) flush() {
	for _, n := range g.nodes {
		n.MustDo("FLUSHALL")
	}
}

// TestConformance holds every writer to the contract of haul.Writer.
func TestConformance(t *testing.T) {
	for _, mode := range []struct {
		name string
		make func(testing.TB) target
	}{{"standalone", standaloneTarget}, {"cluster", clusterTarget}} {
		t.Run(mode.name, func(t *testing.T) {
			g := mode.make(t)
			for _, c := range []struct {
				name string
				test func(*testing.T, target)
			}{
				{"everything arrives in order", conformsOrder},
				{"the watermark waits for the target", conformsWatermark},
				{"closing the channel ends it", conformsClose},
				{"the end of ctx ends it at once", conformsCancel},
				{"ctx may end while it connects", conformsCancelConnecting},
				{"dropped entries complete", conformsDropped},
				{"status", conformsStatus},
			} {
				t.Run(c.name, func(t *testing.T) {
					g.flush()
					c.test(t, g)
				})
			}
		})
	}
}

func conformsOrder(t *testing.T, g target) {
	r := newRig(t, g.addr, nil)
	const keys, rounds = 50, 40
	g.do("seed", "SET", "seed", "value of the seed")
	dump := []byte(g.do("seed", "DUMP", "seed").Text)
	snap := r.batch(true)
	for k := range keys {
		snap.key(0, fmt.Sprintf("snap:%d", k), dump, nil)
	}
	snap.send()
	r.drained()
	for round := range rounds {
		b := r.batch(false)
		for k := range keys {
			b.words(fmt.Sprintf("RPUSH list:%d %d", k, round))
			if k%5 == 0 {
				b.tx(0, fmt.Sprintf("APPEND text:{%d} %d,", k, round), fmt.Sprintf("INCR count:{%d}", k))
			}
		}
		b.send()
	}
	r.drained()
	if at := r.ch.Watermark.Stream(); at.Offset != r.offset || at.ReplID != "test" {
		t.Errorf("the watermark is at %v, want %d", at, r.offset)
	}
	list, text := "", ""
	for i := range rounds {
		list, text = list+fmt.Sprintf("%d ", i), text+fmt.Sprintf("%d,", i)
	}
	for k := range keys {
		key := fmt.Sprintf("list:%d", k)
		if got := answerOf(g.do(key, "LRANGE", key, 0, -1)); got != strings.TrimSpace(list) {
			t.Errorf("%s: %s", key, got)
		}
		if key = fmt.Sprintf("snap:%d", k); g.do(key, "GET", key).Text != "value of the seed" {
			t.Errorf("%s is missing", key)
		}
		if k%5 == 0 {
			key = fmt.Sprintf("text:{%d}", k)
			if got := g.do(key, "GET", key).Text; got != text {
				t.Errorf("%s: %q", key, got)
			}
		}
	}
	if err := r.finish(); err != nil {
		t.Error(err)
	}
}

func conformsWatermark(t *testing.T, g target) {
	r := newRig(t, g.addr, nil)
	r.do("SET before 1")
	r.drained()
	before := r.ch.Watermark.Stream().Offset
	for _, n := range g.nodes {
		n.Freeze()
	}
	r.do(lines("SET key:# #", 0, 100)...)
	rt.Eventually(t, limit, func() error {
		if n := inFlight(r); n != 100 {
			return fmt.Errorf("%d entries are in flight", n)
		}
		return nil
	})
	if at := r.ch.Watermark.Stream().Offset; at != before {
		t.Errorf("the watermark is at %d before the target has answered, want %d", at, before)
	}
	for _, n := range g.nodes {
		n.Thaw()
	}
	r.drained()
	if at := r.ch.Watermark.Stream().Offset; at != r.offset {
		t.Errorf("the watermark is at %d, want %d", at, r.offset)
	}
}

func inFlight(r *rig) (n int64) {
	for _, l := range r.w.Status().Lanes {
		n += l.Entries
	}
	return n
}

func conformsClose(t *testing.T, g target) {
	r := newRig(t, g.addr, nil)
	for i := range 20 {
		r.do(lines(fmt.Sprintf("SET close:%d:# 1", i), 0, 100)...)
	}
	if err := r.finish(); err != nil {
		t.Fatal(err)
	}
	if at := r.ch.Watermark.Stream().Offset; at != r.offset {
		t.Errorf("it ended with the watermark at %d, want %d", at, r.offset)
	}
}

func conformsCancel(t *testing.T, g target) {
	before := runtime.NumGoroutine()
	r := newRig(t, g.addr, nil)
	g.nodes[0].Freeze()
	defer g.nodes[0].Thaw()
	r.do(lines("SET key:# #", 0, 100)...)
	rt.Eventually(t, limit, func() error {
		if inFlight(r) == 0 {
			return errors.New("nothing is in flight")
		}
		return nil
	})
	ended(t, r, before)
}

// ended cancels a rig and checks that it returns the cause at once and leaves nothing behind.
func ended(t *testing.T, r *rig, before int) {
	t.Helper()
	cause := errors.New("enough")
	from := time.Now()
	r.cancel(cause)
	err := r.end()
	if d := time.Since(from); d > 2*time.Second {
		t.Errorf("it took %v to end", d)
	}
	if !errors.Is(err, cause) {
		t.Errorf("it returns %v, want the cause", err)
	}
	rt.Eventually(t, limit, func() error {
		if n := runtime.NumGoroutine(); n > before {
			return fmt.Errorf("%d goroutines, before there were %d", n, before)
		}
		return nil
	})
}

func conformsCancelConnecting(t *testing.T, g target) {
	node := newRig(t, g.addr, nil)
	if err := node.finish(); err != nil {
		t.Fatal(err)
	}
	info := inspect(t, node.dialer)
	for _, n := range g.nodes {
		n.Freeze()
		defer n.Thaw()
	}
	before := runtime.NumGoroutine()
	r := newRigFor(t, node.dialer, info, nil)
	for s := r.w.Status(); s.Ready; s = r.w.Status() {
		t.Fatalf("it is ready: %+v", s)
	}
	ended(t, r, before)
}

func conformsDropped(t *testing.T, g target) {
	r := newRig(t, g.addr, func(c *Config) { c.Filters = []haul.Filter{dropper{}} })
	b := r.batch(false)
	b.words("SET dropped 1")
	b.words("SET dropped 2")
	b.send()
	b = r.batch(false)
	b.words("SET dropped 3")
	b.words("SET kept 1")
	b.words("SET dropped 4")
	b.send()
	r.drained()
	r.counted("dropped_sentinel-hello", 4)
	if got := answerOf(g.do("kept", "GET", "kept")) + answerOf(g.do("dropped", "GET", "dropped")); got != "1nil" {
		t.Errorf("kept and dropped are %s", got)
	}
}

// dropper drops what concerns the key dropped.
type dropper struct{}

func (dropper) Apply(b *haul.Batch) {
	for i := range b.Entries {
		if string(b.Arg(&b.Commands[b.Entries[i].First], 1)) == "dropped" {
			b.Entries[i].Drop = haul.DropSentinel
		}
	}
}

func conformsStatus(t *testing.T, g target) {
	r := newRig(t, g.addr, nil)
	r.do(lines("SET key:# #", 0, 1000)...)
	r.drained()
	s := r.w.Status()
	if !s.Ready || s.Resends != 0 || s.Target != "redis://"+g.addr || len(s.Lanes) < len(g.nodes) {
		t.Errorf("status: %+v", s)
	}
	var written int64
	for _, l := range s.Lanes {
		if l.State != "ready" || l.Reconnects != 0 || l.Redirects != 0 || l.LastReply < 0 || l.LastReply > 60 {
			t.Errorf("lane: %+v", l)
		}
		written += l.Written
	}
	if written < 1000*30 {
		t.Errorf("%d bytes were written", written)
	}
	rt.Eventually(t, limit, func() error { // a moment after the watermark
		for _, l := range r.w.Status().Lanes {
			if l.Entries != 0 || l.Bytes != 0 {
				return fmt.Errorf("in flight: %+v", l)
			}
		}
		return nil
	})
}

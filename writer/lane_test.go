package writer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

const mayBeTwice = "may be applied twice"

// feedSets sends batches of idempotent writes until stop is closed, and returns how many rounds there were.
func feedSets(r *rig, keys int, stop <-chan struct{}) <-chan int {
	done := make(chan int, 1)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			n++
			b := r.batch(false)
			for k := range keys {
				b.words(fmt.Sprintf("SET key:%d %d", k, n))
			}
			b.send()
		}
	}()
	return done
}

// stormy feeds writes while fault is called some times, then compares.
func stormy(t *testing.T, g target, r *rig, times int, fault func(i int)) {
	t.Helper()
	const keys = 100
	stop := make(chan struct{})
	done := feedSets(r, keys, stop)
	for i := range times {
		at := r.ch.Watermark.Progress().Entries
		fault(i)
		rt.Eventually(t, limit, func() error {
			if r.over() {
				t.Fatalf("the writer has ended: %v", r.err)
			}
			if now := r.ch.Watermark.Progress().Entries; now < at+20*keys {
				return fmt.Errorf("%d entries since fault %d", now-at, i)
			}
			return nil
		})
	}
	close(stop)
	n := <-done
	r.drained()
	for k := range keys {
		key := fmt.Sprintf("key:%d", k)
		if got := answerOf(g.do(key, "GET", key)); got != fmt.Sprint(n) {
			t.Errorf("%s is %s, want %d", key, got, n)
		}
	}
	r.waitsNoMore()
}

func TestLostConnections(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	g := target{dst.Addr, func(_ string, args ...any) resp.Reply { return dst.MustDo(args...) }, []*rt.Server{dst}}
	proxy := rt.NewProxy(t, dst.Addr)
	for _, c := range []struct {
		name  string
		fault func(i int)
	}{
		{"CLIENT KILL", func(int) { dst.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") }},
		{"cut", func(int) { proxy.Cut() }},
		{"cut in a command", func(i int) { proxy.CutAfter(1000+37*i, rt.ToTarget) }},
		{"cut in a reply", func(i int) { proxy.CutAfter(1000+13*i, rt.ToClient) }},
		{"restart", func(int) {
			proxy.Cut()
			proxy.Refuse(true)
			time.AfterFunc(50*time.Millisecond, func() { proxy.Refuse(false) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g.flush()
			r := newRig(t, proxy.Addr(), nil)
			stormy(t, g, r, 8, c.fault)
			if s := r.w.Status(); s.Resends == 0 || !strings.Contains(r.log.String(), mayBeTwice) || s.Lanes[0].Reconnects == 0 {
				t.Errorf("it does not tell of resends: %+v", s)
			}
		})
	}
}

// TestIdleLaneComesBack: a lane that the target closes while idle is up again before it is needed, and nothing is said
// to have been sent twice.
func TestIdleLaneComesBack(t *testing.T) {
	for _, mode := range []struct {
		name string
		make func(testing.TB) target
	}{{"standalone", standaloneTarget}, {"cluster", clusterTarget}} {
		t.Run(mode.name, func(t *testing.T) {
			g := mode.make(t)
			r := newRig(t, g.addr, nil)
			for range 5 {
				r.do(lines("INCR key:#", 0, 30)...)
				r.drained()
				for _, n := range g.nodes {
					n.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
				}
				rt.Eventually(t, limit, func() error { // without an entry
					for _, n := range g.nodes {
						if got := strings.Count(n.MustDo("CLIENT", "LIST").Text, "name=keyhaul-test"); got != len(r.w.Status().Lanes)/len(g.nodes) {
							return fmt.Errorf("%d lanes to %s", got, n.Addr)
						}
					}
					return nil
				})
			}
			for i := range 30 {
				key := fmt.Sprintf("key:%d", i)
				if got := answerOf(g.do(key, "GET", key)); got != "5" {
					t.Errorf("%s is %s", key, got)
				}
			}
			if s := r.w.Status(); s.Resends != 0 || strings.Contains(r.log.String(), mayBeTwice) {
				t.Errorf("it tells of resends: %+v", s)
			}
			r.waitsNoMore()
		})
	}
}

// TestFrozenTarget: a server that does not answer at all is waited for.
func TestFrozenTarget(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	r := newRig(t, dst.Addr, func(c *Config) { c.ReplyTimeout = 200 * time.Millisecond })
	r.do("INCR n")
	r.drained()
	dst.Freeze()
	r.do("INCR n")
	r.waitsFor("no reply for")
	dst.Thaw()
	r.drained()
	want(t, dst, "GET n", "2")
	if s := r.w.Status(); s.Resends != 0 || s.Lanes[0].Reconnects != 0 {
		t.Errorf("the lane was closed: %+v", s)
	}
	r.waitsNoMore()
}

// TestFrozenTargetWithTLS: nor can it shake hands.
func TestFrozenTargetWithTLS(t *testing.T) {
	t.Parallel()
	dst := rt.Start(t, rt.Options{TLS: true})
	ep := topology.Endpoint{
		Scheme: topology.SchemeTLS, Addrs: []string{dst.Addr}, TLS: topology.TLSOptions{CAFile: dst.TLS.CA}, DialTimeout: 200 * time.Millisecond,
	}
	r := newRigAt(t, ep, func(c *Config) { c.ReplyTimeout = 200 * time.Millisecond })
	dst.Freeze()
	r.do("INCR n")
	w := r.waitsFor("no reply for")
	rt.Eventually(t, limit, func() error { // some probes later
		if d := time.Since(w.Since); d < time.Second {
			return fmt.Errorf("it has been frozen for %v", d)
		}
		return nil
	})
	dst.Thaw()
	r.drained()
	want(t, dst, "GET n", "1")
	if s := r.w.Status(); s.Resends != 0 || s.Lanes[0].Reconnects != 0 {
		t.Errorf("the lane was closed: %+v", s)
	}
}

// TestRevokedLogin: a lane that is not logged in any more logs in again.
func TestRevokedLogin(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	node := inspect(t, topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{dst.Addr}}))
	p := rt.NewPeer(t,
		append(login(), rt.Expect("SET", "a", "1"), rt.Reply("-NOAUTH Authentication required."), rt.ExpectEOF()),
		append(login(), rt.Expect("SET", "a", "1"), rt.Reply("+OK")))
	r := newRigFor(t, topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{p.Addr()}}), node,
		func(c *Config) { c.SnapshotLanes = 1 })
	r.do("SET a 1")
	p.Wait()
	r.drained()
}

// TestDeadPath: a connection that loses what is sent is closed although its server is well.
func TestDeadPath(t *testing.T) {
	for _, keepalive := range []bool{true, false} {
		for _, c := range []struct {
			name  string
			fault func(*rt.Proxy)
		}{{"blackhole", (*rt.Proxy).Blackhole}, {"stall", (*rt.Proxy).Stall}} {
			t.Run(fmt.Sprintf("%s keepalive %v", c.name, keepalive), func(t *testing.T) {
				dst := rt.Start(t, rt.Options{})
				proxy := rt.NewProxy(t, dst.Addr)
				ep := topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{proxy.Addr()}}
				r := newRigAt(t, ep, func(cfg *Config) { cfg.ReplyTimeout = 500 * time.Millisecond; cfg.Keepalive = keepalive })
				r.do("SET a 1")
				r.drained()
				r.dialer.Endpoint.AddressMap = map[string]string{proxy.Addr(): dst.Addr} // the way of new connections
				c.fault(proxy)
				big := strings.Repeat("x", 1<<16)
				for i := range 160 { // 10 MB, more than the socket buffers take
					b := r.batch(false)
					b.do(0, "SET", fmt.Sprintf("k:%d", i), big)
					b.send()
				}
				r.drained()
				want(t, dst, "DBSIZE", "161")
				if s := r.w.Status(); s.Lanes[0].Reconnects == 0 || !strings.Contains(r.log.String(), mayBeTwice) {
					t.Errorf("%+v", s)
				}
				r.waitsNoMore()
			})
		}
	}
}

// TestSlowBigEntry: while a long value is on its way no reply is due.
func TestSlowBigEntry(t *testing.T) {
	t.Parallel()
	dst := rt.Start(t, rt.Options{})
	proxy := rt.NewProxy(t, dst.Addr)
	r := newRig(t, proxy.Addr(), func(c *Config) { c.ReplyTimeout = 3 * time.Second })
	value := randomText(24 << 20)
	proxy.Limit(4 << 20) // six seconds
	b := r.batch(false)
	from, off, size, spans := bigCommand("SET", "k", value)
	b.big(from, off, size, spans, "SET")
	b.send()
	r.drained()
	want(t, dst, "STRLEN k", fmt.Sprint(len(value)))
	if s := r.w.Status(); s.Resends != 0 {
		t.Errorf("the lane was closed: %+v", s)
	}
}

// TestLongReplies: values that commands return pass by without being kept.
func TestLongReplies(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	r := newRig(t, dst.Addr, nil)
	value := strings.Repeat("+OK\r\n-ERR\r\n$5\r\n", 10<<20/15)
	const n = 10
	for i := range n {
		dst.MustDo("SET", fmt.Sprintf("long:%d", i), value)
		dst.MustDo("RPUSH", "list", value)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b := r.batch(false)
	for i := range n {
		b.words(fmt.Sprintf("GETDEL long:%d", i))
		b.words("INCR n")
		b.words("LPOP list")
		b.words("SETRANGE n 0 " + fmt.Sprint(i))
	}
	b.send()
	r.drained()
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
		t.Errorf("%d MB were allocated for 200 MB of replies", grown>>20)
	}
	want(t, dst, "GET n", "9")
	want(t, dst, "DBSIZE", "1")
	dst.MustDo("SET", "long", value)
	b = r.batch(false)
	b.tx(0, "GETDEL long", "INCR n")
	b.tx(0, "INCR n")
	b.send()
	r.drained()
	want(t, dst, "GET n", "11")
}

// TestUnsolicitedReply: bytes that nothing was sent for end the lane, and never count as a reply.
func TestUnsolicitedReply(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	node := inspect(t, topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{dst.Addr}}))
	for _, raw := range []string{"+OK\r\n", ">2\r\n+invalidate\r\n*0\r\n", "rubbish\r\n", "$", strings.Repeat("$", 20000)} {
		t.Run(fmt.Sprintf("%.10q", raw), func(t *testing.T) {
			first := append(login(), rt.Send(raw))
			if raw == "$" {
				first = append(first, rt.Hangup())
			} else {
				first = append(first, rt.ExpectEOF())
			}
			p := rt.NewPeer(t, first, append(login(), rt.Expect("SET", "a", "1"), rt.Reply("+OK")))
			r := newRigFor(t, topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{p.Addr()}}), node,
				func(c *Config) { c.SnapshotLanes = 1 })
			rt.Eventually(t, limit, func() error {
				if r.w.Status().Lanes == nil || r.w.Status().Lanes[0].Reconnects != 1 {
					return errors.New("the lane was not replaced")
				}
				return nil
			})
			r.do("SET a 1")
			p.Wait()
			r.drained()
		})
	}
}

// TestRefusedSelect: a SELECT that fails ends the lane, and what was in flight with it is sent again.
func TestRefusedSelect(t *testing.T) {
	t.Parallel()
	dst := rt.Start(t, rt.Options{Users: []string{"writer on >secret ~* &* +@all"}})
	ep := topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{dst.Addr}, Username: "writer", Password: "secret"}
	r := newRigAt(t, ep, nil)
	b := r.batch(false)
	b.do(1, "SET", "a", "1")
	b.do(0, "SET", "a", "1")
	b.send()
	r.drained()
	dst.MustDo("ACL", "SETUSER", "writer", "-select")
	b = r.batch(false)
	b.do(1, "SET", "a", "2")
	b.send()
	rt.Eventually(t, limit, func() error {
		if n := r.w.Status().Lanes[0].Reconnects; n < 3 {
			return fmt.Errorf("%d reconnects", n)
		}
		return nil
	})
	from := r.w.Status().Lanes[0].Reconnects
	time.Sleep(time.Second) // no condition: that it does not hurry is what is looked at
	if n := r.w.Status().Lanes[0].Reconnects - from; n > 8 {
		t.Errorf("%d reconnects in a second", n)
	}
	dst.MustDo("ACL", "SETUSER", "writer", "+select")
	r.drained()
	dst.MustDo("SELECT", 1)
	want(t, dst, "GET a", "2")
}

func TestReplyLength(t *testing.T) {
	long := "$" + fmt.Sprint(replyBuffer) + "\r\n"
	for _, c := range []struct {
		in   string
		n    int
		skip int64
		err  bool
	}{
		{"+OK\r\n+", 5, 0, false},
		{":1\r\n", 4, 0, false},
		{"$2\r\nab\r\n", 8, 0, false},
		{"$-1\r\n", 5, 0, false},
		{"*2\r\n:1\r\n$1\r\na\r\n", 15, 0, false},
		{"-ERR x\r\n", 8, 0, false},
		{"+OK", 0, 0, true},
		{"$5\r\nab", 0, 0, true},
		{long + strings.Repeat("x", replyBuffer/2), len(long), replyBuffer + 2, false},
		{strings.Repeat("$", replyBuffer), 0, 0, true},
		{"?\r\n", 0, 0, true},
	} {
		n, skip, err := replyLength([]byte(c.in))
		if (err != nil) != c.err || err == nil && (n != c.n || skip != c.skip) {
			t.Errorf("%.20q: %d, %d, %v; want %d, %d, error %v", c.in, n, skip, err, c.n, c.skip, c.err)
		}
	}
}

func TestOutboxKeepsOrder(t *testing.T) {
	var got bytes.Buffer
	a, b := net.Pipe()
	done := make(chan struct{})
	go func() { _, _ = io.Copy(&got, b); close(done) }()
	o := &outbox{conn: a, push: func([]op) {}}
	var wantText strings.Builder
	for i := range 200 {
		p := []byte(strings.Repeat(string(rune('a'+i%26)), 1+(i*977)%(2*refBytes)))
		o.put(p)
		wantText.Write(p)
		if i%17 == 0 {
			if o.size == 0 {
				t.Fatal("no size")
			}
			if err := o.flush(); err != nil {
				t.Fatal(err)
			}
		}
		if i%50 == 0 {
			if err := o.stream(strings.NewReader(string(p)), nil); err != nil {
				t.Fatal(err)
			}
			wantText.Write(p)
		}
	}
	if err := o.flush(); err != nil {
		t.Fatal(err)
	}
	_ = a.Close()
	<-done
	if got.String() != wantText.String() {
		t.Errorf("%d bytes differ from %d", got.Len(), wantText.Len())
	}
}

package writer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// large returns a server with values of every kind of some 100 KB, and their names.
func large(t *testing.T) (*rt.Server, []string) {
	t.Helper()
	s := rt.Start(t, rt.Options{})
	for i := range 2000 {
		text := fmt.Sprintf("%d:%x", i, randomText(25))
		s.MustDo("RPUSH", "list", text)
		s.MustDo("SADD", "set", text)
		s.MustDo("SADD", "intset", i*100_000)
		s.MustDo("ZADD", "zset", fmt.Sprint(float64(i)/3), text)
		s.MustDo("HSET", "hash", text, i)
		s.MustDo("XADD", "stream", fmt.Sprintf("%d-%d", 1+i/10, i%10), "f", text, "g", i)
	}
	s.MustDo("ZADD", "zset", "inf", "most", "-inf", "least")
	s.MustDo("XGROUP", "CREATE", "stream", "group", "5-0")
	s.MustDo("XREADGROUP", "GROUP", "group", "reader", "COUNT", "300", "STREAMS", "stream", ">")
	s.MustDo("XDEL", "stream", "200-9")
	return s, []string{"list", "set", "intset", "zset", "hash", "stream"}
}

// building has the writer build values of a kilobyte and more.
func building(cluster bool, change func(*Config)) func(*Config) {
	return func(c *Config) {
		c.Store, c.BigValue = exactStore(c.Dialer, cluster), 1<<10
		if change != nil {
			change(c)
		}
	}
}

func noParts(t *testing.T, g target) {
	t.Helper()
	for _, s := range g.nodes {
		for _, k := range s.MustDo("KEYS", "keyhaul:*part*").Array {
			t.Errorf("%s is left on %s", k.Text, s.Addr)
		}
	}
}

// TestLargeValues: values are built in pieces, take the place of what was there, and nothing else is left.
func TestLargeValues(t *testing.T) {
	src, names := large(t)
	for mode, make := range map[string]func(testing.TB) target{"standalone": standaloneTarget, "cluster": clusterTarget} {
		t.Run(mode, func(t *testing.T) {
			g := make(t)
			for _, big := range []bool{false, true} {
				for _, there := range []string{"", "string", "list"} {
					t.Run(fmt.Sprintf("read from the spool %v, over %q", big, there), func(t *testing.T) {
						g.flush()
						for _, name := range names {
							switch there {
							case "string":
								g.do(name, "SET", name, "other", "EX", "1000")
							case "list":
								g.do(name, "RPUSH", name, "other")
							}
						}
						r := newRig(t, g.addr, building(mode == "cluster", nil))
						b := r.batch(true)
						b.key(0, "first", dump(t, src, "list"), nil)
						for _, name := range names {
							if big {
								b.bigKey(name, dump(t, src, name), nil)
							} else {
								b.key(0, name, dump(t, src, name), nil)
							}
						}
						b.key(0, "last", dump(t, src, "set"), nil)
						b.send()
						r.drained()
						same(t, src, g, names)
						for _, name := range names {
							if n := g.do(name, "PTTL", name).Int; n != -1 {
								t.Errorf("%s has a deadline in %d ms", name, n)
							}
						}
						noParts(t, g)
					})
				}
			}
		})
	}
}

// TestLargeValuesForms: no command is large, deadlines are set, and what is there stays where it is to be skipped.
func TestLargeValuesForms(t *testing.T) {
	src, names := large(t)
	dst := rt.Start(t, rt.Options{})
	g := targetOf(dst)
	far := time.Now().Add(time.Hour).UnixMilli()
	for _, existing := range []Existing{ExistingReplace, ExistingSkip} {
		for deadline, at := range map[string]int64{"far": far, "past": 1_000_000_000_000} {
			t.Run(string(existing)+" "+deadline, func(t *testing.T) {
				dst.MustDo("FLUSHALL")
				dst.MustDo("SET", "list", "was there")
				r := newRig(t, dst.Addr, building(false, func(c *Config) { c.Existing = existing }))
				stop := wire(t, dst)
				b := r.batch(true)
				for _, name := range names {
					b.key(0, name, dump(t, src, name), func(k *haul.Key) { k.Has |= haul.HasExpire; k.ExpireAt = at })
				}
				b.send()
				r.drained()
				for _, line := range stop() {
					if len(line) > 2*buildBytes || strings.HasPrefix(line, "RESTORE ") {
						t.Errorf("sent %.100s of %d bytes", line, len(line))
					}
				}
				for _, name := range names {
					want, deadline := int64(1), at
					switch {
					case existing == ExistingSkip && name == "list":
						deadline = -1
					case at != far:
						want, deadline = 0, -2
					}
					if n := dst.MustDo("EXISTS", name).Int; n != want {
						t.Errorf("%s: EXISTS %d", name, n)
					}
					if n := dst.MustDo("PEXPIRETIME", name).Int; n != deadline {
						t.Errorf("%s expires at %d, want %d", name, n, deadline)
					}
				}
				if existing == ExistingSkip {
					want(t, dst, "GET list", "was there")
				}
				if existing == ExistingSkip && at == far {
					r.counted("existing_skipped", 1)
				}
				noParts(t, g)
			})
		}
	}
}

// TestLargeValueIsCut: a connection that is lost anywhere while a value is built costs nothing.
func TestLargeValueIsCut(t *testing.T) {
	src, names := large(t)
	dst := rt.Start(t, rt.Options{})
	p := rt.NewProxy(t, dst.Addr)
	g := targetOf(dst)
	for _, after := range []int{100, 70_000, 150_000, 250_000, 400_000} {
		for _, dir := range []rt.Direction{rt.ToTarget, rt.ToClient} {
			t.Run(fmt.Sprintf("%d %v", after, dir), func(t *testing.T) {
				dst.MustDo("FLUSHALL")
				r := newRigAt(t, topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{p.Addr()}}, building(false, nil))
				if dir == rt.ToClient {
					after /= 1000 // replies are short
				}
				p.CutAfter(after, dir)
				b := r.batch(true)
				for i, name := range names {
					if i%2 == 0 {
						b.bigKey(name, dump(t, src, name), nil)
					} else {
						b.key(0, name, dump(t, src, name), nil)
					}
				}
				b.send()
				r.drained()
				same(t, src, g, names)
				noParts(t, g)
			})
		}
	}
}

// TestLargeValueIsRefused: a target that has no memory left is waited for, and the value is built anew.
func TestLargeValueIsRefused(t *testing.T) {
	src, names := large(t)
	src.MustDo("SET", "string", strings.Repeat("0123456789", 50_000))
	for _, existing := range []Existing{ExistingReplace, ExistingSkip} {
		t.Run(string(existing), func(t *testing.T) {
			dst := rt.Start(t, rt.Options{})
			used := dst.Number("memory", "used_memory")
			dst.MustDo("CONFIG", "SET", "maxmemory", used+400_000)
			g := targetOf(dst)
			r := newRig(t, dst.Addr, building(false, func(c *Config) { c.Existing, c.SnapshotLanes = existing, 1 }))
			b := r.batch(true)
			for _, name := range names {
				b.bigKey(name, dump(t, src, name), nil)
				b.bigKey("string", dump(t, src, "string"), nil)
			}
			b.send()
			r.waitsFor("OOM")
			for _, name := range names { // a part would pass for what was there
				if dst.MustDo("EXISTS", name).Int == 1 {
					same(t, src, g, []string{name})
				}
			}
			dst.MustDo("CONFIG", "SET", "maxmemory", 0)
			r.drained()
			same(t, src, g, append(names, "string"))
			noParts(t, g)
		})
	}
}

// TestLargeValueExpiresAsItIsBuilt: when the deadlines of all fields of a hash have passed on the target, nothing is left to be put in
// place. What the key had is gone then, and the haul goes on.
func TestLargeValueExpiresAsItIsBuilt(t *testing.T) {
	for _, release := range []string{"redis-8.0", "valkey-9.1"} {
		for _, existing := range []Existing{ExistingReplace, ExistingSkip} {
			t.Run(fmt.Sprintf("%s, %s", release, existing), func(t *testing.T) {
				rt.Require(t, release)
				rt.Require(t, "redis-8.0")
				src := rt.Start(t, rt.Options{Release: "redis-8.0"})
				for i := range 200 {
					src.MustDo("HSET", "hash", i, randomText(25))
				}
				src.MustDo("SET", "next", "value")
				fields := make([]any, 0, 204)
				fields = append(fields, "HPEXPIREAT", "hash", time.Now().UnixMilli()+2000, "FIELDS", 200)
				for i := range 200 {
					fields = append(fields, i)
				}
				src.MustDo(fields...)
				payload := dump(t, src, "hash")
				rt.Eventually(t, limit, func() error {
					if src.MustDo("EXISTS", "hash").Int != 0 {
						return errors.New("the fields are still there")
					}
					return nil
				})
				dst := rt.Start(t, rt.Options{Release: release})
				if existing == ExistingReplace {
					dst.MustDo("SET", "hash", "what was there")
				}
				r := newRig(t, dst.Addr, building(false, func(c *Config) { c.Existing = existing }))
				b := r.batch(true)
				b.bigKey("hash", payload, nil)
				b.key(0, "next", dump(t, src, "next"), nil)
				b.send()
				r.drained()
				if dst.MustDo("EXISTS", "hash").Int != 0 || dst.MustDo("GET", "next").Text != "value" {
					t.Error("the hash is there, or what followed is not")
				}
				noParts(t, targetOf(dst))
			})
		}
	}
}

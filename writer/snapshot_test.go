package writer

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/rdb"
)

// wire records commands as a server sees them.
func wire(t *testing.T, s *rt.Server) (stop func() []string) {
	t.Helper()
	c := s.Dial()
	if _, err := c.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	if r, err := c.ReadReply(); err != nil || r.Text != "OK" {
		t.Fatal(r, err)
	}
	return func() []string {
		t.Helper()
		s.MustDo("ECHO", "end of the record")
		_ = c.SetReadDeadline(time.Now().Add(limit))
		defer c.Close()
		var all []string
		for {
			r, err := c.ReadReply()
			if err != nil {
				t.Fatal(err)
			}
			_, line, _ := strings.Cut(r.Text, "] ")
			if strings.Contains(line, "end of the record") {
				return all
			}
			all = append(all, strings.ReplaceAll(line, `"`, ""))
		}
	}
}

func dump(t *testing.T, s *rt.Server, key string) []byte {
	t.Helper()
	r := s.MustDo("DUMP", key)
	if r.Null {
		t.Fatalf("there is no key %q", key)
	}
	return []byte(r.Text)
}

// sample returns a server with keys of every kind, and their names.
func sample(t *testing.T) (*rt.Server, []string) {
	s := rt.Start(t, rt.Options{})
	s.MustDo("SET", "plain", "hello")
	s.MustDo("SET", "empty", "")
	for _, n := range []int64{0, -1, 127, -128, 128, -32768, 32767, 70000, -2147483648, 2147483647, 2147483648} {
		s.MustDo("SET", fmt.Sprintf("int:%d", n), n)
	}
	s.MustDo("SET", "lzf", strings.Repeat("ab", 500))
	s.MustDo("SET", "lzf:runs", strings.Repeat("a", 3000)+strings.Repeat("xyz", 1000))
	s.MustDo("SET", "lzf:large", strings.Repeat("0123456789", 200_000)) // above decodedLimit
	s.MustDo("SET", "large", strings.Repeat("\x00\r\n\xff", 3)+randomText(20_000))
	s.MustDo("SET", "", "the key without a name")
	s.MustDo("HSET", "hash", "f", "v", "g", "w")
	s.MustDo("RPUSH", "list", "a", "b", "c")
	s.MustDo("SADD", "set", "a", "b")
	s.MustDo("SADD", "intset", 1, 2, 3)
	s.MustDo("ZADD", "zset", 1.5, "a", "inf", "b")
	s.MustDo("XADD", "stream", "1-1", "f", "v")
	s.MustDo("PFADD", "hll", "a", "b")
	for i := range 600 {
		s.MustDo("HSET", "hash:large", fmt.Sprintf("field:%d", i), strings.Repeat("v", 100))
	}
	var names []string
	for _, k := range s.MustDo("KEYS", "*").Array {
		names = append(names, k.Text)
	}
	return s, names
}

// randomText is text that LZF cannot shorten, the same every time.
func randomText(n int) string {
	b := make([]byte, n)
	x := uint64(88172645463325252)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return string(b)
}

func same(t *testing.T, src *rt.Server, g target, names []string) {
	t.Helper()
	for _, name := range names {
		got := g.do(name, "DUMP", name)
		if got.Null {
			t.Errorf("%q is missing", name)
		} else if got.Text != string(dump(t, src, name)) {
			a, b := src.Do("DEBUG", "DIGEST-VALUE", name), g.do(name, "DEBUG", "DIGEST-VALUE", name)
			if answerOf(a) != answerOf(b) {
				t.Errorf("%q differs", name)
			}
		}
	}
}

// TestSnapshotKeys writes keys of every kind, in batches and one by one, as they are and read from the spool.
func TestSnapshotKeys(t *testing.T) {
	src, names := sample(t)
	for _, mode := range []struct {
		name string
		make func(testing.TB) target
	}{{"standalone", standaloneTarget}, {"cluster", clusterTarget}} {
		t.Run(mode.name, func(t *testing.T) {
			g := mode.make(t)
			for _, existing := range []Existing{ExistingReplace, ExistingSkip} {
				for _, how := range []string{"one batch", "a batch each", "big"} {
					t.Run(string(existing)+" "+how, func(t *testing.T) {
						g.flush()
						r := newRig(t, g.addr, func(c *Config) { c.Existing = existing })
						b := r.batch(true)
						for _, name := range names {
							if how == "a batch each" {
								b.send()
								b = r.batch(true)
							}
							if how == "big" {
								b.bigKey(name, dump(t, src, name), nil)
							} else {
								b.key(0, name, dump(t, src, name), nil)
							}
						}
						b.send()
						r.drained()
						same(t, src, g, names)
						r.counted("existing_skipped", 0)
					})
				}
			}
		})
	}
}

// TestSnapshotForms checks in which form keys travel.
func TestSnapshotForms(t *testing.T) {
	src, _ := sample(t)
	dst := rt.Start(t, rt.Options{})
	far := time.Now().Add(time.Hour).UnixMilli()
	expires := func(k *haul.Key) { k.Has |= haul.HasExpire; k.ExpireAt = far }
	for _, c := range []struct {
		name     string
		keys     []string
		existing Existing
		change   func(*haul.Key)
		want     []string
	}{
		{"one string", []string{"plain"}, ExistingReplace, nil, []string{"SET plain hello"}},
		{"strings", []string{"plain", "int:127", "int:-128"}, ExistingReplace, nil, []string{"MSET plain hello int:127 127 int:-128 -128"}},
		{"strings and others", []string{"plain", "set", "int:0"}, ExistingReplace, nil, []string{"RESTORE set 0", "MSET plain hello int:0 0"}},
		{"expiring", []string{"plain", "int:0"}, ExistingReplace, expires, []string{
			"SET plain hello PXAT " + strconv.FormatInt(far, 10), "SET int:0 0 PXAT " + strconv.FormatInt(far, 10),
		}},
		{"skip", []string{"plain", "int:0"}, ExistingSkip, nil, []string{"SET plain hello NX", "SET int:0 0 NX"}},
		{"skip expiring", []string{"plain"}, ExistingSkip, expires, []string{"SET plain hello PXAT " + strconv.FormatInt(far, 10) + " NX"}},
		{"large compressed", []string{"lzf:large"}, ExistingReplace, nil, []string{"RESTORE lzf:large 0"}},
		{"idle", []string{"plain", "int:0"}, ExistingReplace, func(k *haul.Key) { k.Has |= haul.HasIdle; k.Idle = 7 }, []string{"RESTORE plain 0", "RESTORE int:0 0"}},
		{"not idle", []string{"plain"}, ExistingReplace, func(k *haul.Key) { k.Has |= haul.HasIdle }, []string{"SET plain hello"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dst.MustDo("FLUSHALL")
			r := newRig(t, dst.Addr, func(cfg *Config) { cfg.Existing = c.existing; cfg.SnapshotLanes = 1 })
			stop := wire(t, dst)
			b := r.batch(true)
			for _, name := range c.keys {
				b.key(0, name, dump(t, src, name), c.change)
			}
			b.send()
			r.drained()
			got := stop()
			for i, w := range c.want {
				if i >= len(got) || !strings.HasPrefix(got[i]+" ", w+" ") {
					t.Fatalf("sent %.300q, want %q", got, c.want)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("sent %.300q, want %q", got, c.want)
			}
			for _, name := range c.keys {
				if dst.MustDo("EXISTS", name).Int != 1 {
					t.Errorf("%s is missing", name)
				}
			}
		})
	}
}

func TestSnapshotDeadlines(t *testing.T) {
	src, _ := sample(t)
	dst := rt.Start(t, rt.Options{})
	future := time.Now().Add(time.Hour).UnixMilli()
	for _, c := range []struct {
		name string
		at   int64
		want int64 // PEXPIRETIME: -2 for a key that is absent
	}{{"future", future, future}, {"past", 1_000_000_000_000, -2}, {"one", 1, -2}, {"zero", 0, -2}, {"negative", -5, -2}} {
		for _, key := range []string{"plain", "int:0", "set", "hash:large"} {
			for _, big := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s big %v", c.name, key, big), func(t *testing.T) {
					dst.MustDo("FLUSHALL")
					dst.MustDo("SET", key, "what was there before")
					r := newRig(t, dst.Addr, nil)
					b := r.batch(true)
					change := func(k *haul.Key) { k.Has |= haul.HasExpire; k.ExpireAt = c.at }
					if big {
						b.bigKey(key, dump(t, src, key), change)
					} else {
						b.key(0, key, dump(t, src, key), change)
					}
					b.key(0, "neighbour", dump(t, src, "plain"), nil)
					b.send()
					r.drained()
					want(t, dst, "PEXPIRETIME "+key, fmt.Sprint(c.want))
					want(t, dst, "GET neighbour", "hello")
				})
			}
		}
	}
}

func TestSnapshotAccessTimes(t *testing.T) {
	src, _ := sample(t)
	for _, c := range []struct {
		policy, line string
		change       func(*haul.Key)
		least, most  int64
	}{
		{"allkeys-lru", "OBJECT IDLETIME ", func(k *haul.Key) { k.Has |= haul.HasIdle; k.Idle = 1000 }, 1000, 1060},
		{"allkeys-lfu", "OBJECT FREQ ", func(k *haul.Key) { k.Has |= haul.HasFreq; k.Freq = 200 }, 199, 200},
	} {
		t.Run(c.policy, func(t *testing.T) {
			dst := rt.Start(t, rt.Options{Config: map[string]string{"maxmemory-policy": c.policy}})
			r := newRig(t, dst.Addr, nil)
			b := r.batch(true)
			b.key(0, "plain", dump(t, src, "plain"), c.change)
			b.key(0, "int:0", dump(t, src, "int:0"), c.change)
			b.key(0, "set", dump(t, src, "set"), c.change)
			b.bigKey("hash:large", dump(t, src, "hash:large"), c.change)
			b.bigKey("large", dump(t, src, "large"), c.change)
			b.send()
			r.drained()
			for _, key := range []string{"plain", "int:0", "set", "hash:large", "large"} {
				if n := dst.MustDo(args(c.line + key)...).Int; n < c.least || n > c.most {
					t.Errorf("%s: %d, want %d", key, n, c.least)
				}
			}
		})
	}
}

func TestExistingKeys(t *testing.T) {
	src, _ := sample(t)
	names := []string{"plain", "int:0", "lzf", "set", "list", "hash:large", "large"}
	for _, mode := range []struct {
		name string
		make func(testing.TB) target
	}{{"standalone", standaloneTarget}, {"cluster", clusterTarget}} {
		t.Run(mode.name, func(t *testing.T) {
			g := mode.make(t)
			for _, existing := range []Existing{ExistingReplace, ExistingSkip} {
				t.Run(string(existing), func(t *testing.T) {
					g.flush()
					for _, name := range names {
						g.do(name, "SADD", name, "of the target")
					}
					r := newRig(t, g.addr, func(c *Config) { c.Existing = existing })
					b := r.batch(true)
					for i, name := range names {
						if i%2 == 0 {
							b.key(0, name, dump(t, src, name), nil)
						} else {
							b.bigKey(name, dump(t, src, name), nil)
						}
						b.key(0, "new:"+name, dump(t, src, name), nil)
					}
					b.send()
					r.drained()
					for _, name := range names {
						if g.do("new:"+name, "EXISTS", "new:"+name).Int != 1 {
							t.Errorf("new:%s is missing", name)
						}
					}
					if existing == ExistingReplace {
						same(t, src, g, names)
						r.counted("existing_skipped", 0)
						return
					}
					r.counted("existing_skipped", int64(len(names)))
					for _, name := range names {
						if got := answerOf(g.do(name, "SMEMBERS", name)); got != "of the target" {
							t.Errorf("%s was changed: %s", name, got)
						}
					}
				})
			}
		})
	}
}

func TestFunctionsReachEveryPrimary(t *testing.T) {
	const code = "#!lua name=mylib\nredis.register_function('f', function() return 'one' end)"
	for _, mode := range []struct {
		name string
		make func(testing.TB) target
	}{{"standalone", standaloneTarget}, {"cluster", clusterTarget}} {
		t.Run(mode.name, func(t *testing.T) {
			g := mode.make(t)
			r := newRig(t, g.addr, nil)
			for range 2 { // a snapshot may be repeated
				b := r.batch(true)
				b.function(code)
				b.send()
			}
			r.drained()
			for _, n := range g.nodes {
				want(t, n, "FCALL f 0", "one")
			}
			b := r.batch(false)
			for range 2 {
				b.do(0, "FUNCTION", "LOAD", strings.Replace(code, "one", "two", 1))
			}
			b.do(0, "function", "load", "REPLACE", strings.Replace(code, "one", "three", 1))
			b.words("SET k v")
			b.send()
			r.drained()
			for _, n := range g.nodes {
				want(t, n, "FCALL f 0", "three")
			}
			r.do("FUNCTION DELETE mylib")
			r.drained()
			for _, n := range g.nodes {
				want(t, n, "FUNCTION LIST", "")
			}
		})
	}
}

// TestFooter checks the version and checksum of a payload against those of the server.
func TestFooter(t *testing.T) {
	src, _ := sample(t)
	for _, name := range []string{"set", "hash:large", "stream", "zset"} {
		raw := dump(t, src, name)
		b := &haul.Batch{Buf: raw}
		k := &haul.Key{
			Name: []byte(name), Type: raw[0], Footer: uint16(raw[len(raw)-10]) | uint16(raw[len(raw)-9])<<8,
			Value: haul.Span{Off: 1, Len: uint32(len(raw) - 1 - rdb.FooterSize)},
		}
		o := &outbox{}
		(&encoder{}).restore(o, b, k)
		o.seal()
		if out := bytes.Join(o.bufs, nil); !bytes.Contains(out, raw) || o.size != len(out) {
			t.Errorf("%s: payload differs from that of the server (or %d is not %d)", name, o.size, len(out))
		}
	}
}

// TestCorruptString checks that a string which cannot be decoded is not sent in part.
func TestCorruptString(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	for _, n := range []int{1, 2} {
		r := newRig(t, dst.Addr, nil)
		b := r.batch(true)
		for i := range n { // LZF, 5 bytes packed, 20 raw, and its first byte refers to what lies before the beginning
			b.key(0, fmt.Sprintf("bad:%d", i), append([]byte{0, 0xc3, 5, 20, 0xff, 1, 2, 3, 4}, make([]byte, rdb.FooterSize)...), nil)
		}
		b.send()
		if err := r.end(); err == nil || !strings.Contains(err.Error(), "snapshot byte ") || !strings.Contains(err.Error(), "bad:") {
			t.Errorf("%d: it ends with %v", n, err)
		}
		want(t, dst, "DBSIZE", "0")
	}
}

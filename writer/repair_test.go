package writer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/rdb"
)

// countSource is the source of a counter's stream: it tells what counts are in the middle of a batch that it sends
// then, and what is said to be there instead.
type countSource struct {
	mu     sync.Mutex // guards r and c
	r      *rig
	c      *counter
	other  func(at int64, k haul.KeyName) (haul.Value, bool) // may be nil
	refuse error
}

func (s *countSource) send() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.c.send(s.r)
}

func (s *countSource) Sizes(_ context.Context, keys []haul.KeyName) ([]int64, error) {
	sizes := make([]int64, len(keys))
	for i := range sizes {
		sizes[i] = repairBytes / 16
	}
	return sizes, nil
}

func (s *countSource) Values(_ context.Context, from int64, keys []haul.KeyName) ([]haul.Value, haul.Position, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, haul.Position{}, s.refuse
	}
	b := s.r.batch(false)
	s.c.round(b)
	at, count := haul.Position{ReplID: "test", Offset: s.r.offset}, strconv.Itoa(s.c.rounds)
	s.c.round(b)
	b.send()
	if from > at.Offset {
		return nil, at, errors.New("it was read too far")
	}
	values := make([]haul.Value, len(keys))
	for i, k := range keys {
		if strings.HasPrefix(k.Name, "count:") {
			values[i].Payload = stringPayload(count)
		}
		if s.other != nil {
			if v, ok := s.other(at.Offset, k); ok {
				values[i] = v
			}
		}
	}
	return values, at, nil
}

func (s *countSource) Large(context.Context, int64, haul.KeyName, io.Writer) (int64, haul.Value, haul.Position, error) {
	return 0, haul.Value{}, haul.Position{}, errors.New("nothing is large")
}

func (s *countSource) Close() {}

// stringPayload is what DUMP says of a short string.
func stringPayload(text string) string {
	return payload(rdb.TypeString, string(rune(len(text)))+text)
}

func payload(kind byte, rest string) string {
	value := append([]byte{kind}, rest...)
	return string(rdb.AppendFooter(value, 9, rdb.CRC64(0, value)))
}

// counts are the keys that INCR counts in.
func (c *counter) counts() (keys []haul.KeyName) {
	for k := range c.keys {
		keys = append(keys, haul.KeyName{Name: fmt.Sprintf("count:{%d}", k)})
	}
	return keys
}

// TestCutRepairs: connections break while counts are written anew that go on being counted. A repair that is sent again
// behind what has followed it would lose that.
func TestCutRepairs(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		for name, cut := range map[string]func(p *rt.Proxy, i int){
			"in a reply": func(p *rt.Proxy, i int) { p.CutAfter(1+i*17, rt.ToClient) },
			"orphans":    func(p *rt.Proxy, _ int) { p.Orphan(150 * time.Millisecond) },
		} {
			t.Run(fmt.Sprintf("%s, cluster %t", name, cluster), func(t *testing.T) {
				t.Parallel()
				g, proxies, ep := proxied(t, cluster)
				source := &countSource{c: &counter{keys: 40}}
				r := exactRigAt(t, ep, func(c *Config) { c.Values = source })
				source.r = r
				ctx, cancel := context.WithCancel(context.Background())
				var repaired int
				var wg sync.WaitGroup
				wg.Go(func() {
					for ctx.Err() == nil {
						done, err := r.w.(Repairer).Repair(ctx, source.c.counts(), true)
						repaired += done.Written
						if err != nil && ctx.Err() == nil && !errors.Is(err, ErrRepairAgain) || len(done.Refused) > 0 {
							t.Errorf("%+v, %v", done, err)
							return
						}
					}
				})
				for i := range 24 {
					before := r.ch.Watermark.Stream().Offset
					cut(proxies[i%len(proxies)], i)
					for j := 0; j < 30 || j < 600 && r.ch.Watermark.Stream().Offset <= before; j++ {
						source.send()
						time.Sleep(time.Millisecond)
					}
				}
				cancel()
				wg.Wait()
				r.drained()
				source.c.check(t, g)
				if repaired < 40 {
					t.Errorf("only %d keys were repaired", repaired)
				}
			})
		}
	}
}

// TestRepairRefusals: what cannot be repaired is told, and keeps nothing else from going on.
func TestRepairRefusals(t *testing.T) {
	for mode, make := range map[string]func(testing.TB) target{"standalone": standaloneTarget, "cluster": clusterTarget} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			g := make(t)
			source := &countSource{c: &counter{keys: 4}}
			source.other = func(_ int64, k haul.KeyName) (haul.Value, bool) {
				switch k.Name {
				case "damaged":
					return haul.Value{Payload: payload(99, "no such type")}, true
				case "large":
					return haul.Value{Payload: stringPayload(strings.Repeat("x", 60))}, true
				}
				return haul.Value{}, false
			}
			r := exactRig(t, g.addr, func(c *Config) {
				c.Values, c.MaxBulk, c.DBs = source, 60, haul.DBMap{1: haul.DropDB}
			})
			source.r = r
			g.do("extra", "SET", "extra", "x")
			source.send()
			r.drained()
			keys := append(source.c.counts(), haul.KeyName{Name: "damaged"}, haul.KeyName{Name: "large"}, haul.KeyName{Name: "keyhaul:x"},
				haul.KeyName{DB: 1, Name: "left out"}, haul.KeyName{Name: "extra"})
			done, err := r.w.(Repairer).Repair(context.Background(), keys, false)
			if err != nil || done.Written != 4 || done.Pruned != 0 || done.Lacking != 1 || len(done.Refused) != 4 {
				t.Errorf("%+v, %v", done, err)
			}
			for _, x := range done.Refused {
				if x.Index < 4 || x.Index > 7 || errors.Is(x.Err, ErrRepairAgain) {
					t.Errorf("key %d: %v", x.Index, x.Err)
				}
			}
			if done, err := r.w.(Repairer).Repair(context.Background(), keys[8:], true); err != nil || done.Pruned != 1 {
				t.Errorf("%+v, %v", done, err)
			}
			source.mu.Lock()
			source.refuse = resp.NewError("NOPERM this user has no permissions")
			source.mu.Unlock()
			if done, err := r.w.(Repairer).Repair(context.Background(), keys[:2], true); err != nil || len(done.Refused) != 2 {
				t.Errorf("%+v, %v", done, err)
			}
			source.send()
			r.drained()
			source.c.check(t, g)
			if n := r.w.Status().Counts["repaired_keys"]; n != 5 {
				t.Errorf("%d keys counted", n)
			}
			if n := g.do("extra", "EXISTS", "extra").Int; n != 0 {
				t.Error("what the source lacks is there")
			}
		})
	}
}

package verify_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/verify"
)

// config compares two ends of which no haul is known.
func config(t *testing.T, source, target rt.Endpoint, cluster [2]bool) verify.Config {
	t.Helper()
	var dialers [2]*topology.Dialer
	for i, e := range []rt.Endpoint{source, target} {
		endpoint, err := topology.Parse("redis://" + strings.Join(e.Addrs, ","))
		if err != nil {
			t.Fatal(err)
		}
		dialers[i] = topology.NewDialer(endpoint)
	}
	store := checkpoint.New(checkpoint.Config{Dialer: dialers[1], Name: "test", Cluster: cluster[1], Log: zerolog.Nop()})
	t.Cleanup(store.Close)
	return verify.Config{
		Source: dialers[0], Target: dialers[1], SourceCluster: cluster[0], TargetCluster: cluster[1],
		Name: "test", Store: store, Sample: 1, BigValue: 1 << 20, Tolerance: time.Second, Settle: 50 * time.Millisecond, Passes: 2,
		Log: zerolog.Nop(),
	}
}

// found runs a comparison and returns the kinds of what differs, by key.
func found(t *testing.T, cfg verify.Config) map[string]verify.Kind {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	r, err := verify.Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]verify.Kind{}
	for _, d := range r.Remaining {
		kinds[d.Key.Name] = d.Kind
	}
	return kinds
}

func same(t *testing.T, got, want map[string]verify.Kind) {
	t.Helper()
	for key, kind := range want {
		if got[key] != kind {
			t.Errorf("%s: %q, want %q", key, got[key], kind)
		}
	}
	for key, kind := range got {
		if want[key] == "" {
			t.Errorf("%s: %q, and nothing differs there", key, kind)
		}
	}
}

// plants are ways in which a key may differ: what both ends have, and what only the target gets then.
var plants = []struct {
	key    string
	kind   verify.Kind // empty: the same
	have   []string
	target []string
}{
	{"string", verify.Value, []string{"SET K abc"}, []string{"SET K abd"}},
	{"string:big", verify.Value, []string{"SETRANGE K 300000 x"}, []string{"SETRANGE K 290000 y"}},
	{"string:longer", verify.Value, []string{"SETRANGE K 300000 x"}, []string{"APPEND K y"}},
	{"string:same", "", []string{"SETRANGE K 300000 x"}, nil},
	{"int", "", []string{"SET K 12"}, []string{"DEL K", "SETRANGE K 0 1", "APPEND K 2"}},
	{"gone", verify.Missing, []string{"SET K 1"}, []string{"DEL K"}},
	{"new", verify.Extra, nil, []string{"SET K 1"}},
	{"type", verify.Type, []string{"SET K 1"}, []string{"DEL K", "RPUSH K 1"}},
	{"ttl", verify.TTL, []string{"SET K 1", "PEXPIREAT K 4102444800000"}, []string{"PEXPIREAT K 4102444805000"}},
	{"ttl:none", verify.TTL, []string{"RPUSH K 1"}, []string{"PEXPIREAT K 4102444800000"}},
	{"ttl:near", "", []string{"SET K 1", "PEXPIREAT K 4102444800000"}, []string{"PEXPIREAT K 4102444800900"}},
	{"hash", verify.Value, []string{"HSET K a 1 b 2"}, []string{"HSET K b 3"}},
	{"hash:order", "", []string{"HSET K a 1 b 2"}, []string{"HDEL K a", "HSET K a 1"}},
	{"hash:big", verify.Value, []string{"FILL HSET K 30000 2"}, []string{"HSET K e777 planted"}},
	{"hash:more", verify.Value, []string{"FILL HSET K 30000 2"}, []string{"HSET K planted 1"}},
	{"hash:same", "", []string{"FILL HSET K 30000 2"}, nil},
	{"set", verify.Value, []string{"SADD K a b"}, []string{"SREM K a", "SADD K c"}},
	{"set:encoding", "", []string{"SADD K 1 2"}, []string{"SADD K a", "SREM K a"}},
	{"set:big", verify.Value, []string{"FILL SADD K 30000 1"}, []string{"SREM K e8", "SADD K x8"}},
	{"set:same", "", []string{"FILL SADD K 30000 1"}, nil},
	{"zset", verify.Value, []string{"ZADD K 1 a 2 b"}, []string{"ZADD K 1.5 a"}},
	{"zset:zero", "", []string{"ZADD K -0 a"}, []string{"ZADD K 0 a"}},
	{"zset:big", verify.Value, []string{"FILL ZADD K 30000 2"}, []string{"ZINCRBY K 1 e9"}},
	{"zset:same", "", []string{"FILL ZADD K 30000 2"}, nil},
	{"list", verify.Value, []string{"RPUSH K a b"}, []string{"LSET K 0 b", "LSET K 1 a"}},
	{"list:big", verify.Value, []string{"FILL RPUSH K 30000 1"}, []string{"LSET K 20000 planted"}},
	{"list:same", "", []string{"FILL RPUSH K 30000 1"}, nil},
	{"stream", verify.Value, []string{"XADD K 1-1 a b", "XADD K 1-2 a b"}, []string{"XDEL K 1-1"}},
	{"stream:group", verify.Group, []string{"XADD K 1-1 a b", "XGROUP CREATE K g 0"}, []string{"XGROUP DESTROY K g"}},
	{"stream:pending", verify.Group, []string{"XADD K 1-1 a b", "XGROUP CREATE K g 0", "XREADGROUP GROUP g c STREAMS K >"}, []string{"XACK K g 1-1"}},
	{"stream:consumer", verify.Group, []string{"XADD K 1-1 a b", "XGROUP CREATE K g 0", "XREADGROUP GROUP g c STREAMS K >"}, []string{"XCLAIM K g d 0 1-1"}},
	{"stream:idle", "", []string{"XADD K 1-1 a b", "XGROUP CREATE K g 0"}, []string{"XREADGROUP GROUP g c STREAMS K 0"}},
	{"stream:big", verify.Group, []string{"FILL XADD K 4000 0", "XGROUP CREATE K g 0", "XREADGROUP GROUP g c COUNT 1200 STREAMS K >"}, []string{"XACK K g 700-0"}},
	{"stream:same", "", []string{"FILL XADD K 4000 0", "XGROUP CREATE K g 0"}, nil},
}

// carry carries out a line of a plant.
func carry(s *rt.Server, key, line string) {
	words := strings.Fields(strings.Replace(line, " K", " "+key, 1))
	if words[0] != "FILL" {
		args := make([]any, len(words))
		for i, word := range words {
			args[i] = word
		}
		s.MustDo(args...)
		return
	}
	var n int
	_, _ = fmt.Sscan(words[3], &n)
	for from := 0; from < n; from += 500 {
		args := []any{words[1], key}
		if words[1] == "XADD" {
			for i := range 500 {
				s.MustDo("XADD", key, fmt.Sprintf("%d-0", from+i+1), "field", strings.Repeat("v", 100))
			}
			continue
		}
		for i := from; i < from+500; i++ {
			element := fmt.Sprintf("e%d", i)
			switch words[1] {
			case "HSET":
				args = append(args, element, strings.Repeat("v", 20))
			case "ZADD":
				args = append(args, fmt.Sprintf("%d.25", i), element)
			default:
				args = append(args, element)
			}
		}
		s.MustDo(args...)
	}
}

// TestKinds: each way to differ is found as what it is, and other forms of the same value are none, whatever the releases.
func TestKinds(t *testing.T) {
	for _, pair := range [][2]string{{"", ""}, {"redis-6.0", "redis-8.0"}, {"valkey-9.1", "redis-8.0"}} {
		t.Run(pair[0]+"_"+pair[1], func(t *testing.T) {
			t.Parallel()
			for _, release := range pair {
				rt.Require(t, release)
			}
			src, dst := rt.Start(t, rt.Options{Release: pair[0]}), rt.Start(t, rt.Options{Release: pair[1]})
			want := map[string]verify.Kind{}
			for _, x := range plants {
				for _, line := range x.have {
					carry(src, x.key, line)
					carry(dst, x.key, line)
				}
				for _, line := range x.target {
					carry(dst, x.key, line)
				}
				if x.kind != "" {
					want[x.key] = x.kind
				}
			}
			cfg := config(t, src.Endpoint(), dst.Endpoint(), [2]bool{})
			cfg.BigValue = 100 << 10
			same(t, found(t, cfg), want)
		})
	}
}

// TestKeysOnly: without values, only what is there counts, and of which type.
func TestKeysOnly(t *testing.T) {
	src, dst := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
	src.MustDo("SET", "value", "1")
	dst.MustDo("SET", "value", "2")
	src.MustDo("SET", "gone", "1")
	src.MustDo("SET", "type", "1")
	dst.MustDo("RPUSH", "type", "1")
	dst.MustDo("SET", "new", "1")
	cfg := config(t, src.Endpoint(), dst.Endpoint(), [2]bool{})
	cfg.KeysOnly = true
	same(t, found(t, cfg), map[string]verify.Kind{"gone": verify.Missing, "type": verify.Type, "new": verify.Extra})
}

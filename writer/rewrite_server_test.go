package writer

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestScriptsDoTheSame: what an old target is told to do by scripts and older commands leaves what the commands leave.
func TestScriptsDoTheSame(t *testing.T) {
	native, old := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
	if !native.Version.AtLeast(6, 2) {
		t.Skip("this release does not know the commands")
	}
	r := newRig(t, old.Addr, func(c *Config) { c.Node = nodeOf(t, "redis 5.0") })
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	key := func(kind string) string { return fmt.Sprintf("%s%d", kind, random.IntN(4)) }
	score := func() string {
		return []string{"-inf", "inf", "0.1", "1e300", fmt.Sprint(random.IntN(20)), fmt.Sprint(random.NormFloat64())}[random.IntN(6)]
	}
	member := func() string { return fmt.Sprintf("m%d", random.IntN(12)) }
	id := 0
	commands := []func() string{
		func() string { return "SET " + key("s") + " v KEEPTTL" },
		func() string {
			return "PEXPIREAT " + key([]string{"s", "l", "z", "x"}[random.IntN(4)]) + " 4102444800000"
		},
		func() string { return "SET " + key("s") + " v PXAT 4102444800123" },
		func() string { return "PERSIST " + key("s") },
		func() string { return "RPUSH " + key("l") + " a b c d" },
		func() string { return "LPOP " + key("l") + " 3" },
		func() string { return "RPOP " + key("l") + " 2" },
		func() string {
			ends := []string{"LEFT", "RIGHT"}
			return "LMOVE " + key("l") + " " + key("l") + " " + ends[random.IntN(2)] + " " + ends[random.IntN(2)]
		},
		func() string {
			kind := []string{"s", "l", "z", "x", "set"}[random.IntN(5)]
			from, to := key(kind), key(kind)
			if from == to {
				return "PING"
			}
			return "COPY " + from + " " + to + " REPLACE"
		},
		func() string { return "SADD " + key("set") + " " + member() + " " + member() },
		func() string {
			return "ZADD " + key("z") + " " + score() + " " + member() + " " + score() + " " + member()
		},
		func() string {
			than := []string{"GT", "LT", "GT XX", "LT XX", "XX GT CH"}[random.IntN(5)]
			return "ZADD " + key("z") + " " + than + " " + score() + " " + member() + " " + score() + " " + member()
		},
		func() string { return "ZRANGESTORE " + key("z") + " " + key("z") + " 0 5" },
		func() string { return "ZRANGESTORE " + key("z") + " " + key("z") + " 0 3 REV" },
		func() string { return "ZRANGESTORE " + key("z") + " " + key("z") + " (0 +inf BYSCORE LIMIT 0 4" },
		func() string { return "ZRANGESTORE " + key("z") + " " + key("z") + " [m9 [m1 BYLEX REV" },
		func() string {
			return "ZDIFFSTORE " + key("z") + " 3 " + key("z") + " " + key("z") + " " + key("set")
		},
		func() string { return "ZDIFFSTORE " + key("z") + " 2 " + key("set") + " " + key("z") },
		func() string { id++; return fmt.Sprintf("XADD %s %d-%d f v", key("x"), 1+id/5, id) },
		func() string {
			id++
			return fmt.Sprintf("XADD %s MINID = %d %d-%d f v", key("x"), id/5, 1+id/5, id)
		},
		func() string { return fmt.Sprintf("XTRIM %s MINID = %d-%d LIMIT 0", key("x"), id/6, id) },
	}
	done := 0
	for range 4000 {
		line := commands[random.IntN(len(commands))]()
		sent := strings.Replace(line, " LIMIT 0", "", 1) // which only servers add
		if strings.HasPrefix(line, "ZRANGESTORE") {
			sent = line
		}
		if native.Do(args(sent)...).Err() == nil && line != "PING" {
			r.do(line)
			done++
		}
	}
	r.drained()
	report, err := rt.Compare(context.Background(), native.Endpoint(), old.Endpoint(), rt.CompareOptions{IgnoreReadCounts: true})
	if err != nil || !report.Equal() || done < 3000 {
		t.Errorf("%d commands: %v, %s", done, err, report)
	}
}

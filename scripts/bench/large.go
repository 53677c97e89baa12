package main

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// largeValue is one key that fills a snapshot by itself.
type largeValue struct {
	name  string
	steps int    // at scale 1
	step  string // a script that adds to KEYS[1]; ARGV[1] counts the steps
}

// each is how many elements a step adds.
const each = 10_000

func largeValues() []largeValue {
	loop := func(body string) string {
		return fmt.Sprintf("local base = ARGV[1] * %d for i = base + 1, base + %d do %s end return 1", each, each, body)
	}
	return []largeValue{
		{"list of 2 GB", 200, loop("local h = redis.sha1hex(i) redis.call('RPUSH', KEYS[1], string.rep(h, 25))")},
		{"hash of 20 M fields", 2000, loop("redis.call('HSET', KEYS[1], 'f' .. i, i)")},
		{"set of 10 M members", 1000, loop("redis.call('SADD', KEYS[1], 'm' .. i)")},
		{"sorted set of 10 M members", 1000, loop("redis.call('ZADD', KEYS[1], i * 0.7, 'm' .. i)")},
		{"stream of 5 M entries", 500, loop("redis.call('XADD', KEYS[1], i .. '-1', 'f', i, 'g', 'value')")},
		{"string of 512 MB", 1, "redis.call('SETRANGE', KEYS[1], 512 * 1024 * 1024 - 1, 'x') return 1"},
	}
}

// large copies one large value over another one of its kind, and measures for how long the target serves nobody.
func large(ctx context.Context, t rt.TB, o options) error {
	header("value", "took", "longest command on the target", "longest answer to a PING", "VmHWM of keyhaul", "of it the buffer")
	for _, v := range largeValues() {
		if err := largeOnce(ctx, t, o, v); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
	}
	return nil
}

func largeOnce(ctx context.Context, t rt.TB, o options, v largeValue) error {
	config := map[string]string{"slowlog-log-slower-than": "1000", "proto-max-bulk-len": "600mb"}
	source := rt.Start(t, rt.Options{Release: o.release, Config: config})
	dst := rt.Start(t, rt.Options{Release: o.release, Config: config})
	defer source.Stop()
	defer dst.Stop()
	for _, s := range []*rt.Server{source, dst} {
		steps := max(int(float64(v.steps)*o.scale), 1)
		if s == dst {
			steps = max(steps/10, 1) // what is there already
		}
		for i := range steps {
			if r := s.Do("EVAL", v.step, 1, "large", i); r.Kind == resp.KindError {
				return fmt.Errorf("fill: %s", r.Text)
			}
		}
		s.MustDo("SLOWLOG", "RESET")
	}
	cmd := command(t, o, "--source", source.URL(), "--target", dst.URL(), "--until", "caught-up", "--existing", "replace")
	probing, stop := context.WithCancel(ctx)
	defer stop()
	var longest time.Duration
	var wg sync.WaitGroup
	wg.Go(func() { longest = probe(probing, dst) })
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}
	memory := peak(cmd.Process.Pid)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("keyhaul: %w", err)
	}
	took := time.Since(began)
	stop()
	wg.Wait()
	var slowest int64
	command := "none above 1 ms"
	for _, e := range dst.MustDo("SLOWLOG", "GET", "-1").Array {
		if us := e.Array[2].Int; us > slowest {
			slowest, command = us, e.Array[3].Array[0].Text
		}
	}
	row(v.name, ms(took), fmt.Sprintf("%.1f ms (%s)", float64(slowest)/1000, command), longest.Round(100*time.Microsecond), mb(memory()), "32 MiB")
	if !o.verify {
		return nil
	}
	for _, what := range [][]any{{"TYPE", "large"}, {"DEBUG", "DIGEST-VALUE", "large"}} {
		a, b := source.Do(what...), dst.Do(what...)
		if fmt.Sprint(a) != fmt.Sprint(b) {
			return fmt.Errorf("%v: %v on the source, %v on the target", what, a, b)
		}
	}
	return nil
}

// probe returns the longest time that a server takes to answer until ctx ends.
func probe(ctx context.Context, s *rt.Server) (longest time.Duration) {
	c := s.Dial()
	defer c.Close() //nolint:errcheck // bench
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		if _, err := c.Do(context.Background(), time.Minute, "PING", strconv.Itoa(1)); err != nil {
			return longest
		}
		longest = max(longest, time.Since(began))
		<-tick.C
	}
	return longest
}

package main

import (
	"fmt"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestTargetIsAProxy: a target that lets few commands through is taken for one server where it is told to, and says what
// it lacks for exactly-once.
func TestTargetIsAProxy(t *testing.T) {
	t.Parallel()
	single := []string{"CLUSTER", "INFO", "CONFIG", "ROLE", "HELLO"}
	forced := []string{"--target-mode", "standalone", "--delivery", "at-least-once", "--expiry-mode", "target"}
	for name, c := range map[string]struct {
		unknown []string
		lacks   string // for exactly-once
	}{
		"whole":                       {single, ""},
		"no transactions":             {append([]string{"MULTI", "EXEC", "WATCH", "CLIENT"}, single...), "MULTI and EXEC"},
		"connections cannot be ended": {append([]string{"CLIENT LIST", "CLIENT KILL"}, single...), "CLIENT LIST"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target := pair(t)
			fill(t, source, 2000)
			args := []string{"--source", source.URL(), "--target", "redis://" + rt.NewFilter(t, target.Addr, c.unknown...)}
			exact := start(t, append(args, "--target-mode", "standalone", "--expiry-mode", "target", "--until", "caught-up")...)
			if c.lacks == "" {
				exact.exit(haul.ExitDone)
				equal(t, source.Endpoint(), target.Endpoint())
				return
			}
			exact.exit(haul.ExitRefused, c.lacks, "--delivery at-least-once")
			if n := target.MustDo("DBSIZE").Int; n != 0 {
				t.Errorf("%d keys were written", n)
			}
			p := start(t, append(args, forced...)...)
			p.streaming()
			follows(t, p, target, source)
			equal(t, source.Endpoint(), target.Endpoint())
		})
	}
}

// TestTargetIsOneNode: a node of a cluster that has all slots is taken for one server where it is told to.
func TestTargetIsOneNode(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, rt.Options{})
	fill(t, source, 2000)
	target := rt.Start(t, rt.Options{Config: map[string]string{"cluster-enabled": "yes"}})
	for slot := 0; slot < 16384; slot += 4096 {
		args := []any{"CLUSTER", "ADDSLOTS"}
		for i := range 4096 {
			args = append(args, slot+i)
		}
		target.MustDo(args...)
	}
	rt.Eventually(t, patience, func() error {
		if state := target.MustDo("CLUSTER", "INFO").Text; len(state) < 17 || state[:16] != "cluster_state:ok" {
			return fmt.Errorf("%s", state)
		}
		return nil
	})
	args := []string{"--source", source.URL(), "--target", target.URL(), "--target-mode", "standalone"}
	start(t, args...).exit(haul.ExitRefused, "CROSSSLOT", "--delivery at-least-once", "--target-mode at auto")
	p := start(t, append(args, "--delivery", "at-least-once")...)
	p.eventually("streaming", func(r report) bool { return r.Links[0].SnapshotDone && r.Target.Mode == "standalone" })
	follows(t, p, target, source)
	p.signal(15)
	p.exit(haul.ExitDone)
	equal(t, source.Endpoint(), target.Endpoint())
}

// follows expects writes to the source, a transaction over several slots among them, to reach the target.
func follows(t *testing.T, p *process, target, source *rt.Server) {
	t.Helper()
	source.MustDo("MULTI")
	source.MustDo("INCR", "a")
	source.MustDo("INCR", "b")
	source.MustDo("EXEC")
	source.MustDo("SET", "last", "1")
	at := source.Offset()
	p.eventually("level", func(r report) bool { return r.Links[0].Applied >= at })
	for _, key := range []string{"a", "b", "last"} {
		if got := target.MustDo("GET", key).Text; got != "1" {
			t.Errorf("%s is %q", key, got)
		}
	}
}

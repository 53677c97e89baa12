package main

import (
	"context"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/verify"
)

// TestVerifyRepairs: what differs is written anew while clients write and the sync runs, or is stopped; what the source
// lacks is removed if that is asked for. Then both ends are the same, by verify and by another comparison.
func TestVerifyRepairs(t *testing.T) {
	t.Parallel()
	for name, stopped := range map[string]bool{"beside the sync": false, "of a stopped sync": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src, dst := rt.Start(t, rt.Options{Config: map[string]string{"repl-backlog-size": "64mb"}}), rt.Start(t, rt.Options{})
			if err := rt.FillMixed(t.Context(), src.Endpoint(), 0.005, 1); err != nil {
				t.Fatal(err)
			}
			state := t.TempDir()
			sync := between(src, dst, "--state-dir", state)
			p := start(t, sync...)
			p.streaming()
			stop := loadBeside(t, src, 1000)
			defer stop()
			list := filepath.Join(t.TempDir(), "report")
			args := between(src, dst, "--report", list)
			verifier(t, state, args...).exit(haul.ExitDone)
			if stopped {
				p.signal(syscall.SIGTERM)
				p.exit(haul.ExitDone)
			}
			plant(dst, 5)
			if !stopped {
				verifier(t, state, append(args, "--repair", "--dry-run")...).exit(haul.ExitRefused)
				if kind := verified(t, list)["0:zset:1"]; kind != verify.Missing {
					t.Errorf("a key of which nothing is to be written is %q", kind)
				}
			}
			verifier(t, state, append(args, "--repair")...).exit(haul.ExitRefused)
			extra := map[string]verify.Kind{}
			for _, key := range []string{"0:planted:0", "0:planted:1", "0:planted:2", "0:planted:3", "0:planted:4"} {
				extra[key] = verify.Extra
			}
			same(t, verified(t, list), extra)
			verifier(t, state, append(args, "--repair", "--prune")...).exit(haul.ExitDone)
			if stopped {
				p = start(t, sync...)
				p.streaming()
			}
			verifier(t, state, args...).exit(haul.ExitDone)
			stop()
			at := src.Offset()
			p.eventually("level", func(r report) bool { return r.Links[0].Applied >= at })
			c, err := rt.Compare(context.Background(), src.Endpoint(), dst.Endpoint(), rt.CompareOptions{Grace: grace, IgnoreReadCounts: true})
			if err != nil || !c.Equal() || c.Keys == 0 {
				t.Errorf("%v %s", err, c)
			}
		})
	}
}

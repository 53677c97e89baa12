package main

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestModuleValues: a target without the module of a value is not given it, in the snapshot nor in the stream: Redis 6.0
// would end itself.
func TestModuleValues(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"redis-6.0", "redis-7.0", "valkey-9.1", "redis-8.0"} {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			rt.Require(t, "redis-8.0")
			rt.Require(t, to)
			source, target := rt.Start(t, rt.Options{Release: "redis-8.0"}), rt.Start(t, rt.Options{Release: to})
			source.MustDo("SET", "before", 1)
			for i := range 50 {
				source.MustDo("VADD", "vectors", "VALUES", 3, i, 2, 3, fmt.Sprint("element ", i))
			}
			has := to == "redis-8.0"
			if !has {
				p := start(t, between(source, target, "--until", "caught-up")...)
				p.exit(haul.ExitRefused, `module for values of type "vectorset"`)
				if n := target.MustDo("DBSIZE").Int; n != 0 {
					t.Errorf("%d keys were written", n)
				}
			}
			p := start(t, between(source, target, "--unsupported", "drop")...)
			p.streaming()
			payload := source.MustDo("DUMP", "vectors").Text
			source.MustDo("RESTORE", "restored", 0, payload)
			source.MustDo("SET", "behind", 1)
			at := source.Offset()
			p.eventually("applied", func(r report) bool { return r.Links[0].Applied >= at })
			for key, want := range map[string]bool{"before": true, "behind": true, "vectors": has, "restored": has} {
				if got := target.MustDo("EXISTS", key).Int == 1; got != want {
					t.Errorf("%s is on the target: %t, want %t", key, got, want)
				}
			}
			if lacks := listed(t, filepath.Join(p.state, "default", "unsupported.log"), "keys"); !has && fmt.Sprint(lacks) != "[[restored] [vectors]]" || has && len(lacks) > 0 {
				t.Errorf("listed are %v", lacks)
			}
		})
	}
}

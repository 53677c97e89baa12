package main

import (
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestUnsupportedIsRefusedFirst: what the source tells of itself, and the target cannot hold, is refused before anything is
// written, unless it may be left out.
func TestUnsupportedIsRefusedFirst(t *testing.T) {
	t.Parallel()
	library := "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
	for _, x := range []struct{ from, to, lacks string }{
		{"redis-8.0", "redis-7.0", "hash field TTLs (1 hashes)"},
		{"valkey-9.1", "redis-6.0", "hash field TTLs (1 hashes), functions (1 libraries)"},
		{"redis-7.0", "redis-6.0", "functions (1 libraries)"},
	} {
		t.Run(x.from+" to "+x.to, func(t *testing.T) {
			t.Parallel()
			rt.Require(t, x.from)
			rt.Require(t, x.to)
			source, target := rt.Start(t, rt.Options{Release: x.from}), rt.Start(t, rt.Options{Release: x.to})
			source.MustDo("HSET", "hash", "field", 1)
			if strings.Contains(x.lacks, "TTLs") {
				source.MustDo("HPEXPIRE", "hash", 1_000_000, "FIELDS", 1, "field")
			}
			if strings.Contains(x.lacks, "functions") {
				source.MustDo("FUNCTION", "LOAD", library)
			}
			p := start(t, between(source, target, "--until", "caught-up")...)
			p.exit(haul.ExitRefused)
			if said := p.stderr(); !strings.Contains(said, "no form for: "+x.lacks) {
				t.Errorf("it says %s", said)
			}
			if n := target.MustDo("DBSIZE").Int; n != 0 {
				t.Errorf("the target has %d keys", n)
			}
			start(t, between(source, target, "--until", "caught-up", "--unsupported", "degrade")...).exit(haul.ExitDone)
			if target.MustDo("HGET", "hash", "field").Text != "1" {
				t.Error("the hash is not on the target")
			}
		})
	}
}

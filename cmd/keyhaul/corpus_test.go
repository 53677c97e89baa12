package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// corpora are folders of snapshots: our own, and those written by others, which are beside this project.
var corpora = []string{"../../rdb/testdata", "../../../shared/rdb-corpus/hdt3213", "../../../shared/rdb-corpus/redis", "../../../shared/rdb-corpus/valkey"}

// TestCorpus: a server gets from keyhaul what it would have loaded from a file itself. A file that it cannot load, keyhaul
// refuses, or loads.
func TestCorpus(t *testing.T) {
	t.Parallel()
	var files []string
	for _, dir := range corpora {
		some, err := filepath.Glob(dir + "/*.rdb")
		if err != nil {
			t.Fatal(err)
		}
		if len(some) == 0 {
			t.Logf("%s is not there", dir)
		}
		files = append(files, some...)
	}
	for _, release := range []string{"redis-6.0", "redis-7.0", "redis-8.0", "valkey-9.1"} {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			rt.Require(t, release)
			target := rt.Start(t, rt.Options{Release: release, Config: map[string]string{"databases": "64"}})
			loaded := 0
			for _, file := range files {
				target.MustDo("FLUSHALL")
				if release >= "redis-7.0" {
					target.MustDo("FUNCTION", "FLUSH")
				}
				if fromFile(t, release, file, target) {
					loaded++
				}
			}
			t.Logf("of %d files, the server loads %d", len(files), loaded)
			if loaded < len(files)/2 {
				t.Error("that is too few")
			}
		})
	}
}

// fromFile takes a file to the target, and compares that with what a server of its release has loaded, if it can.
func fromFile(t *testing.T, release, file string, target *rt.Server) (loaded bool) {
	t.Helper()
	p := start(t, "--source", "rdb://"+file, "--target", target.URL(), "--unsupported", "degrade")
	<-p.ended
	exit, said := p.cmd.ProcessState.ExitCode(), p.stderr()
	bytes, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dump.rdb"), bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	err = rt.Run(t.Logf, func(tb rt.TB) {
		server := rt.Start(tb, rt.Options{Release: release, Config: map[string]string{"dir": dir, "dbfilename": "dump.rdb", "databases": "64"}})
		loaded = true
		r, err := rt.Compare(context.Background(), server.Endpoint(), target.Endpoint(), rt.CompareOptions{})
		switch {
		case exit != int(haul.ExitDone):
			t.Errorf("%s: the server loads it, and keyhaul ends with %d: %s", file, exit, said)
		case err != nil:
			t.Errorf("%s: %v", file, err)
		case !r.Equal():
			t.Errorf("%s: %s", file, r)
		}
	})
	if !loaded && exit != int(haul.ExitDone) && !slices.ContainsFunc([]string{"byte ", "snapshot"}, func(s string) bool { return strings.Contains(said, s) }) {
		t.Errorf("%s: the server says %v, and keyhaul does not say where it is wrong: %s", file, err, said)
	}
	t.Logf("%s: loaded by the server %t, keyhaul ends with %d", filepath.Base(file), loaded, exit)
	return loaded
}

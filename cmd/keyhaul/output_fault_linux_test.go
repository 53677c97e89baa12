package main

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestFileTargetDiskFull: a full disk ends the run, with what to do, and leaves nothing behind.
func TestFileTargetDiskFull(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	noise := make([]byte, 1<<20)
	for i := range 20 {
		if _, err := rand.Read(noise); err != nil {
			t.Fatal(err)
		}
		source.MustDo("SET", i, string(noise))
	}
	dir := smallDisk(t)
	for _, target := range []string{"rdb://" + dir + "/dump.rdb", "rdb://" + dir + "/dump.rdb.zst", "jsonl://" + dir + "/keys.gz"} {
		start(t, "--source", source.URL(), "--target", target).
			exit(haul.ExitFailed, "no space left on device", "make room in "+dir)
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: %v is left, %v", target, left, err)
		}
	}
}

// TestFileTargetBeginsAnew: a snapshot that breaks off is asked for again, and the file has the second one only.
func TestFileTargetBeginsAnew(t *testing.T) {
	for _, tt := range []struct{ scheme, name string }{{"rdb", "dump.rdb"}, {"rdb", "dump.rdb.gz"}, {"resp", "commands"}} {
		source := rt.Start(t, rt.Options{Config: map[string]string{"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}})
		variety(t, source)
		gate := rt.NewProxy(t, source.Addr)
		gate.CutAfter(200_000, rt.ToClient)
		path := filepath.Join(t.TempDir(), tt.name)
		start(t, "--source", "redis://"+gate.Addr(), "--target", tt.scheme+"://"+path, "--buffer-max-bytes", "1MiB").
			exit(haul.ExitDone, "a new full sync is asked for")
		var copied *rt.Server
		if tt.scheme == "resp" {
			copied = piped(t, path)
		} else {
			copied = rt.Start(t, rt.Options{})
			start(t, "--source", "rdb://"+path, "--target", copied.URL()).exit(haul.ExitDone)
		}
		equal(t, source.Endpoint(), copied.Endpoint())
	}
}

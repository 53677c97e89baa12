package main

import (
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// TestAppendOnlyFileTargetRestarts: a target that is killed in the middle of an append-only file and comes back with less
// gets what it lacks, once.
func TestAppendOnlyFileTargetRestarts(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, logged("yes"))
	writes(t, source, time.Second, false)
	rewriteAOF(t, source)
	writes(t, source, 2*time.Second, false)
	source.Kill()
	s := &trial{t: t, setup: setup{proxied: true, target: map[string]string{"appendonly": "yes", "appendfsync": "no"}}}
	s.startTarget()
	s.gates[0].Limit(400_000)
	p := start(t, append(s.args, "--source", "aof://"+aofFiles(source), "--target", s.to)...)
	for i := range int64(3) {
		p.eventually("in the middle", func(r report) bool {
			return r.Links[0].Applied > 0 && r.Links[0].Applied > r.Links[0].SourceOffset*(i+1)/5
		})
		s.nodes[0].Kill()
		s.nodes[0].Restart()
	}
	p.exit(haul.ExitDone)
	source.Restart()
	report, err := rt.Compare(t.Context(), source.Endpoint(), s.target, rt.CompareOptions{IgnoreReadCounts: true})
	if err != nil || !report.Equal() {
		t.Errorf("%v\n%s", err, report)
	}
}

// TestAppendOnlyFileSpansSlots: what only a server could tell is refused, and named.
func TestAppendOnlyFileSpansSlots(t *testing.T) {
	t.Parallel()
	b := resp.AppendCommand(nil, "SET", "a", "1")
	b = resp.AppendCommand(b, "RENAME", "a", "b")
	file := fileOf(t, t.TempDir()+"/a.aof", resp.AppendCommand(b, "SET", "c", "1"))
	url, _ := targetOf(t, true)
	start(t, "--source", "aof://"+file, "--target", url).exit(haul.ExitFailed, "RENAME", "slot", "What to do: ")
	start(t, "--source", "aof://"+file, "--target", url, "--on-error", "skip").exit(haul.ExitDone, "an entry was skipped")
}

// TestFilesMapDatabases: databases of files go where --db-map says, and those that the target lacks are named.
func TestFilesMapDatabases(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, logged("yes"))
	for _, db := range []int{0, 1, 9} {
		source.MustDo("SELECT", db)
		source.MustDo("SET", "k", db)
	}
	for _, url := range []string{"rdb://" + dump(source), "aof://" + aofFiles(source)} {
		target := rt.Start(t, rt.Options{Config: map[string]string{"databases": "4"}})
		start(t, "--source", url, "--target", target.URL(), "--name", "small").exit(haul.ExitFailed, "no database 9")
		start(t, "--source", url, "--target", target.URL(), "--existing", "flush", "--db-map", "0=2,1=0,9=drop").exit(haul.ExitDone)
		for db, want := range []string{"1", "", "0", ""} {
			target.MustDo("SELECT", db)
			if got := target.MustDo("GET", "k").Text; got != want {
				t.Errorf("%s: database %d has %q, want %q", url, db, got, want)
			}
		}
	}
}

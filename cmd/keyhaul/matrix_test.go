package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// someOfMatrix is what a usual run of the tests looks at. KEYHAUL_TEST_MATRIX=FILE tries every pair and writes the table.
var someOfMatrix = [][2]string{
	{"redis-8.0", "redis-7.0"},
	{"redis-7.0", "redis-6.0"},
	{"valkey-9.1", "redis-8.0"},
	{"redis-8.0", "valkey-9.1"},
	{"redis-6.0", "valkey-8.1"},
	{"redict-7.3", "valkey-8.0"},
}

// cell is what becomes of the data of one release on another.
type cell struct {
	lacks  []string // by the target, done without
	failed string   // why the haul is no good
}

func (c cell) String() string {
	switch {
	case c.failed != "":
		return "**fails**: " + c.failed
	case len(c.lacks) > 0:
		return "degraded: " + strings.Join(c.lacks, ", ")
	}
	return "works"
}

// TestMatrix hauls keys of every kind from one release to another, in the snapshot and in the stream, and compares all.
func TestMatrix(t *testing.T) {
	t.Parallel()
	file := os.Getenv("KEYHAUL_TEST_MATRIX")
	pairs := someOfMatrix
	if file != "" {
		pairs = nil
		for _, from := range rt.Releases() {
			for _, to := range rt.Releases() {
				pairs = append(pairs, [2]string{from, to})
			}
		}
	}
	cells := make([]cell, len(pairs))
	t.Run("pairs", func(t *testing.T) {
		for i, p := range pairs {
			t.Run(p[0]+" to "+p[1], func(t *testing.T) {
				if file == "" {
					t.Parallel()
				}
				rt.Require(t, p[0])
				rt.Require(t, p[1])
				cells[i] = hauled(t, p[0], p[1], i)
				if cells[i].failed != "" {
					t.Error(cells[i].failed)
				}
			})
		}
	})
	if file != "" {
		if err := os.WriteFile(file, []byte(matrixTable(pairs, cells)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// hauled is one haul. Releases take turns in what a snapshot says about the use of keys.
func hauled(t *testing.T, from, to string, turn int) cell {
	policy := []string{"allkeys-lru", "allkeys-lfu", "noeviction"}[turn%3]
	source := rt.Start(t, rt.Options{Release: from, Config: map[string]string{"maxmemory-policy": policy}})
	target := rt.Start(t, rt.Options{Release: to})
	wrote := source.WriteEvery("snapshot")
	p := start(t, between(source, target, "--unsupported", "degrade", "--on-error", "skip")...)
	p.streaming()
	if again := source.WriteEvery("stream"); again != wrote {
		t.Fatalf("%d commands are carried out, then %d", wrote, again)
	}
	at := source.Offset()
	p.eventually("applied", func(r report) bool { return r.Links[0].Applied >= at })
	c := cell{lacks: listed(t, filepath.Join(p.state, "default", "unsupported.log"), "lacks")}
	if refused := listed(t, filepath.Join(p.state, "default", "errors.log"), "error"); len(refused) > 0 {
		c.failed = strings.Join(refused, "; ")
		return c
	}
	if len(c.lacks) > 0 {
		isRefused(t, source, rt.Start(t, rt.Options{Release: to}), c.lacks)
	}
	for _, key := range listed(t, filepath.Join(p.state, "default", "unsupported.log"), "keys") {
		if key = strings.Trim(key, "[]"); key != "" && target.MustDo("EXISTS", key).Int == 0 {
			source.MustDo("DEL", key) // it was left out
		}
	}
	s := &trial{t: t, source: source, target: target.Endpoint()}
	if r := s.compare(rt.CompareOptions{Grace: grace}); !r.Equal() || r.Keys < 100 {
		c.failed = strings.ReplaceAll(r.String(), "\n", " ")
	}
	ours, theirs := source.Do("FUNCTION", "LIST", "WITHCODE"), target.Do("FUNCTION", "LIST", "WITHCODE")
	if ours.Err() == nil && theirs.Err() == nil && len(ours.Array) != len(theirs.Array) {
		c.failed = fmt.Sprintf("%d functions of %d", len(theirs.Array), len(ours.Array))
	}
	return c
}

// isRefused expects a haul to end for what the target lacks, and to say so.
func isRefused(t *testing.T, source, target *rt.Server, lacks []string) {
	t.Helper()
	p := start(t, between(source, target, "--until", "caught-up")...)
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatal("keyhaul still runs")
	}
	code := haul.Exit(p.cmd.ProcessState.ExitCode())
	named := slices.ContainsFunc(lacks, func(what string) bool { return strings.Contains(p.stderr(), what) })
	if code != haul.ExitRefused && code != haul.ExitFailed || !named || !strings.Contains(p.stderr(), "--unsupported") {
		t.Errorf("exit code %d, and no word of %v", code, lacks)
	}
}

// listed returns the different values of a field in a file of JSON lines, in order.
func listed(t *testing.T, path, field string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		var x map[string]any
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatal(err)
		}
		all[fmt.Sprint(x[field])] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// matrixTable is the file with the results.
func matrixTable(pairs [][2]string, cells []cell) string {
	var b strings.Builder
	b.WriteString(matrixHead)
	releases := rt.Releases()
	b.WriteString("| from \\ to | " + strings.Join(releases, " | ") + " |\n|" + strings.Repeat("---|", len(releases)+1) + "\n")
	notes := map[string]int{}
	var texts []string
	for i := range pairs {
		if i%len(releases) == 0 {
			fmt.Fprintf(&b, "| **%s** |", pairs[i][0])
		}
		mark := "works"
		if text := cells[i].String(); text != mark {
			if notes[text] == 0 {
				texts = append(texts, text)
				notes[text] = len(texts)
			}
			word, _, _ := strings.Cut(text, ":")
			mark = fmt.Sprintf("%s [%d]", word, notes[text])
		}
		fmt.Fprintf(&b, " %s |", cmp.Or(mark, "-"))
		if i%len(releases) == len(releases)-1 {
			b.WriteString("\n")
		}
	}
	for i, text := range texts {
		fmt.Fprintf(&b, "\n%d. %s", i+1, text)
	}
	if len(texts) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

const matrixHead = `# Which release goes to which

Each pair was run by ` + "`make matrix`" + `: a source of one release with keys of every kind, a snapshot, then the same kinds of keys as a
stream, and in the end every key compared by value, deadline and metadata. The keys are strings (text, bytes, integers, empty, 6 MB,
bitmaps, HyperLogLogs), lists, sets, hashes, sorted sets and geo sets in their small and large encodings, deadlines of keys and of
hash fields, streams with groups, pending and deleted entries and idle consumers, vector sets, functions, what scripts write, several
databases, names of bytes, and data about the use of keys (LRU, LFU), which is sent and not compared.
Both ends are single servers.

- **works**: the target holds what the source holds.
- **degraded**: with ` + "`--unsupported degrade`" + ` all but what the note names, for the target has nothing of the kind. Without it, keyhaul
  refuses ` + "(`fail`, the default)" + ` at the first key or command that needs it.

`

package main

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// mixed is a server with keys of all kinds in two databases, and functions where it has them.
func mixed(t *testing.T, config map[string]string) *rt.Server {
	t.Helper()
	s := rt.Start(t, rt.Options{Config: config})
	if err := rt.FillMixed(t.Context(), s.Endpoint(), 0.01, 7); err != nil {
		t.Fatal(err)
	}
	s.MustDo("SELECT", 3)
	s.MustDo("SET", "elsewhere", "v")
	s.MustDo("SET", "large", strings.Repeat("0123456789", 1_000_000))
	s.MustDo("SELECT", 0)
	if s.Version.AtLeast(7, 0) {
		s.MustDo("FUNCTION", "LOAD", "#!lua name=mylib\nredis.register_function('f', function() return 1 end)")
	}
	return s
}

// dump has a server write its snapshot, and returns the file.
func dump(s *rt.Server) string {
	s.MustDo("SAVE")
	return filepath.Join(s.Dir, "dump.rdb")
}

func bytesOf(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func fileOf(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// packed returns a compressed copy of a file.
func packed(t *testing.T, path string, pack func(io.Writer) (io.WriteCloser, error)) string {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "packed"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w, err := pack(out)
	if err == nil {
		_, err = w.Write(bytesOf(t, path))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

// TestSnapshotFile: a snapshot file in every form in which it may come is what the server has that wrote it.
func TestSnapshotFile(t *testing.T) {
	t.Parallel()
	source := mixed(t, nil)
	file := dump(source)
	gz := packed(t, file, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	zst := packed(t, file, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
	size := func(path string) int64 { return int64(len(bytesOf(t, path))) }
	for name, c := range map[string]struct {
		url   string
		stdin func() io.Reader
		args  []string
		total int64 // bytes of the file; 0 if they are not known
	}{
		"plain":    {url: "rdb://" + file, total: size(file)},
		"pattern":  {url: "rdb://" + source.Dir + "/du*.rdb", total: size(file)},
		"gzip":     {url: "rdb://" + gz, total: size(gz)},
		"zstd":     {url: "rdb://" + zst, args: []string{"--spool-max-bytes", "16MiB"}, total: size(zst)},
		"memory":   {url: "rdb://" + zst, args: []string{"--state-dir", "none", "--buffer-max-bytes", "8MiB"}, total: size(zst)},
		"pipe":     {url: "rdb://-", stdin: func() io.Reader { return strings.NewReader(string(bytesOf(t, file))) }},
		"packed":   {url: "rdb://-", stdin: func() io.Reader { return strings.NewReader(string(bytesOf(t, gz))) }},
		"redirect": {url: "rdb://-", stdin: func() io.Reader { f, _ := os.Open(file); return f }, total: size(file)},
	} {
		t.Run(name, func(t *testing.T) {
			target := rt.Start(t, rt.Options{})
			p := &process{t: t, ended: make(chan struct{}), state: t.TempDir()}
			if c.stdin != nil {
				p.stdin = c.stdin()
			}
			summary := filepath.Join(t.TempDir(), "summary.json")
			args := append([]string{"sync", "--source", c.url, "--target", target.URL(), "--http", "", "--summary-file", summary}, c.args...)
			if !strings.Contains(strings.Join(args, " "), "--state-dir") {
				args = append(args, "--state-dir", p.state)
			}
			p.run(nil, args...).exit(haul.ExitDone, "the snapshot is on the target", `"counts":{}`)
			equal(t, source.Endpoint(), target.Endpoint())
			if source.Version.AtLeast(7, 0) && !strings.Contains(target.MustDo("FUNCTION", "LIST").Array[0].Array[1].Text, "mylib") {
				t.Error("the function is missing")
			}
			var s struct{ Links []haul.LinkStatus }
			if err := json.Unmarshal(bytesOf(t, summary), &s); err != nil {
				t.Fatal(err)
			}
			if l := s.Links[0]; l.SnapshotTotal != c.total || c.total > 0 && l.SnapshotBytes != c.total || l.SnapshotKeys == 0 || !l.SnapshotDone || l.Phase != haul.PhaseCaughtUp {
				t.Errorf("of %d bytes: %+v", c.total, l)
			}
			left, err := filepath.Glob(p.state + "/default/spool/*")
			if err != nil || len(left) > 0 {
				t.Errorf("%v, %v is left of the spool", err, left)
			}
		})
	}
}

// TestSnapshotFilesToCluster: the dumps of a cluster's nodes into another cluster, and once more: then nothing is left to do.
func TestSnapshotFilesToCluster(t *testing.T) {
	t.Parallel()
	from := rt.StartCluster(t, rt.ClusterOptions{Primaries: 3})
	if err := rt.FillMixed(t.Context(), from.Endpoint(), 0.01, 8); err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, node := range from.Primaries() {
		files = append(files, dump(node))
	}
	to := rt.StartCluster(t, rt.ClusterOptions{Primaries: 3})
	state := t.TempDir()
	args := []string{"--source", "rdb://" + strings.Join(files, ","), "--target", "redis://" + to.Seeds()[0], "--state-dir", state}
	start(t, args...).exit(haul.ExitDone)
	equal(t, from.Endpoint(), to.Endpoint())
	start(t, args...).exit(haul.ExitDone, "an earlier run is continued")
	equal(t, from.Endpoint(), to.Endpoint())
}

// logged are options of a server with an append-only file, which has what was answered, whatever kills the server.
func logged(preamble string) rt.Options {
	return rt.Options{Config: map[string]string{
		"appendonly": "yes", "appendfsync": "no", "aof-use-rdb-preamble": preamble, "auto-aof-rewrite-percentage": "0",
	}}
}

// aofFiles are those of a server that has stopped.
func aofFiles(s *rt.Server) string {
	if s.Version.AtLeast(7, 0) {
		return filepath.Join(s.Dir, "appendonlydir")
	}
	return filepath.Join(s.Dir, "appendonly.aof")
}

// writes has a server written to for a while, with commands that must not be repeated and sessions that are renewed.
func writes(t *testing.T, s *rt.Server, d time.Duration, tagged bool) {
	t.Helper()
	load := rt.Load{Endpoint: s.Endpoint(), Mix: rt.MixHard, Tagged: tagged, Rate: 6000, Seed: rand.Uint64(), Keys: 100, Databases: 1}
	if !tagged {
		load.Databases = 3
	}
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if _, err := load.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func rewriteAOF(t *testing.T, s *rt.Server) {
	t.Helper()
	s.MustDo("BGREWRITEAOF")
	rt.Eventually(t, patience, func() error {
		if s.Number("persistence", "aof_rewrite_in_progress")+s.Number("persistence", "aof_rewrite_scheduled") > 0 {
			return io.ErrNoProgress
		}
		return nil
	})
}

// TestAppendOnlyFile: what keyhaul makes of an append-only file is what the server makes of it when it starts.
func TestAppendOnlyFile(t *testing.T) {
	t.Parallel()
	for name, preamble := range map[string]string{"with a snapshot": "yes", "commands only": "no"} {
		for where, cluster := range map[string]bool{"server": false, "cluster": true} {
			t.Run(name+" to a "+where, func(t *testing.T) {
				t.Parallel()
				source := rt.Start(t, logged(preamble))
				writes(t, source, time.Second, cluster)
				rewriteAOF(t, source)
				writes(t, source, time.Second, cluster)
				source.MustDo("SET", "session", "v", "PX", 300)
				source.MustDo("PERSIST", "session") // when the file is loaded the deadline before has passed
				source.Kill()
				url, ep := targetOf(t, cluster)
				start(t, "--source", "aof://"+aofFiles(source), "--target", url).exit(haul.ExitDone)
				source.Restart()
				if got := source.MustDo("GET", "session").Text; got != "v" {
					t.Fatalf("the server itself has %q", got)
				}
				report, err := rt.Compare(t.Context(), source.Endpoint(), ep, rt.CompareOptions{IgnoreReadCounts: true})
				if err != nil || !report.Equal() {
					t.Errorf("%v\n%s", err, report)
				}
			})
		}
	}
}

func targetOf(t *testing.T, cluster bool) (string, rt.Endpoint) {
	t.Helper()
	if !cluster {
		s := rt.Start(t, rt.Options{})
		return s.URL(), s.Endpoint()
	}
	c := rt.StartCluster(t, rt.ClusterOptions{Primaries: 3})
	return "redis://" + c.Seeds()[0], c.Endpoint()
}

// TestAppendOnlyFileKilled: keyhaul is killed again and again in the middle of an append-only file, and what must not be
// repeated is not.
func TestAppendOnlyFileKilled(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		source := rt.Start(t, logged("yes"))
		writes(t, source, time.Second, cluster)
		rewriteAOF(t, source)
		writes(t, source, 4*time.Second, cluster)
		source.Kill()
		target := &trial{t: t, setup: setup{cluster: cluster, proxied: true}}
		target.startTarget()
		for _, gate := range target.gates {
			gate.Limit(500_000)
		}
		const kills = 6
		state, reached := t.TempDir(), int64(0)
		for i := 0; ; i++ {
			if rand.IntN(2) == 0 {
				state = t.TempDir()
			}
			p := start(t, append(target.args, "--source", "aof://"+aofFiles(source), "--target", target.to, "--state-dir", state)...)
			if i == kills {
				p.exit(haul.ExitDone)
				break
			}
			p.eventually("further than before", func(r report) bool {
				l := r.Links[0]
				if l.Applied < reached+(l.SourceOffset-reached)/10 {
					return false
				}
				reached = l.Applied
				return true
			})
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		source.Restart()
		report, err := rt.Compare(t.Context(), source.Endpoint(), target.target, rt.CompareOptions{IgnoreReadCounts: true})
		if err != nil || !report.Equal() {
			t.Errorf("after %d kills: %v\n%s", kills, err, report)
		}
		t.Logf("killed %d times, at byte %d last; %d keys", kills, reached, report.Keys)
	})
}

// TestAppendOnlyFileGrows: a run goes on where the last one has ended, in the same file that has grown since and in the
// ones that a restart of the server has begun.
func TestAppendOnlyFileGrows(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, logged("yes"))
	target := rt.Start(t, rt.Options{})
	state := t.TempDir()
	run := func(code haul.Exit, texts ...string) {
		t.Helper()
		start(t, "--source", "aof://"+aofFiles(source), "--target", target.URL(), "--state-dir", state).exit(code, texts...)
		if code == haul.ExitDone {
			equal(t, source.Endpoint(), target.Endpoint())
		}
	}
	source.MustDo("INCR", "n")
	run(haul.ExitDone)
	source.MustDo("SELECT", 2)
	for range 3 {
		source.MustDo("INCR", "n")
		source.MustDo("SET", "k", "v", "PX", 3_600_000)
		run(haul.ExitDone, "an earlier run is continued")
	}
	source.Restart()
	source.MustDo("INCR", "n")
	run(haul.ExitDone)
	rewriteAOF(t, source)
	if source.Version.AtLeast(7, 0) {
		run(haul.ExitHistoryLost, "is not what this haul has read before", "--on-lost-history")
	}
}

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// TestAppendOnlyFileUntil: an append-only file is read up to a time, or up to a byte.
func TestAppendOnlyFileUntil(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	command := func(args ...string) { b.Write(resp.AppendCommand(nil, args...)) }
	b.WriteString("#TS:1700000000\r\n")
	command("SELECT", "0")
	command("INCR", "n")
	b.WriteString("#TS:1700000100\r\n")
	command("INCR", "n")
	command("MULTI")
	command("INCR", "n")
	inside := b.Len()
	command("INCR", "n")
	command("EXEC")
	whole := b.Len()
	b.WriteString("#TS:1700000200\r\n")
	command("INCR", "n")
	file := fileOf(t, filepath.Join(t.TempDir(), "appendonly.aof"), []byte(b.String()))
	plain := fileOf(t, filepath.Join(t.TempDir(), "plain.aof"), []byte("*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"))
	for until, c := range map[string]struct {
		file, want string
		code       haul.Exit
		text       string
	}{
		"1700000000":                        {file, "1", 0, "up to byte"},
		"2023-11-14T22:14:59Z":              {file, "1", 0, "up to byte"},
		"1700000150":                        {file, "4", 0, ""},
		"1900000000":                        {file, "5", 0, ""},
		"offset:" + strconv.Itoa(inside):    {file, "2", 0, ""},
		"offset:" + strconv.Itoa(whole-1):   {file, "2", 0, ""},
		"offset:" + strconv.Itoa(whole):     {file, "4", 0, ""},
		"offset:" + strconv.Itoa(b.Len()+1): {file, "", 3, "is not within its commands"},
		"1600000000":                        {file, "", 3, "no commands up to 2020-09-13"},
		"1700000001":                        {plain, "", 3, "has no timestamps"},
		"yesterday":                         {file, "", 2, "RFC"},
	} {
		t.Run(until, func(t *testing.T) {
			target := rt.Start(t, rt.Options{})
			args := []string{"--source", "aof://" + c.file, "--target", target.URL(), "--aof-until", until}
			if c.text == "RFC" {
				c.text = "2026-01-31T15:04:05Z"
			}
			start(t, args...).exit(c.code, c.text)
			if got := target.MustDo("GET", "n").Text; got != c.want {
				t.Errorf("n is %q, want %q", got, c.want)
			}
		})
	}
	target := rt.Start(t, rt.Options{})
	for _, step := range []struct {
		until string
		want  string
		code  haul.Exit
	}{{"1700000000", "1", 0}, {"offset:" + strconv.Itoa(whole), "4", 0}, {"1700000000", "4", 3}, {"", "5", 0}} {
		start(t, "--source", "aof://"+file, "--target", target.URL(), "--aof-until", step.until).exit(step.code)
		if got := target.MustDo("GET", "n").Text; got != step.want {
			t.Errorf("until %q: n is %q, want %q", step.until, got, step.want)
		}
	}
}

// TestAppendOnlyFileTimes: a time to live counts from when its command was executed: by the timestamps of the file, or else
// from when that was last written to. Deadlines of keys that the target has already stay what they are.
func TestAppendOnlyFileTimes(t *testing.T) {
	t.Parallel()
	now := time.Now().Truncate(time.Second)
	past := now.Add(-1000 * time.Second)
	dir := t.TempDir()
	var b []byte
	add := func(args ...string) { b = resp.AppendCommand(b, args...) }
	add("SET", "early", "v", "EX", "5000") // before any timestamp: the file's own time counts
	b = append(b, "#TS:"+strconv.FormatInt(past.Unix(), 10)+"\r\n"...)
	add("SET", "k", "v", "EX", "5000")
	add("SET", "gone", "v", "PX", "900000")
	add("SET", "kept", "v", "PX", "100")
	add("PERSIST", "kept")
	b = append(b, "#TS:"+strconv.FormatInt(past.Unix()+500, 10)+"\r\n"...)
	add("SET", "later", "v")
	add("EXPIRE", "later", "5000")
	add("MULTI")
	add("SET", "big", strings.Repeat("x", 300_000), "EX", "5000")
	add("EXEC")
	file := fileOf(t, filepath.Join(dir, "appendonly.aof"), b)
	written := now.Add(-100 * time.Second)
	if err := os.Chtimes(file, written, written); err != nil {
		t.Fatal(err)
	}
	target := rt.Start(t, rt.Options{})
	target.MustDo("SET", "own", "v", "EX", 700)
	start(t, "--source", "aof://"+file, "--target", target.URL(), "--existing", "replace", "--buffer-max-bytes", "1MiB").exit(haul.ExitDone)
	for key, want := range map[string]time.Time{
		"early": written.Add(5000 * time.Second), "k": past.Add(5000 * time.Second), "later": past.Add(5500 * time.Second),
		"big": past.Add(5500 * time.Second), "own": time.Now().Add(700 * time.Second),
	} {
		left := time.Duration(target.MustDo("PTTL", key).Int) * time.Millisecond
		if d := time.Until(want) - left; d < -3*time.Second || d > 3*time.Second {
			t.Errorf("%s: %v are left, want %v", key, left, time.Until(want))
		}
	}
	if target.MustDo("EXISTS", "gone").Int != 0 || target.MustDo("PTTL", "kept").Int != -1 {
		t.Errorf("gone: %v, kept: %v", target.MustDo("PTTL", "gone"), target.MustDo("PTTL", "kept"))
	}
}

// TestAppendOnlyFileLargeGroup: nothing of a transaction that is too large to be kept whole is written if its end is cut off.
func TestAppendOnlyFileLargeGroup(t *testing.T) {
	t.Parallel()
	b := resp.AppendCommand(nil, "SET", "first", "v")
	b = resp.AppendCommand(b, "MULTI")
	for range 400 {
		b = resp.AppendCommand(b, "RPUSH", "list", strings.Repeat("x", 1000))
	}
	cut := len(b)
	b = resp.AppendCommand(b, "EXEC")
	b = resp.AppendCommand(b, "SET", "last", "v")
	for name, c := range map[string]struct{ size, want int }{"whole": {len(b), 400}, "cut": {cut, 0}, "cut within EXEC": {cut + 5, 0}} {
		t.Run(name, func(t *testing.T) {
			target := rt.Start(t, rt.Options{})
			file := fileOf(t, filepath.Join(t.TempDir(), "a.aof"), b[:c.size])
			start(t, "--source", "aof://"+file, "--target", target.URL(), "--buffer-max-bytes", "1MiB").exit(haul.ExitDone)
			if n := target.MustDo("LLEN", "list").Int; n != int64(c.want) || target.MustDo("EXISTS", "first").Int != 1 {
				t.Errorf("%d of %d elements", n, c.want)
			}
		})
	}
}

// TestAppendOnlyFileSnapshot: --until snapshot stops behind what the file began with; a later run goes on.
func TestAppendOnlyFileSnapshot(t *testing.T) {
	t.Parallel()
	for _, preamble := range []string{"yes", "no"} {
		t.Run("preamble "+preamble, func(t *testing.T) {
			t.Parallel()
			source := rt.Start(t, logged(preamble))
			if !source.Version.AtLeast(7, 0) {
				t.Skip("the append-only file has one part only")
			}
			source.MustDo("SET", "base", "v", "EX", 1000)
			rewriteAOF(t, source)
			source.MustDo("SET", "behind", "v", "EX", 1000)
			target := rt.Start(t, rt.Options{})
			run := func(command ...string) {
				p := &process{t: t, ended: make(chan struct{})}
				p.run(nil, append(command, "--source", "aof://"+aofFiles(source), "--target", target.URL(), "--state-dir", "none", "--http", "")...).exit(haul.ExitDone)
			}
			run("sync", "--until", "snapshot")
			if target.MustDo("EXISTS", "base").Int != 1 || target.MustDo("EXISTS", "behind").Int != 0 {
				t.Error("it has not stopped behind the base")
			}
			run("finish")
			equal(t, source.Endpoint(), target.Endpoint())
		})
	}
}

// TestGoldenFiles: a snapshot of each release is what a server of that release loads.
func TestGoldenFiles(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../rdb/testdata/*.rdb")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		release := releaseOf(name)
		if !slices.Contains(rt.Releases(), release) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fileOf(t, filepath.Join(dir, name), bytesOf(t, file))
			loaded := rt.Start(t, rt.Options{Release: release, Config: map[string]string{"dir": dir, "dbfilename": name}})
			target := rt.Start(t, rt.Options{Release: release})
			start(t, "--source", "rdb://"+file, "--target", target.URL()).exit(haul.ExitDone)
			equal(t, loaded.Endpoint(), target.Endpoint())
			keys := func(s *rt.Server) string { return s.Info("keyspace")["db0"] }
			if !strings.Contains(name, "empty") && keys(loaded) == "" {
				t.Error("the server has loaded nothing")
			}
		})
	}
}

// releaseOf is the release that has made a golden file: redis-7.0-plain.rdb is of redis-7.0.
func releaseOf(name string) string {
	parts := strings.SplitN(strings.TrimSuffix(name, ".rdb"), "-", 3)
	return parts[0] + "-" + parts[1]
}

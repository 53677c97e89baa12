package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// variety fills a server with everything that files must hold: all types, several databases, deadlines, names and values
// of any bytes, values that do not travel in a batch, functions.
func variety(t *testing.T, s *rt.Server) {
	t.Helper()
	if err := rt.FillMixed(t.Context(), rt.Addr(s.Addr), 0.002, 3); err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	s.MustDo("SET", string(all), string(all))
	s.MustDo("SET", "base64:", "base64:AA==")
	s.MustDo("SET", "empty", "")
	s.MustDo("SET", "lines", "a\r\nb\t\"quoted\" \\ ünï\u2028")
	s.MustDo("SET", "big:text", strings.Repeat("gröss ", 300_000))
	s.MustDo("SET", "big:binary", strings.Repeat("\xff\x00", 1_000_000))
	s.MustDo("SET", "number", -1234567)
	for i := range 60 {
		s.MustDo("RPUSH", "big:list", strings.Repeat(fmt.Sprint(i, "-"), 10_000), i)
		s.MustDo("HSET", "big:hash", strings.Repeat(fmt.Sprint(i, "\xfe"), 5_000), strings.Repeat("v", 5_000))
	}
	s.MustDo("ZADD", "scores", "inf", "top", "-inf", "low", "-0", "zero", "0.1", "tenth", "1e300", "far", 3, "\xff")
	s.MustDo("XADD", "stream", "5-1", "f", "\xff", "f", "twice")
	s.MustDo("XADD", "stream", "6-1", "g", "v")
	s.MustDo("XDEL", "stream", "5-1")
	s.MustDo("XGROUP", "CREATE", "stream", "readers", "0")
	s.MustDo("XREADGROUP", "GROUP", "readers", "one", "STREAMS", "stream", ">")
	s.MustDo("PFADD", "hll", "a", "b", "c")
	if s.Version.Family == "redis" && s.Version.Major >= 8 || s.Version.Family == "valkey" && s.Version.Major >= 9 {
		s.MustDo("HSET", "ttl:hash", "a", 1, "b", 2, "c", 3)
		s.MustDo("HPEXPIREAT", "ttl:hash", 4102444800123, "FIELDS", 1, "b")
	}
	if s.Version.AtLeast(7, 0) {
		s.MustDo("FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('f', function() return 1 end)")
	}
	s.MustDo("SELECT", 9)
	s.MustDo("SET", "other", 1, "PX", 3_600_000)
	s.MustDo("SADD", "set", "x", "\x00y")
	s.MustDo("SELECT", 0)
}

// loaded starts a server and has it load a snapshot file.
func loaded(t *testing.T, path string) *rt.Server {
	t.Helper()
	s := rt.Start(t, rt.Options{})
	content, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(filepath.Join(s.Dir, "dump.rdb"), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.MustDo("DEBUG", "RELOAD", "NOSAVE")
	return s
}

// checked has a server's own tool look at a snapshot file, where it is known: it is the server's program under another name.
func checked(t *testing.T, s *rt.Server, path string) {
	t.Helper()
	server, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", s.Pid))
	if err != nil || !strings.HasPrefix(filepath.Base(server), s.Version.Family) {
		return
	}
	cmd := exec.CommandContext(t.Context(), server, path)
	cmd.Args[0] = s.Version.Family + "-check-rdb"
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("\\o/ RDB looks OK! \\o/")) {
		t.Errorf("%s: %v\n%s", cmd.Args[0], err, out)
	}
}

// piped has a server carry out a file of commands.
func piped(t *testing.T, path string) *rt.Server {
	t.Helper()
	s := rt.Start(t, rt.Options{})
	in, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close() //nolint:errcheck // only read
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "redis-cli", "-p", fmt.Sprint(s.Port), "--pipe")
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("errors: 0,")) {
		t.Fatalf("redis-cli --pipe: %v\n%s", err, out)
	}
	return s
}

// sameFunctions compares what Compare does not look at.
func sameFunctions(t *testing.T, source, target *rt.Server) {
	t.Helper()
	if !source.Version.AtLeast(7, 0) {
		return
	}
	want, got := source.MustDo("FUNCTION", "LIST", "WITHCODE"), target.MustDo("FUNCTION", "LIST", "WITHCODE")
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("functions: %v, want %v", got, want)
	}
}

func TestToSnapshotFile(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	variety(t, source)
	dir := t.TempDir()
	path := filepath.Join(dir, "dump.rdb")
	start(t, "--source", source.URL(), "--target", "rdb://"+path, "--buffer-max-bytes", "1MiB").exit(haul.ExitDone, "the file is whole")
	checked(t, source, path)
	target := loaded(t, path)
	equal(t, source.Endpoint(), target.Endpoint())
	sameFunctions(t, source, target)
	if left, err := filepath.Glob(path + "?*"); err != nil || len(left) > 0 {
		t.Errorf("%q is left, %v", left, err)
	}

	start(t, "--source", source.URL(), "--target", "rdb://"+path).exit(haul.ExitRefused, "exists already")
	other := filepath.Join(dir, "other.rdb")
	fileOf(t, other, []byte("was there"))
	start(t, "--source", "rdb://"+path, "--target", "rdb://"+other, "--existing", "replace", "--db-map", "9=4").exit(haul.ExitDone)
	again := loaded(t, other)
	again.MustDo("SWAPDB", 9, 4)
	equal(t, source.Endpoint(), again.Endpoint())
	p := start(t, "--source", source.URL(), "--target", "rdb://"+path, "--existing", "replace", "--dry-run")
	p.exit(haul.ExitDone)
	if plan := p.stdout(); !strings.Contains(plan, "target  rdb://"+path+": in place of") {
		t.Errorf("the plan: %s", plan)
	}
}

func TestToCommandFile(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	variety(t, source)
	path := filepath.Join(t.TempDir(), "commands.resp")
	start(t, "--source", source.URL(), "--target", "resp://"+path, "--buffer-max-bytes", "1MiB").exit(haul.ExitDone)
	target := piped(t, path)
	equal(t, source.Endpoint(), target.Endpoint())
	sameFunctions(t, source, target)
}

// TestToPlainCommandFile: plain commands for another release build what the source has, as far as that release can hold it.
func TestToPlainCommandFile(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	variety(t, source)
	dir := t.TempDir()
	own := strings.Replace(source.Version.String(), " ", "-", 1)
	for _, buffer := range []string{"1MiB", "64MiB"} {
		path := filepath.Join(dir, buffer)
		start(t, "--source", source.URL(), "--target", "resp://"+path, "--target-release", own, "--buffer-max-bytes", buffer).exit(haul.ExitDone)
		content, err := os.ReadFile(path)
		if err != nil || bytes.Contains(content, []byte("\r\nRESTORE\r\n")) {
			t.Errorf("%v, or a RESTORE", err)
		}
		target := piped(t, path)
		equal(t, source.Endpoint(), target.Endpoint())
		sameFunctions(t, source, target)
	}
	if !source.Version.AtLeast(7, 0) {
		return
	}
	old := []string{"--source", source.URL(), "--target", "resp://" + filepath.Join(dir, "old"), "--target-release", "redis-6.0"}
	start(t, old...).exit(haul.ExitFailed, "(redis 6.0) has no function", "--unsupported degrade")
	p := start(t, append(old, "--unsupported", "drop")...)
	p.exit(haul.ExitDone, "unsupported_dropped")
	if list, err := os.ReadFile(filepath.Join(p.state, "default", "unsupported.log")); err != nil || !bytes.Contains(list, []byte(`"lacks":"functions"`)) {
		t.Errorf("unsupported.log: %v, %s", err, list)
	}
}

// TestToCommandFileFollows: what is written while the snapshot is made is in the file too.
func TestToCommandFileFollows(t *testing.T) {
	source := rt.Start(t, rt.Options{Config: map[string]string{
		"rdb-key-save-delay": "200", "repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0",
	}})
	fill(t, source, 20_000)
	path := filepath.Join(t.TempDir(), "commands.resp")
	p := start(t, "--source", source.URL(), "--target", "resp://"+path, "--until", "caught-up")
	p.eventually("a snapshot", func(r report) bool { return r.Phase == haul.PhaseSnapshot && r.Links[0].SnapshotKeys > 0 })
	for i := range 100 {
		source.MustDo("INCR", "counter")
		if source.Version.AtLeast(6, 2) { // no client may send it as it is replicated
			source.MustDo("XADD", "trimmed", "MAXLEN", "~", 10, "LIMIT", 5, fmt.Sprint(i+1), "f", "v")
		}
		source.MustDo("MULTI")
		source.MustDo("RPUSH", "late", i)
		source.MustDo("SELECT", 3)
		source.MustDo("APPEND", "late", "x")
		source.MustDo("SELECT", 0)
		source.MustDo("EXEC")
	}
	p.exit(haul.ExitDone)
	equal(t, source.Endpoint(), piped(t, path).Endpoint())
}

func TestFileTargetRefuses(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	fill(t, source, 10)
	dir := t.TempDir()
	for _, tt := range []struct {
		target string
		args   []string
		code   haul.Exit
		text   string
	}{
		{"rdb://" + dir, nil, haul.ExitUsage, "no regular file"},
		{"rdb://" + dir + "/none/x.rdb", nil, haul.ExitUsage, "no such file"},
		{"rdb://" + dir + "/x.rdb", []string{"--until", "caught-up"}, haul.ExitUsage, "must be snapshot"},
		{"jsonl://" + dir + "/x", []string{"--existing", "flush"}, haul.ExitUsage, "must be fail or replace"},
		{"rdb://" + dir + "/x", []string{"--db-map", "1=0,0=0"}, haul.ExitUsage, "puts databases together"},
		{"rdb://" + dir + "/x", []string{"--target-password", "secret"}, haul.ExitUsage, "has no effect where the target is a file"},
		{"rdb://" + dir + "/x", []string{"--target-release", "redis-7.0"}, haul.ExitUsage, "no file of commands"},
		{"resp://" + dir + "/x", []string{"--target-release", "redis"}, haul.ExitUsage, "of the form redis-7.0"},
		{"rdb://-", nil, haul.ExitUsage, "names no file"},
		{"jsonl://me:secret@host/x", nil, haul.ExitUsage, "a file has no host and no login"},
		{"rdb://" + dir + "/x", []string{"--summary-file", dir}, haul.ExitUsage, "is a directory"},
		{"rdb://" + dir + "/x", []string{"--summary-file", dir + "/none/s"}, haul.ExitUsage, "summary file"},
		{"aof://" + dir + "/x", nil, haul.ExitUsage, "cannot be written"},
	} {
		p := start(t, append([]string{"--source", source.URL(), "--target", tt.target}, tt.args...)...)
		p.exit(tt.code, tt.text)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestFileTargetIsSource: a file that is read is not replaced, by whatever name.
func TestFileTargetIsSource(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, rt.Options{})
	fill(t, source, 10)
	file := dump(source)
	before := bytesOf(t, file)
	again := filepath.Join(filepath.Dir(file), "again.rdb")
	if err := os.Link(file, again); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"rdb://" + file, "jsonl://" + again} {
		start(t, "--source", "rdb://"+file, "--target", target, "--existing", "replace").exit(haul.ExitRefused, "is a file that is read")
	}
	if !bytes.Equal(bytesOf(t, file), before) {
		t.Error("the file is another one")
	}
}

// TestFileTargetStops: neither a signal nor kill -9 leaves anything under the file's name, and the next run writes it.
func TestFileTargetStops(t *testing.T) {
	source := rt.Start(t, rt.Options{Config: map[string]string{
		"rdb-key-save-delay": "1000", "repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0",
	}})
	fill(t, source, 5_000)
	dir := t.TempDir()
	path := filepath.Join(dir, "dump.rdb.zst")
	args := []string{"--source", source.URL(), "--target", "rdb://" + path}
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		p := start(t, args...)
		p.eventually("a snapshot", func(r report) bool { return r.Links[0].SnapshotKeys > 0 })
		if s == syscall.SIGKILL {
			start(t, args...).exit(haul.ExitHeld, "another keyhaul writes")
		}
		p.signal(s)
		<-p.ended
		if _, err := os.Lstat(path); err == nil {
			t.Fatalf("%v has left a file", s)
		}
	}
	source.MustDo("CONFIG", "SET", "rdb-key-save-delay", 0)
	start(t, args...).exit(haul.ExitDone)
	if code, stdout, stderr := reported(t, nil, path); code != haul.ExitDone {
		t.Errorf("code %d\n%s\n%s", code, stdout, stderr)
	}
	target := rt.Start(t, rt.Options{})
	start(t, "--source", "rdb://"+path, "--target", target.URL()).exit(haul.ExitDone)
	equal(t, source.Endpoint(), target.Endpoint())
}

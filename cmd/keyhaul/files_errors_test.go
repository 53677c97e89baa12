package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestFilesRefused: what is no file to read from is refused before anything is written, and named.
func TestFilesRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name, text string) string { return fileOf(t, filepath.Join(dir, name), []byte(text)) }
	none, text, aofText := in("empty.rdb", ""), in("text.rdb", "no snapshot"), in("commands.rdb", "*1\r\n$4\r\nPING\r\n")
	locked := in("locked.rdb", "REDIS0009")
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	manifest := in("a.manifest", "file a.1.base.rdb seq 1 type b\nfile ../a.1.incr.aof seq 1 type i\n")
	lacking := in("b.manifest", "file b.1.incr.aof seq 1 type i\n")
	target := rt.Start(t, rt.Options{})
	for name, c := range map[string]struct {
		url  string
		code haul.Exit
		text string
	}{
		"missing":             {"rdb://" + dir + "/none.rdb", 3, "none.rdb: no such file"},
		"no match":            {"rdb://" + dir + "/*.none", 3, "*.none: no file has such a name"},
		"folder":              {"rdb://" + dir + "/folder", 3, "folder: it is a folder"},
		"empty":               {"rdb://" + none, 3, "empty.rdb: it is empty"},
		"text":                {"rdb://" + text, 3, "text.rdb: it is no snapshot"},
		"newer release":       {"rdb://" + in("newer.rdb", "REDIS0099\xff"), 3, "use a keyhaul that knows"},
		"commands":            {"rdb://" + aofText, 3, "aof://"},
		"text as commands":    {"aof://" + text, 3, "text.rdb: it is no append-only file"},
		"folder of no file":   {"aof://" + dir + "/folder", 3, "the folder holds 0 manifests"},
		"several manifests":   {"aof://" + dir, 3, "the folder holds 2 manifests"},
		"path in a manifest":  {"aof://" + manifest, 3, "line 2 of the manifest: it names no file beside the manifest"},
		"part missing":        {"aof://" + lacking, 3, "b.1.incr.aof: no such file"},
		"no path":             {"rdb://", 2, "names no file"},
		"a login":             {"rdb://me:secretpassword@host/dump.rdb", 2, "a file has no host and no login"},
		"several":             {"aof:///a,/b", 2, "several append-only files"},
		"commands from stdin": {"aof://-", 2, "standard input"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, "--source", c.url, "--target", target.URL())
			p.exit(c.code, c.text)
			if strings.Contains(p.stderr(), "secretpassword") {
				t.Error("a password is printed")
			}
			if c.code > haul.ExitUsage && !strings.Contains(p.stderr(), "What to do: ") {
				t.Error("no word of what to do")
			}
		})
	}
	start(t, "--source", "rdb://"+locked, "--target", target.URL(), "--source-password", "x").exit(haul.ExitUsage, "source.password", "where the source is a file")
	start(t, "--source", "rdb://"+locked, "--target", target.URL(), "--aof-until", "5").exit(haul.ExitUsage, "aof-until")
	if n := target.MustDo("DBSIZE").Int; n != 0 {
		t.Errorf("%d keys were written by refused runs", n)
	}
}

// TestStdinEmpty: standard input is named as such.
func TestStdinEmpty(t *testing.T) {
	t.Parallel()
	p := &process{t: t, ended: make(chan struct{}), stdin: strings.NewReader("")}
	p.run(nil, "sync", "--source", "rdb://-", "--target", "rdb://"+t.TempDir()+"/x", "--state-dir", "none", "--http", "").
		exit(haul.ExitRefused, "keyhaul: standard input: it is empty", "what the program said")
}

// TestSnapshotFileDamaged: a snapshot that is cut off or damaged anywhere fails, with file and position. The next run knows,
// and a whole file of the same haul is another one.
func TestSnapshotFileDamaged(t *testing.T) {
	t.Parallel()
	source := mixed(t, map[string]string{"rdbcompression": "no"})
	file := dump(source)
	whole := bytesOf(t, file)
	dir := t.TempDir()
	flipped := append([]byte(nil), whole...)
	flipped[bytes.Index(whole, []byte("012345678901234567890123456789"))+100_000] ^= 1
	for name, c := range map[string]struct {
		content []byte
		text    string
	}{
		"cut in the header": {whole[:7], "its bytes end here"},
		"cut in the middle": {whole[:len(whole)/2], "snapshot byte " + strconv.Itoa(len(whole)/2)},
		"cut at the end":    {whole[:len(whole)-1], "snapshot byte " + strconv.Itoa(len(whole)-1)},
		"damaged":           {flipped, "snapshot byte " + strconv.Itoa(len(whole))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := rt.Start(t, rt.Options{})
			bad := fileOf(t, filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), c.content)
			state := t.TempDir()
			run := func(path string, more ...string) *process {
				return start(t, append([]string{"--source", "rdb://" + path, "--target", target.URL(), "--state-dir", state}, more...)...)
			}
			run(bad).exit(haul.ExitFailed, bad, c.text, "redis-check-rdb")
			run(bad).exit(haul.ExitFailed, "repeats its full copy", c.text)
			if len(c.content) < len(whole) { // else it is the same file, mended
				run(file).exit(haul.ExitHistoryLost, "--on-lost-history")
			}
			run(file, "--on-lost-history", "flush").exit(haul.ExitDone)
			equal(t, source.Endpoint(), target.Endpoint())
		})
	}
	gz := packed(t, file, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	cut := fileOf(t, filepath.Join(dir, "cut.gz"), bytesOf(t, gz)[:1000])
	target := rt.Start(t, rt.Options{})
	start(t, "--source", "rdb://"+cut, "--target", target.URL()).exit(haul.ExitFailed, cut, "gzip")
}

// TestSnapshotFileOther: with resync another snapshot takes the place of the last one, and what it lacks is removed.
func TestSnapshotFileOther(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	state := t.TempDir()
	run := func(more ...string) *process {
		return start(t, append([]string{"--source", "rdb://" + dump(source), "--target", target.URL(), "--state-dir", state}, more...)...)
	}
	source.MustDo("MSET", "a", "1", "b", "1")
	run().exit(haul.ExitDone)
	source.MustDo("DEL", "a")
	source.MustDo("SET", "b", "2")
	run().exit(haul.ExitHistoryLost)
	run("--on-lost-history", "resync").exit(haul.ExitDone)
	equal(t, source.Endpoint(), target.Endpoint())
}

// TestSnapshotFileExpired: a key whose deadline has passed is not loaded, as a server would not. One that the target has is
// left alone; others get their true deadlines.
func TestSnapshotFileExpired(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	source.MustDo("SET", "past", "v", "PX", 150)
	source.MustDo("SET", "mine", "v", "PX", 150)
	source.MustDo("SET", "later", "v", "PX", 3_600_000)
	file := dump(source)
	rt.Eventually(t, patience, func() error {
		if source.MustDo("EXISTS", "past", "mine").Int > 0 {
			return io.ErrNoProgress
		}
		return nil
	})
	target.MustDo("SET", "mine", "own")
	start(t, "--source", "rdb://"+file, "--target", target.URL(), "--existing", "replace").exit(haul.ExitDone, `"dropped_expired":2`)
	if got := target.MustDo("MGET", "past", "mine", "later"); !got.Array[0].Null || got.Array[1].Text != "own" || got.Array[2].Text != "v" {
		t.Errorf("%v", got)
	}
	ttl := target.MustDo("PTTL", "later").Int
	if ttl < 3_000_000 || ttl > 3_600_000 {
		t.Errorf("a deadline in %d ms", ttl)
	}
}

// TestAppendOnlyFileCut: what is cut off at the end is left out with a warning, whole groups only; what is damaged before
// fails, with file and position.
func TestAppendOnlyFileCut(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, logged("yes"))
	source.MustDo("SET", "first", "v")
	source.MustDo("MULTI")
	source.MustDo("INCR", "n")
	source.MustDo("INCR", "n")
	source.MustDo("EXEC")
	source.Kill()
	parts := aofFiles(source)
	if source.Version.AtLeast(7, 0) {
		parts = filepath.Join(parts, "appendonly.aof.1.incr.aof")
	}
	whole := bytesOf(t, parts)
	dir := t.TempDir()
	for cut := len(whole); cut > len(whole)-60; cut -= 7 {
		target := rt.Start(t, rt.Options{})
		file := fileOf(t, filepath.Join(dir, strconv.Itoa(cut)), whole[:cut])
		p := start(t, "--source", "aof://"+file, "--target", target.URL())
		p.exit(haul.ExitDone)
		n, warned := target.MustDo("GET", "n"), strings.Contains(p.stderr(), "ends within a command or transaction")
		if is := cut == len(whole); is != (n.Text == "2") || is == warned || !is && !n.Null || target.MustDo("GET", "first").Text != "v" {
			t.Errorf("cut at %d of %d: n is %q, warned %t", cut, len(whole), n.Text, warned)
		}
	}
	damaged := append(append([]byte(nil), whole...), "nonsense"...)
	target := rt.Start(t, rt.Options{})
	file := fileOf(t, filepath.Join(dir, "damaged"), damaged)
	start(t, "--source", "aof://"+file, "--target", target.URL()).
		exit(haul.ExitFailed, file, "command at offset "+strconv.Itoa(len(whole)), "--aof-until offset:"+strconv.Itoa(len(whole)))
	start(t, "--source", "aof://"+file, "--target", target.URL(), "--aof-until", "offset:"+strconv.Itoa(len(whole))).exit(haul.ExitDone)
}

// TestStdinInterrupted: a signal ends a run that waits for standard input, and the state says that the copy is not complete.
func TestStdinInterrupted(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	source.MustDo("SET", "k", "v")
	whole := bytesOf(t, dump(source))
	in, feed, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, ended: make(chan struct{}), stdin: in}
	p.run(nil, "sync", "--source", "rdb://-", "--target", target.URL(), "--state-dir", "none", "--http", "127.0.0.1:0")
	defer feed.Close()
	_ = in.Close() // keyhaul has it
	if _, err := feed.Write(append(append([]byte(nil), whole[:len(whole)-9]...), bytes.Repeat([]byte{0xfa, 1, 'a', 1, 'b'}, 20_000)...)); err != nil {
		t.Fatal(err)
	}
	rt.Eventually(t, patience, func() error {
		if target.MustDo("EXISTS", "k").Int == 0 {
			return io.ErrNoProgress
		}
		return nil
	})
	p.signal(syscall.SIGTERM)
	p.exit(haul.ExitInterrupted)
	again := &process{t: t, ended: make(chan struct{}), stdin: bytes.NewReader(whole)}
	again.run(nil, "sync", "--source", "rdb://-", "--target", target.URL(), "--state-dir", "none", "--http", "", "--on-lost-history", "flush").
		exit(haul.ExitDone, "repeats its full copy")
	equal(t, source.Endpoint(), target.Endpoint())
}

// TestSnapshotFilesOverlap: of keys that two files have the later ones count, of whatever type.
func TestSnapshotFilesOverlap(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	fill(t, source, 5000)
	first := fileOf(t, filepath.Join(t.TempDir(), "1.rdb"), bytesOf(t, dump(source)))
	source.MustDo("FLUSHALL")
	fill(t, source, 5000)
	source.MustDo("EVAL", "for _, k in ipairs(redis.call('KEYS', '*')) do redis.call('DEL', k); redis.call('RPUSH', k, 'later') end", 0)
	start(t, "--source", "rdb://"+first+","+dump(source), "--target", target.URL()).exit(haul.ExitDone)
	equal(t, source.Endpoint(), target.Endpoint())
}

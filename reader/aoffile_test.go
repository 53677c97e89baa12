package reader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

func wireOf(args ...string) string { return string(resp.AppendCommand(nil, args...)) }

// openAOF writes the parts of an append-only file, and a manifest, and opens them.
func openAOF(t testing.TB, parts ...string) (*Input, error) {
	t.Helper()
	dir, manifest := t.TempDir(), ""
	for i, text := range parts {
		name := fmt.Sprintf("a.%d.incr.aof", i+1)
		manifest += fmt.Sprintf("file %s seq %d type i\n", name, i+1)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a.manifest"), []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	in, err := (&Files{AOF: true, Paths: []string{dir}}).Open(t.Context())
	if err == nil {
		t.Cleanup(in.Close)
	}
	return in, err
}

// readAOF decodes an append-only file from a position on.
func readAOF(t testing.TB, in *Input, at haul.Position, bound int64) (entries []seen, behind haul.Position, err error) {
	t.Helper()
	ch := haul.NewChannel(bound)
	s := &sink{in: ch}
	s.last.Offset = at.Offset
	done := make(chan struct{})
	go func() { s.run(); close(done) }()
	behind, err = decodeFiles(context.Background(), in, in.End(), ch, at, func() {})
	ch.Close()
	<-done
	if s.err() != nil {
		t.Error(s.err())
	}
	return s.all(false), behind, err
}

// TestFilesOfOne: commands and positions go on over the files, each of which begins in database 0, and nothing that is cut
// off is read.
func TestFilesOfOne(t *testing.T) {
	set := wireOf("SET", "k", "v")
	group := wireOf("MULTI") + set + "# within\r\n" + set + wireOf("EXEC")
	for name, c := range map[string]struct {
		parts  []string
		want   string
		behind int // of what is cut off
		err    string
	}{
		"plain":                   {[]string{set + set, set}, "[SET]0 [SET]0 [SET]0", 0, ""},
		"databases":               {[]string{wireOf("SELECT", "3") + set, set, wireOf("SELECT", "2") + set}, "[SET]3 [SET]0 [SET]2", 0, ""},
		"empty":                   {[]string{"", set, ""}, "[SET]0", 0, ""},
		"group":                   {[]string{"#TS:1700000000\r\n" + group, group}, "[SET SET]0 [SET SET]0", 0, ""},
		"cut":                     {[]string{set, set + set[:9]}, "[SET]0 [SET]0", 9, ""},
		"cut group":               {[]string{set, set + group[:len(group)-3]}, "[SET]0 [SET]0", len(group) - 3, ""},
		"cut between its parts":   {[]string{set, set + wireOf("MULTI")}, "[SET]0 [SET]0", len(wireOf("MULTI")), ""},
		"cut annotation":          {[]string{set, set + "#TS:17"}, "[SET]0 [SET]0", 6, ""},
		"cut in front of another": {[]string{set[:9], set}, "", 0, "a.1.incr.aof: it ends within a command or transaction, and it is not the last file"},
		"damaged":                 {[]string{set, set + "x"}, "[SET]0 [SET]0", 0, "a.2.incr.aof: which begins at offset 27: corrupt command stream: command at offset 54"},
		"EXEC alone":              {[]string{set + wireOf("EXEC")}, "[SET]0", 0, "EXEC without MULTI"},
	} {
		t.Run(name, func(t *testing.T) {
			in, err := openAOF(t, c.parts...)
			if err != nil {
				t.Fatal(err)
			}
			entries, behind, err := readAOF(t, in, haul.Position{ReplID: "r"}, 4<<20)
			if err == nil && c.err != "" || err != nil && (c.err == "" || !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("%v, want %q", err, c.err)
			}
			var got []string
			for _, e := range entries {
				var names []string
				for _, command := range e.commands {
					names = append(names, command[0])
				}
				got = append(got, fmt.Sprintf("%v%d", names, e.db))
			}
			if err == nil && strings.Join(got, " ") != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if err == nil && behind.Offset != in.size()-int64(c.behind) {
				t.Errorf("it ends at %d of %d", behind.Offset, in.size())
			}
		})
	}
}

// TestIdentify: a file that has grown is the same history, and one that begins in another way is not.
func TestIdentify(t *testing.T) {
	set := wireOf("SET", "k", "v")
	id := func(known string, parts ...string) string {
		in, err := openAOF(t, parts...)
		if err != nil {
			t.Fatal(err)
		}
		s, err := in.identify(known)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := id("", set)
	for _, c := range []struct {
		same  bool
		parts []string
	}{
		{true, []string{set}},
		{true, []string{set + set}},
		{true, []string{set, set}},
		{false, []string{wireOf("SET", "l", "v")}},
		{false, []string{set[:20]}},
	} {
		if got := id(first, c.parts...); (got == first) != c.same {
			t.Errorf("%q: %s, and it was %s", c.parts, got, first)
		}
	}
	for _, known := range []string{"aof-x-", "aof--1-", "aof-99999999999-", "rdb-1", strings.Repeat("a", 40)} {
		if got := id(known, set); got != first {
			t.Errorf("%q: %s", known, got)
		}
	}
}

// TestReadAtOverFiles: bytes are found at any position, over the borders of files.
func TestReadAtOverFiles(t *testing.T) {
	parts := []string{wireOf("SET", "a", "1"), "", wireOf("SET", "b", "2"), wireOf("SET", "c", "3")}
	all := strings.Join(parts, "")
	in, err := openAOF(t, parts...)
	if err != nil {
		t.Fatal(err)
	}
	for from := range len(all) {
		for to := from + 1; to <= len(all)+2; to++ {
			b := make([]byte, to-from)
			n, err := in.ReadAt(b, int64(from))
			if want := all[from:min(to, len(all))]; string(b[:n]) != want || (err == nil) != (to <= len(all)) {
				t.Fatalf("%d to %d: %q, %v", from, to, b[:n], err)
			}
		}
	}
}

// FuzzAppendOnlyFile: whatever the bytes are, reading ends, and going on from any entry gives the entries behind it.
func FuzzAppendOnlyFile(f *testing.F) {
	set := wireOf("SET", "k", "v")
	f.Add([]byte(set+"#TS:1700000000\r\n"+wireOf("EXPIRE", "k", "10")+"#TS:1700000009\r\n"+set), uint8(1))
	f.Add([]byte(wireOf("SELECT", "2")+wireOf("MULTI")+set+set+wireOf("EXEC")+set), uint8(2))
	f.Add([]byte(wireOf("MULTI")+wireOf("SET", "k", strings.Repeat("x", 5000))+wireOf("EXEC")+set[:7]), uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, pick uint8) {
		if len(b) == 0 {
			return
		}
		in, err := openAOF(t, string(b))
		if err != nil {
			return
		}
		at := haul.Position{ReplID: "r"}
		entries, behind, err := readAOF(t, in, at, haul.MinBound)
		if behind.Offset < 0 || behind.Offset > int64(len(b)) || len(entries) > 0 && entries[len(entries)-1].end > behind.Offset {
			t.Fatalf("it ends at %d of %d: %v", behind.Offset, len(b), err)
		}
		split := slices.ContainsFunc(entries, func(e seen) bool { return e.big > 0 }) // pieces of a large group begin within it
		if errors.Is(err, errCut) || split || len(entries) == 0 {
			return
		}
		i := int(pick) % len(entries)
		again, behindAgain, _ := readAOF(t, in, haul.Position{ReplID: "r", Offset: entries[i].start, DB: entries[i].db}, haul.MinBound)
		if err == nil && (!reflect.DeepEqual(again, entries[i:]) || behindAgain != behind) {
			t.Errorf("from entry %d on: %v, want %v", i, again, entries[i:])
		}
	})
}

// TestChangedWhileRead: a file that is not what it was is found out; only an append-only file may grow.
func TestChangedWhileRead(t *testing.T) {
	set := wireOf("SET", "k", "v")
	for name, c := range map[string]struct {
		change func(path string) error
		ok     bool
	}{
		"as it was": {func(string) error { return nil }, true},
		"grown":     {func(path string) error { return os.WriteFile(path, []byte(set+set), 0o600) }, true},
		"cut":       {func(path string) error { return os.Truncate(path, 5) }, false},
		"written":   {func(path string) error { return os.Chtimes(path, time.Time{}, time.Unix(1, 0)) }, false},
	} {
		for _, part := range []int{0, 1} {
			in, err := openAOF(t, set, set)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.change(in.parts[part].path); err != nil {
				t.Fatal(err)
			}
			ok := c.ok && (name != "grown" || part == 1) // only the last one may
			if err := in.unchanged(); (err == nil) != ok {
				t.Errorf("%s, part %d: %v", name, part, err)
			}
			if _, _, err := readAOF(t, in, haul.Position{ReplID: "r"}, haul.MinBound); name == "cut" && !errors.Is(err, errChanged) {
				t.Errorf("%s, part %d: read with %v", name, part, err)
			}
		}
	}
}

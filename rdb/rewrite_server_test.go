package rdb

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// TestRewriteServers: every value of the golden files, in the form that is for a release, is there what it was at its source. It is
// written once as payloads of RESTORE and once as commands. Deadlines of fields that the target has no place for are not compared.
func TestRewriteServers(t *testing.T) {
	for _, g := range goldens(t) {
		if len(g.Keys) < 30 {
			continue
		}
		t.Run(g.name, func(t *testing.T) {
			redistest.Require(t, g.name)
			source := loaded(t, g.name, g.data)
			for _, release := range redistest.Releases() {
				t.Run(release, func(t *testing.T) {
					to, err := ParseRelease(release)
					if err != nil {
						t.Fatal(err)
					}
					opts := redistest.CompareOptions{IgnoreReadCounts: !to.since(7, 0)}
					for name, write := range map[string]func(*testing.T, *redistest.Server, Release, bool, found){
						"payloads": restoreRewritten, "commands": runCommands,
					} {
						target := redistest.Start(t, redistest.Options{Release: release})
						writeAll(t, target, to, g.data, write)
						report, err := redistest.Compare(t.Context(), source.Endpoint(), target.Endpoint(), opts)
						if err != nil || !report.Equal() || report.Keys != len(g.Keys) {
							t.Errorf("%s: %v, %v, want %d keys", name, report, err, len(g.Keys))
						}
						target.Stop()
					}
				})
			}
		})
	}
}

// loaded starts a server that has loaded a snapshot itself.
func loaded(t *testing.T, release string, data []byte) *redistest.Server {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dump.rdb"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return redistest.Start(t, redistest.Options{Release: release, Config: map[string]string{"dir": dir}})
}

func writeAll(t *testing.T, target *redistest.Server, to Release, data []byte, write func(*testing.T, *redistest.Server, Release, bool, found)) {
	t.Helper()
	records, d, err := walk(data, 1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range records {
		if f.Kind != KindKey {
			continue
		}
		target.MustDo("SELECT", f.DB)
		write(t, target, to, d.Valkey, f)
		if f.HasExpire {
			target.MustDo("PEXPIREAT", f.name, f.ExpireAt)
		}
	}
}

func restoreRewritten(t *testing.T, target *redistest.Server, to Release, valkey bool, f found) {
	t.Helper()
	out, typ, lost, err := to.Rewrite([]byte{0}, Value{f.Type, valkey}, f.value)
	if _, lacks := to.Form(f.Type, valkey, false); err != nil || !strings.Contains(lacks, lost) {
		t.Fatalf("%q, type %d: lost %q, %v", f.name, f.Type, lost, err)
	}
	out[0] = typ
	out = AppendFooter(out, FooterVersion(typ, to.Valkey, false), CRC64(0, out))
	if r := target.Do("RESTORE", f.name, 0, out); r.Err() != nil {
		t.Errorf("RESTORE of %q, type %d from %d: %v", f.name, typ, f.Type, r.Err())
	}
}

func runCommands(t *testing.T, target *redistest.Server, to Release, valkey bool, f found) {
	t.Helper()
	const size = 3000
	lost, err := to.Commands(Value{f.Type, valkey}, f.name, func() io.Reader { return bytes.NewReader(f.value) }, size, func(args ...[]byte) error {
		total, words := 0, make([]any, len(args))
		for i, a := range args {
			total += len(a)
			words[i] = string(a)
		}
		if total > size+1000 || len(args) > 2*commandElements+10 {
			t.Errorf("%s with %d arguments of %d bytes", args[0], len(args), total)
		}
		r := target.Do(words...)
		if r.Err() != nil {
			t.Errorf("%q, type %d: %.200q: %v", f.name, f.Type, words, r.Err())
		}
		if string(args[0]) == "XCLAIM" && len(r.Array) == 0 {
			t.Errorf("%q: %.200q claims nothing", f.name, words)
		}
		return nil
	})
	if _, lacks := to.Form(f.Type, valkey, false); err != nil || !strings.Contains(lacks, lost) {
		t.Errorf("%q, type %d: lost %q, %v", f.name, f.Type, lost, err)
	}
}

// TestRewriteMade: values that no server at hand writes arrive alike as payloads and as commands.
func TestRewriteMade(t *testing.T) {
	for _, release := range redistest.Releases() {
		t.Run(release, func(t *testing.T) {
			to, err := ParseRelease(release)
			if err != nil {
				t.Fatal(err)
			}
			payloads := redistest.Start(t, redistest.Options{Release: release})
			commands := redistest.Start(t, redistest.Options{Release: release})
			written := 0
			for _, s := range madeValues() {
				if form, _ := to.Form(s.Type, s.Valkey, false); form == FormMissing {
					continue
				}
				f := found{Record: Record{Type: s.Type}, name: []byte(s.name), value: s.body}
				restoreRewritten(t, payloads, to, s.Valkey, f)
				runCommands(t, commands, to, s.Valkey, f)
				written++
			}
			report, err := redistest.Compare(t.Context(), payloads.Endpoint(), commands.Endpoint(), redistest.CompareOptions{IgnoreReadCounts: true})
			if err != nil || !report.Equal() || report.Keys != written || written < 20 {
				t.Errorf("%v, %v, want %d keys", report, err, written)
			}
			for _, s := range madeValues() { // one in full by hand, for what both might have wrong
				if typeKind(s.Type, false) != TypeStream {
					continue
				}
				for group, want := range map[string]int64{"g": 3, "empty": 0} {
					if s.Type == TypeStream5 && want > 0 {
						want--
					}
					if got := payloads.MustDo("XPENDING", s.name, group).Array[0].Int; got != want {
						t.Errorf("%s: %d pending in %s, want %d", s.name, got, group, want)
					}
				}
				if got := len(payloads.MustDo("XINFO", "CONSUMERS", s.name, "g").Array); got != 3 {
					t.Errorf("%s: %d consumers, want 3", s.name, got)
				}
			}
		})
	}
}

// TestRewriteGenerated: values as they are made in use, of every size, from the newest servers and the default one to every release.
func TestRewriteGenerated(t *testing.T) {
	for _, from := range []string{"redis-8.0", "valkey-9.1", ""} {
		t.Run("from "+from, func(t *testing.T) {
			if from != "" {
				redistest.Require(t, from)
			}
			source := redistest.Start(t, redistest.Options{Release: from})
			if err := redistest.FillMixed(t.Context(), source.Endpoint(), 0.0005, 7); err != nil {
				t.Fatal(err)
			}
			fillSizes(source)
			fillFieldTTLs(source)
			source.MustDo("SAVE")
			data, err := os.ReadFile(filepath.Join(source.Dir, "dump.rdb"))
			if err != nil {
				t.Fatal(err)
			}
			for _, release := range redistest.Releases() {
				to, err := ParseRelease(release)
				if err != nil {
					t.Fatal(err)
				}
				target := redistest.Start(t, redistest.Options{Release: release})
				writeAll(t, target, to, data, restoreRewritten)
				report, err := redistest.Compare(t.Context(), source.Endpoint(), target.Endpoint(), redistest.CompareOptions{IgnoreReadCounts: !to.since(7, 0)})
				if err != nil || !report.Equal() || report.Keys < 700 {
					t.Errorf("%s: %v, %v", release, report, err)
				}
				target.Stop()
			}
		})
	}
}

// fillFieldTTLs writes hashes whose fields have deadlines, in a small and a large encoding, if the server has such.
func fillFieldTTLs(s *redistest.Server) {
	const deadline = 4102444800123
	if s.Do("HPEXPIREAT", "no such key", deadline, "FIELDS", 1, "f").Err() != nil {
		return
	}
	for i := range 800 {
		for _, key := range []string{"ttl:small", "ttl:large"}[min(i/20, 1):] {
			s.MustDo("HSET", key, i, strings.Repeat("v", i%50))
			if i%3 > 0 {
				s.MustDo("HPEXPIREAT", key, deadline+i/7*1000, "FIELDS", 1, i)
			}
		}
	}
}

package rdb

import (
	"bytes"
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
	if err != nil || lost != "" && lost != lostFieldTTLs {
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
	lost, err := to.Commands(Value{f.Type, valkey}, f.name, bytes.NewReader(f.value), size, func(args ...[]byte) error {
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
	if err != nil || strings.ReplaceAll(lost, lostFieldTTLs, "") != "" {
		t.Errorf("%q, type %d: lost %q, %v", f.name, f.Type, lost, err)
	}
}

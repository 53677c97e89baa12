package rdb

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// TestRestore writes every key of the golden files into a real server as a payload of RESTORE, and compares that server
// with another one of the same release which has loaded the file itself.
func TestRestore(t *testing.T) {
	installed := make(map[string]bool)
	for _, r := range redistest.Releases() {
		installed[r] = true
	}
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			parts := strings.SplitN(g.name, "-", 3)
			release := parts[0] + "-" + parts[1]
			if !installed[release] {
				t.Skipf("%s is not installed", release)
			}
			if g.Functions == 0 && len(g.Keys) == 0 || strings.HasSuffix(g.name, "-cluster") {
				t.Skip("nothing to restore, or not into such a server")
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "dump.rdb"), g.data, 0o600); err != nil {
				t.Fatal(err)
			}
			source := redistest.Start(t, redistest.Options{Release: release, Config: map[string]string{"dir": dir}})
			target := redistest.Start(t, redistest.Options{Release: release})
			restore(t, target, g.data)
			report, err := redistest.Compare(t.Context(), source.Endpoint(), target.Endpoint(), redistest.CompareOptions{})
			if err != nil || !report.Equal() || report.Keys != len(g.Keys) {
				t.Errorf("%v, %v, want %d keys", report, err, len(g.Keys))
			}
		})
	}
}

// TestRestoreElsewhere: what an older server wrote is read by newer ones, since its footer says no more than needed.
func TestRestoreElsewhere(t *testing.T) {
	all := make(map[string]golden)
	for _, g := range goldens(t) {
		all[g.name] = g
	}
	for _, tt := range []struct{ from, to string }{
		{"redis-6.0", "redis-7.0"},
		{"redis-6.0", "redis-8.0"},
		{"redis-6.0", "valkey-9.1"},
		{"redis-7.0", "valkey-8.1"},
		{"valkey-8.1", "redis-8.0"},
		{"valkey-8.1", "valkey-9.1"},
	} {
		t.Run(tt.from+" to "+tt.to, func(t *testing.T) {
			redistest.Require(t, tt.to)
			redistest.Require(t, tt.from)
			target := redistest.Start(t, redistest.Options{Release: tt.to})
			restore(t, target, all[tt.from].data)
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "dump.rdb"), all[tt.from].data, 0o600); err != nil {
				t.Fatal(err)
			}
			source := redistest.Start(t, redistest.Options{Release: tt.from, Config: map[string]string{"dir": dir}})
			report, err := redistest.Compare(t.Context(), source.Endpoint(), target.Endpoint(), redistest.CompareOptions{})
			if err != nil || !report.Equal() {
				t.Errorf("%v, %v", report, err)
			}
		})
	}
}

func restore(t *testing.T, target *redistest.Server, data []byte) {
	t.Helper()
	records, d, err := walk(data, 1<<20, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range records {
		if f.Kind == KindFunction {
			target.MustDo("FUNCTION", "LOAD", "REPLACE", f.code())
			continue
		}
		target.MustDo("SELECT", f.DB)
		args := []any{"RESTORE", f.name, f.ExpireAt, f.payload(d.Valkey), "REPLACE", "ABSTTL"}
		switch {
		case f.HasIdle:
			args = append(args, "IDLETIME", f.Idle)
		case f.HasFreq:
			args = append(args, "FREQ", f.Freq)
		}
		if r := target.Do(args...); r.Err() != nil {
			t.Errorf("RESTORE of %q, type %d: %v", f.name, f.Type, r.Err())
		}
	}
}

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/check"
	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestSentinels: sentinels with a password and TLS of their own name a source and a target that have others, and what is
// wrong with them is said.
func TestSentinels(t *testing.T) {
	t.Parallel()
	source, target := rt.Start(t, rt.Options{Password: "of-the-source"}), rt.Start(t, rt.Options{TLS: true})
	fill(t, source, 2000)
	plain := rt.StartSentinels(t, source, rt.Options{Password: "of-the-sentinels"})
	secure := rt.StartSentinels(t, target, rt.Options{})
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("of-the-sentinels\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	from := strings.Replace(plain.URL(), "://", "://:of-the-source@", 1)
	to := strings.Replace(secure.URL(), "redis+", "rediss+", 1)
	args := []string{
		"--source", from, "--source-sentinel-password-file", file,
		"--target", to, "--target-tls-ca", target.TLS.CA, "--target-sentinel-tls", "--target-sentinel-tls-insecure",
		"--until", "caught-up", "--connect-deadline", "700ms",
	}
	start(t, args...).exit(haul.ExitDone)
	equal(t, source.Endpoint(), target.Endpoint())
	all := examined(t, brief, args...)
	if got := grave(all); !slices.Equal(got, []string{"certificate-expiring"}) || !slices.ContainsFunc(all, func(f check.Finding) bool { return f.ID == "sentinel-lists-keyhaul" }) {
		t.Errorf("found %+v", all)
	}
	all = examined(t, brief, between(source, target, "--target-tls-ca", target.TLS.CA)...)
	if !slices.ContainsFunc(all, func(f check.Finding) bool { return f.ID == "sentinel-lists-keyhaul" }) {
		t.Errorf("by its address: found %+v", all)
	}

	closed := "redis+sentinel://" + closedPort(t) + "," + closedPort(t) + "/" + rt.SentinelName
	for name, c := range map[string]struct {
		flag, value string
		code        haul.Exit
		says        string
	}{
		"another name":          {"--source", strings.Replace(from, rt.SentinelName, "another", 1), haul.ExitUnreachable, plain.Nodes[2].Addr + ": SENTINEL: it knows no primary of this name"},
		"no sentinel":           {"--source", closed, haul.ExitUnreachable, "connection refused"},
		"no sentinel of target": {"--target", strings.Replace(closed, "redis+", "rediss+", 1), haul.ExitUnreachable, "connection refused"},
		"wrong login":           {"--source-sentinel-username", "nobody", haul.ExitUnreachable, "sentinels have a user and password of their own"},
		"no name":               {"--source", "redis+sentinel://h", haul.ExitUsage, "name of the primary"},
		"no sentinels":          {"--source", "redis://h", haul.ExitUsage, "without sentinels"},
		"no TLS":                {"--target-sentinel-tls", "false", haul.ExitUsage, "has no effect without target.sentinel-tls"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := append([]string(nil), args...)
			found := false
			for i, arg := range changed {
				if arg == c.flag && c.flag == "--target-sentinel-tls" {
					changed[i], found = arg+"="+c.value, true
				} else if arg == c.flag {
					changed[i+1], found = c.value, true
				}
			}
			if !found {
				changed = append(changed, c.flag, c.value)
			}
			p := start(t, changed...)
			p.exit(c.code, c.says)
			if strings.Contains(p.stderr()+p.stdout(), "of-the-") {
				t.Error("a password shows")
			}
		})
	}
}

// TestPreferReplica: a replica is read from where that is asked for, and the primary when it is gone.
func TestPreferReplica(t *testing.T) {
	t.Parallel()
	for by, sentinels := range map[string]bool{"addresses": false, "sentinels": true} {
		t.Run("by "+by, func(t *testing.T) {
			t.Parallel()
			f := newFamily(t, setup{flags: []string{"--source-prefer-replica"}}, sentinels)
			f.inStep()
			copies := f.source.FullSyncs()
			f.startLoad()
			f.start()
			f.streams()
			if n := f.replica.FullSyncs(); n != 1 {
				t.Errorf("%d full copies were taken from the replica", n)
			}
			f.goesOn(f.replica.Kill)
			if n := f.source.FullSyncs(); n != copies {
				t.Errorf("%d full copies were taken from the primary", n-copies)
			}
			f.followed()
		})
	}
}

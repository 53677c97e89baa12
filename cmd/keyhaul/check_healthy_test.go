package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/check"
	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestCheckHealthy: a pair of servers or clusters of any release, as they are by default, gives no cause for anything, also to
// users who may do what the check itself has printed, and no more.
func TestCheckHealthy(t *testing.T) {
	t.Parallel()
	for _, release := range rt.Releases() {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			opts := rt.Options{Release: release, Users: []string{"keyhaul on >secret +info"}}
			source, target := rt.Start(t, opts), rt.Start(t, opts)
			source.WriteEvery("every")
			healthy(t, source, target, source.URL(), target.URL())
		})
	}
	t.Run("clusters", func(t *testing.T) { // of the other releases by make test-releases
		t.Parallel()
		opts := rt.ClusterOptions{Options: rt.Options{Users: []string{"keyhaul on >secret +info +cluster|slots"}}, Primaries: 1}
		from, to := rt.StartCluster(t, opts), rt.StartCluster(t, opts)
		from.MustDo("key", "SET", "key", 1)
		healthy(t, from.Nodes[0], to.Nodes[0], from.Nodes[0].URL(), to.Nodes[0].URL())
	})
}

// healthy expects nothing, and makes users of the lines that are printed for one who may do nothing.
func healthy(t *testing.T, source, target *rt.Server, from, to string) {
	t.Helper()
	if all := examined(t, brief, "--source", from, "--target", to); len(grave(all)) > 0 {
		t.Errorf("found %v", grave(all))
	}
	from, to = strings.Replace(from, "://", "://keyhaul:secret@", 1), strings.Replace(to, "://", "://keyhaul:secret@", 1)
	all := examined(t, brief, "--source", from, "--target", to)
	allowed := map[string]bool{}
	for _, f := range all {
		server := source
		if strings.HasPrefix(f.Subject, "target") {
			server = target
		}
		if strings.HasPrefix(f.Remedy, "ACL SETUSER ") && !allowed[f.Remedy] {
			var args []any
			for word := range strings.FieldsSeq(strings.Replace(f.Remedy, " USER ", " keyhaul ", 1)) {
				args = append(args, word)
			}
			server.MustDo(args...)
			allowed[f.Remedy] = true
		}
	}
	if len(allowed) < 2 {
		t.Fatalf("lines are printed for %v", allowed)
	}
	if all = examined(t, brief, "--source", from, "--target", to); len(grave(all)) > 0 {
		t.Errorf("users who may do what was printed (%v): found %v", allowed, grave(all))
	}
	p := start(t, "--source", from, "--target", to, "--until", "caught-up")
	p.exit(haul.ExitDone)
	if strings.Contains(p.stderr(), `"level":"warn"`) {
		t.Error("there are warnings")
	}
	if n := check.Count(all, check.Info); n > 4 {
		t.Errorf("%d lines say what is good to know", n)
	}
}

// TestCheckSays what it finds, to people and to scripts, and exits as documented.
func TestCheckSays(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	run := func(code haul.Exit, args ...string) string {
		p := &process{t: t, ended: make(chan struct{})}
		p.run(nil, append([]string{"check", "--state-dir", "none"}, between(source, target, args...)...)...).exit(code)
		return p.stdout()
	}
	if said := run(haul.ExitDone); !strings.Contains(said, "nothing stands in the way") {
		t.Errorf("it says %s", said)
	}
	target.MustDo("SET", "own", 1)
	if said := run(haul.ExitRefused); !strings.Contains(said, "fatal") || !strings.Contains(said, "existing-keys") || !strings.Contains(said, "What to do: say what") {
		t.Errorf("it says %s", said)
	}
	var r struct {
		Fatal    int
		Findings []check.Finding
	}
	if err := json.Unmarshal([]byte(run(haul.ExitRefused, "--format", "json")), &r); err != nil || r.Fatal != 1 || r.Findings[0].ID != "existing-keys" {
		t.Errorf("%v: %+v", err, r)
	}
	run(haul.ExitUsage, "--format", "csv")
	if n := target.MustDo("DBSIZE").Int + source.MustDo("DBSIZE").Int; n != 1 {
		t.Errorf("there are %d keys", n)
	}
	if n := source.FullSyncs(); n != 0 {
		t.Errorf("%d full syncs", n)
	}
}

// TestCheckBesideASync: what a haul has done itself is no cause for anything, but that it runs.
func TestCheckBesideASync(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	fill(t, source, 1000)
	start(t, between(source, target)...).streaming()
	if got := grave(examined(t, brief, between(source, target)...)); !slices.Equal(got, []string{"haul-running"}) {
		t.Errorf("found %v", got)
	}
	if n := source.FullSyncs(); n != 1 {
		t.Errorf("%d full syncs", n)
	}
}

// TestSyncAsksAgain: a target that breaks off while sync looks at it is asked again, for it may hold keys that refuse the haul.
func TestSyncAsksAgain(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	target.MustDo("SET", "own", 1)
	a := examiner(t, between(source, target)...)
	var dials atomic.Int32
	a.target.Network = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials.Add(1) == 1 {
			return nil, io.ErrUnexpectedEOF
		}
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	pair, err := a.lookAtBoth(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := grave(pair.Findings(check.State{})); !slices.Equal(got, []string{"existing-keys"}) {
		t.Errorf("found %v", got)
	}
}

// TestCheckBehindAProxy: a target that tells nothing of its commands is judged by the rest.
func TestCheckBehindAProxy(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	target.MustDo("SET", "own", 1)
	to := "redis://" + rt.NewFilter(t, target.Addr, "INFO COMMANDSTATS", "CLUSTER", "CONFIG")
	if got := grave(examined(t, brief, "--source", source.URL(), "--target", to)); !slices.Contains(got, "existing-keys") || slices.Contains(got, "unreachable") {
		t.Errorf("found %v", got)
	}
}

// TestCheckIsQuick: what sync looks for at its start takes no more than a tenth of a second between servers on one machine.
func TestCheckIsQuick(t *testing.T) {
	source, target := pair(t)
	fill(t, source, 10_000)
	least := time.Hour
	for range 5 { // the machine is shared
		began := time.Now()
		examined(t, sampleAtStart, between(source, target)...)
		least = min(least, time.Since(began))
	}
	if limit := 100 * time.Millisecond; least > limit {
		t.Errorf("it takes %v, more than %v", least, limit)
	}
}

package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/check"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// examined returns what keyhaul check finds with these arguments. What it says of writes is measured for so long.
func examined(t *testing.T, sample time.Duration, args ...string) []check.Finding {
	t.Helper()
	all, err := examiner(t, args...).findings(t.Context(), sample)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func examiner(t *testing.T, args ...string) *app {
	t.Helper()
	cmd := newCheck(nil)
	if err := cmd.ParseFlags(append([]string{"--state-dir", t.TempDir()}, args...)); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	return newApp(cfg)
}

// grave returns the ids of findings that are fatal or warn, each once.
func grave(all []check.Finding) (ids []string) {
	for _, f := range all {
		if f.Severity != check.Info {
			ids = append(ids, f.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// planted is a misconfiguration, and the findings that name it. The first is its own, others are what follows from it.
type planted struct {
	ids            []string
	severity       check.Severity
	says           string
	from, to       string // releases
	source, target rt.Options
	clusters       bool // both ends are
	prepare        func(t *testing.T, s *site)
	args           []string
	sample         time.Duration
}

// brief is how long writes are measured where nobody writes.
const brief = 10 * time.Millisecond

// site is a pair of servers.
type site struct {
	source, target *rt.Server
	to             *rt.Cluster
	args           []string
}

func secret(option string) rt.Options { return rt.Options{Password: option} }

func settingsOf(pairs ...string) rt.Options {
	config := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		config[pairs[i]] = pairs[i+1]
	}
	return rt.Options{Config: config}
}

var plantedOnes = map[string]planted{
	"a user who only reads": {
		ids: []string{"missing-permissions", "lesser-permissions"}, severity: check.Fatal, says: "+@write", target: rt.Options{Users: []string{"reader on >secret ~* +@all -@write -@pubsub"}},
		args: []string{"--target-username", "reader", "--target-password", "secret"},
	},
	"a user who empties nothing": {
		ids: []string{"lesser-permissions"}, severity: check.Warn, says: "FLUSHALL, FLUSHDB, SWAPDB", target: rt.Options{Users: []string{"app on >secret ~* &* +@all -flushall -flushdb -swapdb"}},
		args: []string{"--target-username", "app", "--target-password", "secret"},
	},
	"nor where it is to": {
		ids: []string{"missing-permissions"}, severity: check.Fatal, says: "FLUSHALL", target: rt.Options{Users: []string{"app on >secret ~* &* +@all -flushall"}},
		args: []string{"--target-username", "app", "--target-password", "secret", "--existing", "flush"},
	},
	"PSYNC is renamed": {ids: []string{"psync-refused"}, severity: check.Fatal, says: "PSYNC", source: settingsOf("rename-command PSYNC", "")},
	"a user without PSYNC": {
		ids: []string{"psync-refused"}, severity: check.Fatal, says: "+psync", source: rt.Options{Users: []string{"reader on >secret ~* +@all -psync"}},
		args: []string{"--source-username", "reader", "--source-password", "secret"},
	},
	"a wrong password":   {ids: []string{"login-refused"}, severity: check.Fatal, source: secret("right"), args: []string{"--source-password", "wrong"}},
	"no password":        {ids: []string{"login-refused"}, severity: check.Fatal, target: secret("right"), args: []string{"--target-password", ""}},
	"nobody is there":    {ids: []string{"unreachable"}, severity: check.Fatal, says: "refused", prepare: func(_ *testing.T, s *site) { s.target.Stop() }},
	"one server":         {ids: []string{"same-server"}, severity: check.Fatal, prepare: func(_ *testing.T, s *site) { s.args = between(s.source, s.source) }},
	"source is replica":  {ids: []string{"replicate-each-other"}, severity: check.Fatal, prepare: func(_ *testing.T, s *site) { s.source.ReplicaOf(s.target) }},
	"target is replica":  {ids: []string{"replicate-each-other", "target-is-replica"}, severity: check.Fatal, prepare: func(_ *testing.T, s *site) { s.target.ReplicaOf(s.source) }},
	"maxmemory":          {ids: []string{"memory-short"}, severity: check.Fatal, says: "maxmemory", target: settingsOf("maxmemory", "3mb"), prepare: withData},
	"eviction":           {ids: []string{"eviction-policy"}, severity: check.Fatal, target: settingsOf("maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")},
	"eviction, no limit": {ids: []string{"eviction-policy"}, severity: check.Warn, target: settingsOf("maxmemory-policy", "allkeys-lfu")},
	"databases": {ids: []string{"databases-missing"}, severity: check.Fatal, target: settingsOf("databases", "2"), prepare: func(_ *testing.T, s *site) {
		s.source.MustDo("SELECT", 3)
		s.source.MustDo("SET", "key", 1)
	}},
	"one node of a cluster": {ids: []string{"transactions-missing"}, severity: check.Fatal, says: "MOVED", clusters: true, args: []string{"--target-mode", "standalone"}},
	"open slots": {ids: []string{"slots-open"}, severity: check.Warn, clusters: true, prepare: func(_ *testing.T, s *site) {
		one, other := s.to.Nodes[0], s.to.Nodes[1]
		other.MustDo("CLUSTER", "SETSLOT", 7, "IMPORTING", one.MustDo("CLUSTER", "MYID").Text)
		one.MustDo("CLUSTER", "SETSLOT", 7, "MIGRATING", other.MustDo("CLUSTER", "MYID").Text)
	}},
	"slots without a node": {ids: []string{"slots-uncovered", "cluster-down"}, severity: check.Fatal, clusters: true, prepare: func(t *testing.T, s *site) {
		for _, node := range s.to.Nodes {
			node.MustDo("CLUSTER", "DELSLOTS", 7)
		}
		rt.Eventually(t, patience, func() error {
			for _, node := range s.to.Nodes {
				if state := node.MustDo("CLUSTER", "INFO").Text; !strings.HasPrefix(state, "cluster_state:fail") {
					return fmt.Errorf("%s: %.30s", node.Addr, state)
				}
			}
			return nil
		})
	}},
	"existing keys": {ids: []string{"existing-keys"}, severity: check.Fatal, says: "--existing", prepare: func(_ *testing.T, s *site) { s.target.MustDo("SET", "own", 1) }},
	"backlog":       {ids: []string{"backlog-small"}, severity: check.Warn, says: "repl-backlog-size", source: settingsOf("repl-backlog-size", "64kb"), prepare: withLoad, sample: 300 * time.Millisecond},
	"output buffer": {ids: []string{"output-buffer-small"}, severity: check.Warn, source: settingsOf("client-output-buffer-limit", "replica 1mb 512kb 1"), prepare: withData},
	"a module in use": {
		ids: []string{"module-missing", "type-missing", "command-missing"}, severity: check.Fatal, says: "vectorset", from: "redis-8.0", to: "redis-7.0",
		prepare: func(_ *testing.T, s *site) { s.source.MustDo("VADD", "v", "VALUES", 2, 1, 2, "element") },
	},
	"a type": {
		ids: []string{"type-missing", "command-missing"}, severity: check.Fatal, says: "hash field TTLs (1 hashes)", from: "redis-8.0", to: "valkey-8.0",
		prepare: func(_ *testing.T, s *site) {
			s.source.MustDo("HSET", "hash", "field", 1)
			s.source.MustDo("HPEXPIRE", "hash", 1_000_000, "FIELDS", 1, "field")
		},
	},
	"a command": {
		ids: []string{"command-missing"}, severity: check.Warn, says: "LPUSH", target: settingsOf("rename-command LPUSH", ""),
		prepare: func(_ *testing.T, s *site) { s.source.MustDo("LPUSH", "list", 1) },
	},
	"min-replicas":   {ids: []string{"min-replicas-unmet"}, severity: check.Fatal, target: settingsOf("min-replicas-to-write", "1")},
	"disk":           {ids: []string{"state-disk-small"}, severity: check.Warn, says: "spool.max-bytes", args: []string{"--spool-max-bytes", "4000TiB"}},
	"certificate":    {ids: []string{"certificate-expiring"}, severity: check.Warn, says: "23 hours", target: rt.Options{TLS: true}, prepare: trusting},
	"no authority":   {ids: []string{"certificate-untrusted"}, severity: check.Fatal, target: rt.Options{TLS: true}},
	"protected mode": {ids: []string{"protected-mode"}, severity: check.Fatal, prepare: fromOutside},
	"timeouts": {
		ids: []string{"client-timeout-short", "repl-timeout-short"}, severity: check.Warn, source: settingsOf("repl-timeout", "5"), target: settingsOf("timeout", "2"),
	},
	"maxclients":            {ids: []string{"maxclients-low"}, severity: check.Warn, target: settingsOf("maxclients", "5")},
	"no disk at the target": {ids: []string{"persistence-failing"}, severity: check.Fatal, target: settingsOf("save", "3600 1"), prepare: breakSaves},
	"a source cut off": {ids: []string{"source-cut-off"}, severity: check.Warn, prepare: func(t *testing.T, s *site) {
		_, port, _ := net.SplitHostPort(closedPort(t))
		s.source.MustDo("REPLICAOF", "127.0.0.1", port)
	}},
	"--db-map": {ids: []string{"db-map-refused"}, severity: check.Fatal, args: []string{"--db-map", "1=0"}, prepare: func(_ *testing.T, s *site) { s.source.MustDo("SET", "key", 1) }},
	"replicas": {ids: []string{"replicas-missing"}, severity: check.Warn, args: []string{"--wait-replicas", "1"}},
}

// TestCheckNames: each misconfiguration is named, and nothing else is.
func TestCheckNames(t *testing.T) {
	t.Parallel()
	for name, c := range plantedOnes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, release := range []string{c.from, c.to} {
				if release != "" {
					rt.Require(t, release)
				}
			}
			s := newSite(t, c)
			if c.prepare != nil {
				c.prepare(t, s)
			}
			all := examined(t, max(c.sample, brief), append(s.args, c.args...)...)
			want := slices.Sorted(slices.Values(c.ids))
			if got := grave(all); !slices.Equal(got, want) {
				t.Errorf("found %+v, want %v", all, want)
			}
			i := slices.IndexFunc(all, func(f check.Finding) bool { return f.ID == c.ids[0] })
			if i < 0 || all[i].Severity != c.severity || !strings.Contains(all[i].Evidence+all[i].Remedy, c.says) {
				t.Errorf("found %+v, want %s %s with %q", all, c.severity, c.ids[0], c.says)
			}
		})
	}
}

// newSite starts what a case asks for.
func newSite(t *testing.T, c planted) *site {
	c.source.Release, c.target.Release = c.from, c.to
	if c.clusters {
		s := &site{source: rt.Start(t, c.source), to: rt.StartCluster(t, rt.ClusterOptions{Primaries: 2})}
		s.args = []string{"--source", s.source.URL(), "--target", "redis://" + strings.Join(s.to.Seeds(), ",")}
		return s
	}
	s := &site{source: rt.Start(t, c.source), target: rt.Start(t, c.target)}
	from, to := s.source.URL(), s.target.URL()
	if len(c.args) > 0 && strings.HasSuffix(c.args[0], "-password") {
		from, to = strings.Replace(from, ":right@", "", 1), strings.Replace(to, ":right@", "", 1)
	}
	s.args = []string{"--source", from, "--target", to}
	return s
}

func withData(t *testing.T, s *site) { fill(t, s.source, 100_000) }

// withLoad writes to the source until the test ends.
func withLoad(t *testing.T, s *site) {
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	conn := s.source.Dial()
	go func() {
		defer close(ended)
		value := strings.Repeat("v", 1<<10)
		for ctx.Err() == nil {
			if _, err := conn.Do(ctx, patience, "SET", "key", value); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		stop()
		<-ended
		_ = conn.Close()
	})
}

func trusting(_ *testing.T, s *site) { s.args = append(s.args, "--target-tls-ca", s.target.TLS.CA) }

// fromOutside has keyhaul reach the target from an address that protected mode refuses.
func fromOutside(t *testing.T, s *site) {
	if outside(s.target.Addr) == "" {
		t.Skipf("%s takes 127.0.0.2 for its own machine, or is not protected where it is bound to an address", s.target.Version)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte(outside(s.target.Addr)))
			_ = c.SetDeadline(time.Now().Add(time.Second))
			_, _ = c.Read(make([]byte, 100)) // so that closing does not take back what was sent
			_ = c.Close()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
	})
	s.args[3] = "redis://" + l.Addr().String()
}

// outside returns what a server says at once to a client of another address.
func outside(addr string) string {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return ""
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
	said := make([]byte, 4<<10)
	n, _ := c.Read(said)
	return string(said[:n])
}

// breakSaves has the target fail to save, so that it refuses writes.
func breakSaves(t *testing.T, s *site) {
	if err := os.Mkdir(filepath.Join(s.target.Dir, "dump.rdb"), 0o700); err != nil { // in the way of the file
		t.Fatal(err)
	}
	s.target.MustDo("BGSAVE")
	rt.Eventually(t, patience, func() error {
		if status := s.target.Info("persistence")["rdb_last_bgsave_status"]; status != "err" {
			return fmt.Errorf("the last snapshot: %s", status)
		}
		return nil
	})
}

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// startPlainLoad writes plain commands into the source until stopLoad. Unlike startLoad's they do not mind a FLUSHALL.
func (s *trial) startPlainLoad(databases int) {
	s.t.Helper()
	load := rt.Load{Endpoint: s.source.Endpoint(), Tagged: s.setup.cluster, Rate: 3000, Seed: rand.Uint64(), Keys: 300, Databases: databases}
	ctx, cancel := context.WithCancel(context.Background())
	var counts rt.LoadCounts
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { counts, err = load.Run(ctx) })
	s.stopLoad = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err != nil || counts.Units == 0 {
			s.t.Errorf("load: %v, %+v", err, counts)
		}
	})
	s.t.Cleanup(s.stopLoad)
}

// streams waits until the keyhaul that works has its snapshot behind it.
func (s *trial) streams() {
	s.t.Helper()
	s.until(s.keyhaul, "streaming", func(l haul.LinkStatus) bool { return l.SnapshotDone })
}

// applies waits until everything that the source has now is applied.
func (s *trial) applies() {
	s.t.Helper()
	at := s.source.Offset()
	s.until(s.keyhaul, fmt.Sprintf("applied up to %d", at), func(l haul.LinkStatus) bool { return l.Applied >= at })
}

// keepsItsKeys expects what keyhaul must never lose on the target, and nothing of its own beside that.
func (s *trial) keepsItsKeys(when string) {
	s.t.Helper()
	must := []string{"keyhaul:default:{haul}:record", "keyhaul:default:{haul}:lease", "keyhaul:{haul}:names"}
	if s.setup.cluster {
		fences, marks := 0, 0
		for _, key := range s.ownKeys() {
			switch {
			case strings.HasPrefix(key, "keyhaul:default:fence:{"):
				fences++
			case strings.HasPrefix(key, "keyhaul:default:mark:{"):
				marks++
			case slices.Contains(must, key):
				must = slices.DeleteFunc(must, func(k string) bool { return k == key })
			default:
				s.t.Errorf("%s: the target holds %q", when, key)
			}
		}
		if fences != 16384 || marks < 3 || len(must) > 0 {
			s.t.Errorf("%s: the target holds %d fences, %d marks, and lacks %q", when, fences, marks, must)
		}
		return
	}
	conn := s.nodes[0]
	must = append(must, "keyhaul:default:fence")
	for db := range 16 {
		conn.MustDo("SELECT", db)
		for _, r := range conn.MustDo("KEYS", "keyhaul:*").Array {
			if db > 0 || !slices.Contains(append([]string{"keyhaul:default:mark"}, must...), r.Text) {
				s.t.Errorf("%s: the target holds %q in database %d", when, r.Text, db)
			}
			must = slices.DeleteFunc(must, func(k string) bool { return db == 0 && k == r.Text })
		}
	}
	conn.MustDo("SELECT", 0)
	if len(must) > 0 {
		s.t.Errorf("%s: the target lacks %q", when, must)
	}
}

// TestFlushes: the source's commands without keys do not take away what keyhaul has to know, nor leave it in another
// database, and whoever is killed around them resumes.
func TestFlushes(t *testing.T) {
	t.Parallel()
	lib := func(name string, n int) []any {
		return []any{"FUNCTION", "LOAD", "REPLACE", fmt.Sprintf("#!lua name=%s\nredis.register_function('%s', function() return %d end)", name, name, n)}
	}
	multi := func(calls ...[]any) [][]any { return append(append([][]any{{"MULTI"}}, calls...), []any{"EXEC"}) }
	one := func(args ...any) []any { return args }
	kinds := map[string]struct {
		calls     [][]any
		single    bool // only for a target that is one server
		functions bool
	}{
		"FLUSHALL":          {calls: [][]any{one("FLUSHALL")}},
		"FLUSHALL by ASYNC": {calls: [][]any{one("FLUSHALL", "ASYNC")}},
		"FLUSHDB 0":         {calls: [][]any{one("FLUSHDB")}},
		"FLUSHDB 3":         {calls: [][]any{one("SELECT", 3), one("FLUSHDB"), one("SELECT", 0)}, single: true},
		"SWAPDB 0 1":        {calls: [][]any{one("SWAPDB", 0, 1)}, single: true},
		"SWAPDB 1 0":        {calls: [][]any{one("SWAPDB", 1, 0)}, single: true},
		"SWAPDB 2 3":        {calls: [][]any{one("SWAPDB", 2, 3)}, single: true},
		"FLUSHALL in MULTI": {calls: multi(one("INCR", "before"), one("FLUSHALL"), one("INCR", "behind")), single: true},
		"FLUSHDB in MULTI of another database": {
			calls: append(append([][]any{one("SELECT", 3)}, multi(one("RPUSH", "l", 1), one("FLUSHDB"), one("RPUSH", "l", 2))...), one("SELECT", 0)), single: true,
		},
		"SWAPDB in MULTI": {calls: multi(one("INCR", "before"), one("SWAPDB", 0, 2), one("INCR", "behind"), one("SWAPDB", 3, 0)), single: true},
		"all in MULTI":    {calls: multi(one("SWAPDB", 0, 2), one("FLUSHDB"), one("SELECT", 2), one("SWAPDB", 2, 0), one("INCR", "n"), one("SELECT", 0)), single: true},
		"FUNCTION":        {calls: [][]any{lib("first", 1), lib("second", 1), lib("first", 2), one("FUNCTION", "DELETE", "second")}, functions: true},
		"FUNCTION FLUSH":  {calls: [][]any{lib("third", 1), one("FUNCTION", "FLUSH"), lib("fourth", 1)}, functions: true},
	}
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, kind := range kinds {
			if kind.single && cluster {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster})
				if kind.functions && !s.source.Version.AtLeast(7, 0) {
					t.Skipf("%s has no functions", s.source.Version)
				}
				databases := 4
				if cluster {
					databases = 1
				}
				s.startPlainLoad(databases)
				s.start()
				s.streams()
				for round := range 4 {
					for _, call := range kind.calls {
						s.source.MustDo(call...)
					}
					when := "killed behind it"
					if round%2 == 0 {
						s.applies()
					} else { // anywhere around it
						when = "killed around it"
						time.Sleep(rand.N(40 * time.Millisecond))
					}
					s.kill()
					if !cluster || round%2 == 0 {
						s.keepsItsKeys(when)
					}
					s.start()
					s.streams()
					s.applies()
					s.keepsItsKeys("resumed")
				}
				s.equal(1)
				if kind.functions {
					want := s.source.MustDo("FUNCTION", "DUMP").Text
					s.eachNode(func(node *rt.Server) {
						if got := node.MustDo("FUNCTION", "DUMP").Text; got != want {
							t.Errorf("%s: functions differ: %q, want %q", node.Addr, got, want)
						}
					})
				}
			})
		}
	})
}

// TestFlushBrokenOff: who resumes within a FLUSHALL of a cluster, of which a sparse mark tells that fences are missing,
// writes them before a mark that says nothing of it.
func TestFlushBrokenOff(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true})
	s.startPlainLoad(1)
	s.start()
	s.streams()
	s.source.MustDo("FLUSHALL")
	s.applies()
	s.stopLoad()
	s.applies()
	pause(1200*time.Millisecond, 1300*time.Millisecond) // the marks
	s.kill()
	s.eachNode(func(node *rt.Server) {
		for _, key := range node.MustDo("KEYS", "keyhaul:default:*").Array {
			switch {
			case strings.HasPrefix(key.Text, "keyhaul:default:mark:"):
				node.MustDo("SET", key.Text, node.MustDo("GET", key.Text).Text+" sparse")
			case strings.HasPrefix(key.Text, "keyhaul:default:fence:") && rand.IntN(2) == 0:
				node.MustDo("DEL", key.Text)
			}
		}
	})
	for range 2 {
		s.startPlainLoad(1)
		s.start()
		s.streams()
		s.applies()
		pause(1200*time.Millisecond, 1300*time.Millisecond) // other marks
		s.keepsItsKeys("resumed")
		s.stopLoad()
		s.kill()
	}
	s.start()
	s.equal(1)
}

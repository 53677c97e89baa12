package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestDatabaseOverRestart: a stream that stays in one database does not name it again after +CONTINUE.
func TestDatabaseOverRestart(t *testing.T) {
	t.Parallel()
	for name, fresh := range map[string]bool{"same state directory": false, "fresh state directory": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTrial(t, setup{})
			s.start()
			s.streams()
			s.source.MustDo("SELECT", 3) // nobody else writes
			for i := range 6 {
				s.source.MustDo("INCR", "n")
				s.source.MustDo("RPUSH", "list", i)
				if i%2 == 0 {
					s.source.MustDo("MULTI")
					s.source.MustDo("INCR", "n")
					s.source.MustDo("RPUSH", "list", "in a transaction")
					s.source.MustDo("EXEC")
				}
				if i%3 != 2 {
					s.applies()
				}
				s.kill()
				s.source.MustDo("INCR", "n")
				if fresh {
					s.state = t.TempDir()
				}
				s.start()
				s.streams()
				s.source.MustDo("INCR", "n")
				s.applies()
			}
			s.source.MustDo("SELECT", 0)
			s.equal(1)
		})
	}
}

// TestSourceFailover: a replica of the source that is promoted continues the history under another id, also for a
// keyhaul that is killed afterwards; one that lacks what the target has does not.
func TestSourceFailover(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, lacks := range map[string]bool{"in step": false, "behind": true} {
			for when, killed := range map[string]bool{"while it runs": false, "while it is down": true} {
				t.Run(name+", "+when, func(t *testing.T) {
					t.Parallel()
					s := newTrial(t, setup{cluster: cluster, proxied: true})
					replica := rt.Start(t, rt.Options{Config: map[string]string{"repl-backlog-size": "64mb"}})
					replica.ReplicaOf(s.source)
					copies := s.source.FullSyncs() + 1
					s.startLoad()
					s.start()
					s.streams()
					s.moving(s.keyhaul)
					if lacks { // from here on its history is another one
						replica.MustDo("REPLICAOF", "NO", "ONE")
					}
					s.stopLoad()
					s.source.MustDo("INCR", "last")
					s.applies()
					if !lacks {
						rt.Eventually(t, patience, func() error {
							if a, b := replica.Number("replication", "slave_repl_offset"), s.source.Offset(); a < b {
								return fmt.Errorf("the replica is at %d of %d", a, b)
							}
							return nil
						})
					}
					if got := s.source.FullSyncs(); got != copies {
						t.Errorf("%d full copies, want %d", got, copies)
					}
					if killed {
						s.kill()
					}
					s.gate.Refuse(true)
					s.gate.Cut()
					s.source.Kill()
					replica.MustDo("REPLICAOF", "NO", "ONE")
					s.gate.Retarget(replica.Addr)
					s.gate.Refuse(false)
					if killed {
						s.start()
					}
					s.source = replica
					if lacks {
						replica.MustDo("INCR", "elsewhere")
						s.keyhaul.exit(haul.ExitHistoryLost, "What to do")
						if n := replica.FullSyncs(); n != 0 {
							t.Errorf("%d full copies of the new primary", n)
						}
						return
					}
					s.startLoad()
					pause(200*time.Millisecond, 400*time.Millisecond)
					s.applies()
					for range 2 {
						s.kill()
						s.start()
						s.streams()
						s.applies()
					}
					s.equal(0)
					if p := replica.Number("stats", "sync_partial_ok"); p < 3 {
						t.Errorf("%d partial copies", p)
					}
				})
			}
		}
	})
}

// TestTargetForgets: a target that comes back with an old state is taken on from there; an empty one is not.
func TestTargetForgets(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, down := range map[string]bool{"while it runs": false, "while it is down": true} {
			t.Run("old, "+name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, flags: []string{"--on-lost-history", "fail"}})
				s.startLoad()
				s.start()
				s.streams()
				for range 3 {
					s.moving(s.keyhaul)
					node := s.anyNode()
					node.MustDo("SAVE")
					pause(1200*time.Millisecond, 2*time.Second) // that it will forget
					s.counts()
					if down {
						s.kill()
					}
					node.Kill()
					node.Restart()
					if down {
						s.start()
						s.streams()
					}
					s.applies()
				}
				s.equal(1)
			})
			t.Run("empty, "+name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster})
				s.startLoad()
				s.start()
				s.streams()
				s.moving(s.keyhaul)
				s.stopLoad()
				node := s.nodeFor("keyhaul:default:fence:{0}")
				if cluster { // not the one that has the record: then there is no haul to speak of
					for _, other := range s.nodes {
						if other.Do("EXISTS", "keyhaul:default:{haul}:record").Err() != nil {
							node = other
						}
					}
				}
				if down {
					s.kill()
				}
				node.Kill()
				node.Restart()
				if down && !cluster { // nothing tells of the haul any more: it begins anew
					s.start()
					s.equal(2)
					return
				}
				if down {
					s.start()
				}
				s.keyhaul.exit(haul.ExitHistoryLost, "What to do")
				if n := s.source.FullSyncs(); n != 1 {
					t.Errorf("%d full copies", n)
				}
			})
		}
	})
}

// TestRefusesToBegin: a target on which exactly-once delivery cannot be kept is refused before anything is written.
func TestRefusesToBegin(t *testing.T) {
	t.Parallel()
	newer := func(key, value string) func(s *trial) {
		return func(s *trial) {
			s.start()
			s.streams()
			s.applies()
			s.keyhaul.signal(syscall.SIGTERM)
			s.keyhaul.exit(haul.ExitDone)
			s.nodeFor(key).MustDo("SET", key, value)
		}
	}
	kinds := map[string]struct {
		prepare func(s *trial)
		texts   []string
		single  bool
		flags   []string
		fine    bool
	}{
		"evicting": {prepare: func(s *trial) {
			s.eachNode(func(node *rt.Server) {
				node.MustDo("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "allkeys-lru")
			})
		}, texts: []string{"allkeys-lru", "noeviction"}},
		"evicting, on one node": {prepare: func(s *trial) {
			s.nodes[len(s.nodes)-1].MustDo("CONFIG", "SET", "maxmemory", "1gb", "maxmemory-policy", "volatile-ttl")
		}, texts: []string{"volatile-ttl", "noeviction"}},
		"evicting without a limit": {prepare: func(s *trial) {
			s.eachNode(func(node *rt.Server) { node.MustDo("CONFIG", "SET", "maxmemory-policy", "allkeys-lru") })
		}, fine: true},
		"no CLIENT LIST":              {prepare: func(s *trial) { s.as("-client|list") }, texts: []string{"+client|list", "+client|kill"}},
		"no CLIENT KILL":              {prepare: func(s *trial) { s.as("-client|kill") }, texts: []string{"+client|list", "+client|kill"}},
		"no CLIENT ID":                {prepare: func(s *trial) { s.as("-client|id") }, texts: []string{"+client|id"}},
		"no CLIENT SETNAME":           {prepare: func(s *trial) { s.as("-client|setname") }, texts: []string{"+client|setname"}},
		"at least once needs neither": {prepare: func(s *trial) { s.as("-client|kill", "-client|list") }, flags: []string{"--delivery", "at-least-once"}, fine: true},
		"tombstone": {prepare: func(s *trial) {
			s.start()
			s.streams()
			s.applies()
			s.keyhaul.signal(syscall.SIGTERM)
			s.keyhaul.exit(haul.ExitDone)
			s.run("finish", append([]string{"--state-dir", s.state, "--http", ""}, s.args...)...).exit(haul.ExitDone)
			s.run("cleanup", "--target", s.to).exit(haul.ExitDone)
		}, texts: []string{"cleaned up", "another --name"}},
		"newer fence":  {prepare: newer("keyhaul:default:fence", "2 1 "+strings.Repeat("a", 40)+" 1 0 0 more"), texts: []string{"newer"}, single: true},
		"newer mark":   {prepare: newer("keyhaul:default:mark", "2 what is that"), texts: []string{"newer"}, single: true},
		"newer slot":   {prepare: newer("keyhaul:default:fence:{0}", "2 what is that"), texts: []string{"newer"}},
		"newer record": {prepare: newer("keyhaul:default:{haul}:record", `{"version":2,"phase":["?"]}`), texts: []string{"newer"}},
		"newer lease":  {prepare: newer("keyhaul:default:{haul}:lease", "2 what is that"), texts: []string{"newer"}},
	}
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, kind := range kinds {
			if kind.single && cluster || name == "newer slot" && !cluster {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, flags: kind.flags})
				if strings.HasPrefix(name, "no CLIENT") && !s.source.Version.AtLeast(7, 0) {
					t.Skipf("rules of %s have no subcommands", s.source.Version)
				}
				kind.prepare(s)
				before := s.everything()
				s.start()
				if kind.fine {
					s.streams()
					s.equal(1)
					return
				}
				s.keyhaul.exit(haul.ExitRefused, append(kind.texts, "What to do")...)
				if now := s.everything(); now != before {
					t.Errorf("something was written:\n%.3000s\nbefore:\n%.3000s", now, before)
				}
			})
		}
	})
}

// as makes keyhaul a user of the target with all rights but some.
func (s *trial) as(rules ...any) {
	s.eachNode(func(node *rt.Server) {
		node.MustDo(append([]any{"ACL", "SETUSER", "writer", "on", ">secret", "~*", "&*", "+@all"}, rules...)...)
	})
	s.args = append(s.args, "--target-username", "writer", "--target-password", "secret")
}

// everything is a digest of the target.
func (s *trial) everything() string {
	var all []string
	s.eachNode(func(node *rt.Server) { all = append(all, node.MustDo("DEBUG", "DIGEST").Text) })
	return strings.Join(all, " ")
}

// TestOneShots: what cron starts again and again goes on where the last run has stopped.
func TestOneShots(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, fresh := range map[string]bool{"same state directory": false, "fresh state directory": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster})
				s.startLoadOf(rt.MixPlain) // without sessions, which expire between two runs: each run ends with true deadlines
				for i, until := range []string{"snapshot", "caught-up", "caught-up", "caught-up"} {
					s.start("--until", until)
					s.keyhaul.exit(haul.ExitDone)
					if strings.Contains(s.keyhaul.stderr(), "already_applied") {
						t.Errorf("run %d has read again what the last one had applied: %s", i, s.keyhaul.stderr())
					}
					pause(200*time.Millisecond, 400*time.Millisecond) // is written without us
					if i == 2 {
						s.stopLoad()
					}
					if fresh {
						s.state = t.TempDir()
					}
				}
				if r := s.compare(rt.CompareOptions{}); !r.Equal() {
					t.Error(r)
				}
				if n := s.source.FullSyncs(); n != 1 {
					t.Errorf("%d full copies", n)
				}
			})
		}
	})
}

// TestOneShotUnderLoad: the deadlines that one process has put off are true when it ends, whatever commands brought them;
// and it looks for them only if it cannot tell which they are.
func TestOneShotUnderLoad(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, known := range map[string]bool{"known": true, "unknown": false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, proxied: true})
				for _, gate := range s.gates {
					gate.Limit(80_000)
				}
				s.start("--until", "caught-up")
				s.until(s.keyhaul, "receives", func(l haul.LinkStatus) bool { return l.Connected })
				s.startLoad()
				s.source.MustDo("SET", "{x}a", "1", "EX", 1000)
				s.source.MustDo("RENAME", "{x}a", "{x}b")
				if !known {
					s.source.MustDo("COPY", "{x}b", "{x}c")
				}
				if !known && !cluster {
					s.source.MustDo("COPY", "{x}b", "{x}d", "DB", 2)
					s.source.MustDo("MOVE", "{x}c", 2)
				}
				pause(2*time.Second, 3*time.Second)
				s.stopLoad()
				if l, _, err := s.look(s.keyhaul); err != nil || l.SnapshotDone {
					t.Fatalf("the snapshot is there before the load has ended: %v", err)
				}
				for _, gate := range s.gates {
					gate.Limit(0)
				}
				s.keyhaul.exit(haul.ExitDone)
				if looked := strings.Contains(s.keyhaul.stderr(), "looking through all keys"); looked == known {
					t.Errorf("all keys were looked at: %t", looked)
				}
				if r := s.compare(rt.CompareOptions{}); !r.Equal() {
					t.Error(r)
				}
			})
		}
	})
}

// rewrite changes the record of the haul, which no keyhaul runs.
func (s *trial) rewrite(change ...string) {
	s.t.Helper()
	const key = "keyhaul:default:{haul}:record"
	node := s.nodeFor(key)
	text := node.MustDo("GET", key).Text
	after := strings.NewReplacer(change...).Replace(text)
	if after == text {
		s.t.Fatalf("the record is %s", text)
	}
	node.MustDo("SET", key, after)
	s.state = s.t.TempDir()
}

// TestCopyBrokenOff: a copy that was broken off is begun anew on a target emptied of what it had written, unless other
// hauls write there; and it is emptied also if the process died between its intention and the deed.
func TestCopyBrokenOff(t *testing.T) {
	t.Parallel()
	const snapshot, streaming = `"phase":"snapshot"`, `"phase":"streaming"`
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, c := range map[string]struct {
			change []string
			other  bool
			left   int64 // of a key that the source does not have
			exit   haul.Exit
		}{
			"began empty":                     {[]string{streaming, snapshot}, false, 0, haul.ExitDone},
			"began with keys":                 {[]string{streaming, snapshot, `"empty"`, `"replace"`}, false, 1, haul.ExitDone},
			"was about to be emptied":         {[]string{streaming, snapshot + `,"flush":true`, `"empty"`, `"replace"`}, false, 0, haul.ExitDone},
			"another haul writes to it":       {[]string{streaming, snapshot}, true, 1, haul.ExitRefused},
			"another haul, the copy is whole": {[]string{`"syncs"`, `"sync"`}, true, 1, haul.ExitDone},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster})
				s.start("--until", "caught-up")
				s.keyhaul.exit(haul.ExitDone)
				s.nodeFor("left").MustDo("SET", "left", "1")
				if c.other {
					s.nodeFor("keyhaul:{haul}:names").MustDo("SADD", "keyhaul:{haul}:names", "another")
				}
				s.rewrite(c.change...)
				s.start("--until", "caught-up")
				s.keyhaul.exit(c.exit)
				if n := s.nodeFor("left").MustDo("EXISTS", "left").Int; n != c.left {
					t.Errorf("of a key that the source does not have there are %d, want %d", n, c.left)
				}
			})
		}
	})
}

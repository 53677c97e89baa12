package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// nodeFor is the server of the target that has a key.
func (s *trial) nodeFor(key string) *rt.Server {
	s.t.Helper()
	if !s.setup.cluster {
		return s.nodes[0]
	}
	for _, node := range s.nodes {
		if node.Do("EXISTS", key).Err() == nil {
			return node
		}
	}
	s.t.Fatalf("no node has %s", key)
	return nil
}

// journal is what the target knows of refused commands.
func (s *trial) journal() string {
	s.t.Helper()
	const key = "keyhaul:default:{haul}:refusals"
	var all []string
	for _, r := range s.nodeFor(key).MustDo("LRANGE", key, 0, -1).Array {
		all = append(all, r.Text)
	}
	return strings.Join(all, "\n")
}

// TestRefusedWithinTransaction: a transaction that was applied but for one command is journalled on the target; nobody
// goes on before the operator says so, and then everything else has been applied once.
func TestRefusedWithinTransaction(t *testing.T) {
	t.Parallel()
	const value = "planted-value-4711"
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, multi := range map[string]bool{"alone": false, "in a transaction of the source": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, flags: []string{"--on-error", "stop"}})
				const list, n = "{x}list", "{x}n"
				s.source.MustDo("RPUSH", list, "first")
				s.start()
				s.streams()
				s.applies()
				node := s.nodeFor(list)
				node.MustDo("DEL", list)
				node.MustDo("SET", list, "a string")
				begin := s.source.Offset()
				if multi {
					s.source.MustDo("MULTI")
				}
				s.source.MustDo("INCR", n)
				s.source.MustDo("RPUSH", list, value)
				s.source.MustDo("INCR", n)
				if multi {
					s.source.MustDo("EXEC")
				}
				s.source.MustDo("INCR", n)
				s.keyhaul.exit(haul.ExitFailed, "WRONGTYPE", list, "What to do")
				j := s.journal()
				if !strings.Contains(j, "RPUSH") && !strings.Contains(j, "MULTI of") || !strings.Contains(j, list) || !strings.Contains(j, "WRONGTYPE") {
					t.Errorf("the journal on the target: %s", j)
				}
				for range 2 {
					s.source.MustDo("INCR", n)
					s.start()
					s.keyhaul.exit(haul.ExitFailed, "WRONGTYPE", list, "at offset", "--on-error skip")
				}
				s.start("--on-error", "skip")
				s.streams()
				s.source.MustDo("INCR", n)
				s.applies()
				if j := s.journal(); j != "" {
					t.Errorf("the journal is left: %s", j)
				}
				b, err := os.ReadFile(filepath.Join(s.state, "default", "errors.log"))
				if err != nil || strings.Count(string(b), "\n") != 1 || !strings.Contains(string(b), list) {
					t.Errorf("%v: %s", err, b)
				}
				if strings.Contains(s.keyhaul.stderr()+string(b)+j, value) {
					t.Error("the value shows")
				}
				var position int64
				_, rest, _ := strings.Cut(string(b), `"position":`)
				_, _ = fmt.Sscan(rest, &position)
				if position < begin || position > s.source.Offset() {
					t.Errorf("position %d, it was written behind %d", position, begin)
				}
				if got, want := node.MustDo("GET", n).Text, s.source.MustDo("GET", n).Text; got != want {
					t.Errorf("%s is %s, want %s", n, got, want)
				}
				s.source.MustDo("DEL", list) // mends it
				s.equal(1)
			})
		}
	})
}

// TestForbiddenWithinTransaction: a command that the target's user may not run keeps its transaction from being
// applied, whatever the policy; once allowed, everything goes on by itself and is applied once.
func TestForbiddenWithinTransaction(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for _, policy := range []string{"stop", "hold", "skip"} {
			t.Run(policy, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, flags: []string{"--on-error", policy}})
				s.eachNode(func(node *rt.Server) { node.MustDo("ACL", "SETUSER", "writer", "on", ">secret", "~*", "&*", "+@all") })
				s.args = append(s.args, "--target-username", "writer", "--target-password", "secret")
				s.start()
				s.streams()
				s.applies()
				const n, list = "{x}n", "{x}list"
				s.eachNode(func(node *rt.Server) { node.MustDo("ACL", "SETUSER", "writer", "-rpush") })
				for range 3 {
					s.source.MustDo("MULTI")
					s.source.MustDo("INCR", n)
					s.source.MustDo("RPUSH", list, "v")
					s.source.MustDo("EXEC")
					s.source.MustDo("INCR", n)
				}
				rt.Eventually(t, patience, func() error {
					if _, r, err := s.look(s.keyhaul); err != nil || len(r.Waiting) == 0 || !strings.Contains(r.Waiting[0].Cause, "NOPERM") {
						return fmt.Errorf("%v: it waits for %+v", err, r.Waiting)
					}
					return nil
				})
				time.Sleep(500 * time.Millisecond) // some tries
				if r := s.nodeFor(n).MustDo("GET", n); !r.Null {
					t.Errorf("of a refused transaction %s was applied: %s", n, r.Text)
				}
				s.eachNode(func(node *rt.Server) { node.MustDo("ACL", "SETUSER", "writer", "+rpush") })
				s.equal(1)
				if r := s.keyhaul.status(); r.Target.Counts["skipped"] > 0 || len(r.Waiting) > 0 {
					t.Errorf("%+v", r)
				}
			})
		}
	})
}

// TestUnknownWithinTransaction: a command that the target does not know keeps its transaction from being applied; the
// policy decides how it goes on.
func TestUnknownWithinTransaction(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"stop", "hold", "skip"} {
		for name, multi := range map[string]bool{"alone": false, "in a transaction of the source": true} {
			t.Run(policy+" "+name, func(t *testing.T) {
				t.Parallel()
				source, target := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{Config: map[string]string{"rename-command": `PFADD ""`}})
				state := t.TempDir()
				args := between(source, target, "--state-dir", state)
				p := start(t, append(args, "--on-error", policy)...)
				p.streaming()
				source.MustDo("SET", "text", "1")
				source.MustDo("INCR", "n")
				p.eventually("level", func(r report) bool { return r.Links[0].Applied >= source.Offset() })
				target.MustDo("DEBUG", "SLEEP", "0.3") // so that what follows travels in one transaction, or two
				source.MustDo("INCR", "n")
				if multi {
					source.MustDo("MULTI")
				}
				source.MustDo("RPUSH", "list", "a")
				source.MustDo("PFADD", "counted", "a")
				source.MustDo("RPUSH", "list", "b")
				if multi {
					source.MustDo("EXEC")
				}
				source.MustDo("INCR", "n")
				n := int64(2)
				if multi {
					n = 0 // all of a transaction is skipped
				}
				switch policy {
				case "stop":
					p.exit(haul.ExitFailed, "PFADD", "counted")
				case "hold":
					p.eventually("waiting", func(r report) bool {
						return len(r.Waiting) > 0 && strings.Contains(r.Waiting[0].Cause, "PFADD")
					})
					if code, _ := p.get("/readyz"); code == 200 {
						t.Error("it says that it is ready")
					}
					_ = p.cmd.Process.Kill()
					<-p.ended
				}
				if policy != "skip" {
					if got := target.MustDo("LLEN", "list").Int; multi && got != 0 {
						t.Errorf("%d elements of a refused transaction were applied", got)
					}
					p = start(t, append(args, "--on-error", "skip")...)
				}
				p.eventually("level", func(r report) bool { return r.Links[0].Applied >= source.Offset() })
				if got := target.MustDo("LLEN", "list").Int; got != n {
					t.Errorf("the list has %d elements, want %d", got, n)
				}
				if got := target.MustDo("GET", "n").Text; got != "3" {
					t.Errorf("n is %s, want 3", got)
				}
				b, err := os.ReadFile(filepath.Join(state, "default", "errors.log"))
				if err != nil || strings.Count(string(b), "\n") != 1 || !strings.Contains(string(b), "counted") {
					t.Errorf("%v: %s", err, b)
				}
			})
		}
	}
}

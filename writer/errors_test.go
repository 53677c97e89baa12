package writer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// TestClassify is the table of protocol.md 8.
func TestClassify(t *testing.T) {
	for text, act := range map[string]action{
		"LOADING Redis is loading the dataset in memory": actWait, "BUSY Redis is busy running a script.": actWait,
		"MASTERDOWN Link with MASTER is down": actWait, "NOREPLICAS Not enough good replicas to write.": actWait,
		"MISCONF Errors writing to the AOF file": actWait, "OOM command not allowed": actWait, "NOMASTERLINK x": actWait,
		"NOAUTH Authentication required.": actWait, "WRONGPASS x": actWait, "NOPERM x": actWait, "DENIED x": actWait,
		"TRYAGAIN Multiple keys request during rehashing of slot": actSlot, "ASK 1 127.0.0.1:1": actSlot,
		"MOVED 1 127.0.0.1:1": actSlot, "REDIRECT 127.0.0.1:1": actRoute, "CLUSTERDOWN The cluster is down": actSlot,
		"READONLY You can't write against a read only replica.": actRoute,
		"WRONGTYPE Operation": actData, "CROSSSLOT Keys": actData, "BUSYKEY Target": actData, "ERR syntax error": actData,
		"EXECABORT Transaction discarded because of previous errors.":          actData,
		"EXECABORT Transaction discarded because of: NOREPLICAS Not enough":    actWait,
		"EXECABORT Transaction discarded because of: MOVED 1 127.0.0.1:1":      actSlot,
		"EXECABORT Transaction discarded because of: OOM command not allowed.": actWait,
	} {
		if got := classify(abortCause(resp.NewError(text))); got != act {
			t.Errorf("%s: %d, want %d", text, got, act)
		}
		if act == actWait && remedy(resp.NewError(text)) == "" {
			t.Errorf("%s has no remedy", text)
		}
	}
}

// TestWaits: what a target refuses for now is waited for, visibly, and goes on by itself in order.
func TestWaits(t *testing.T) {
	t.Parallel()
	user := func(ep *topology.Endpoint) { ep.Username, ep.Password = "writer", "secret" }
	for _, c := range []struct {
		name    string
		options rt.Options
		ep      func(*topology.Endpoint)
		spoil   func(*rt.Server)
		cause   string
		mend    func(*rt.Server)
	}{
		{
			"OOM",
			rt.Options{},
			nil,
			func(s *rt.Server) { s.MustDo("CONFIG", "SET", "maxmemory", "1") }, "OOM",
			func(s *rt.Server) { s.MustDo("CONFIG", "SET", "maxmemory", "0") },
		},
		{
			"NOREPLICAS",
			rt.Options{},
			nil,
			func(s *rt.Server) { s.MustDo("CONFIG", "SET", "min-replicas-to-write", "1") }, "NOREPLICAS",
			func(s *rt.Server) { s.MustDo("CONFIG", "SET", "min-replicas-to-write", "0") },
		},
		{
			"NOPERM",
			rt.Options{Users: []string{"writer on >secret ~* &* +@all"}},
			user,
			func(s *rt.Server) { s.MustDo("ACL", "SETUSER", "writer", "-set", "-mset") }, "NOPERM",
			func(s *rt.Server) { s.MustDo("ACL", "SETUSER", "writer", "+@all") },
		},
		{
			"BUSY",
			rt.Options{Config: map[string]string{"busy-reply-threshold": "100"}},
			nil, nil, "BUSY",
			func(s *rt.Server) { killScript(s) },
		},
		{
			"MISCONF",
			rt.Options{Config: map[string]string{"save": "3600 100000"}},
			nil, failSave, "MISCONF",
			func(s *rt.Server) {
				s.MustDo("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
				s.MustDo("CONFIG", "SET", "save", "") // so that it can be stopped
			},
		},
		{
			"READONLY",
			rt.Options{},
			nil,
			func(s *rt.Server) { s.MustDo("REPLICAOF", "127.0.0.1", "1") }, "replica",
			func(s *rt.Server) { s.MustDo("REPLICAOF", "NO", "ONE") },
		},
	} {
		for _, kind := range []string{"commands", "transactions", "snapshot"} {
			t.Run(c.name+" "+kind, func(t *testing.T) {
				dst := rt.Start(t, c.options)
				ep := topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{dst.Addr}}
				if c.ep != nil {
					c.ep(&ep)
				}
				r := newRigAt(t, ep, nil)
				r.do("SET k before")
				r.drained()
				at := r.ch.Watermark.Stream().Offset
				if c.spoil != nil {
					c.spoil(dst)
				} else {
					dst = busy(t, dst)
				}
				const n = 300
				b := r.batch(kind == "snapshot")
				for i := range n {
					switch kind {
					case "commands":
						b.words(fmt.Sprintf("SET k:%d %d", i%7, i))
					case "transactions":
						b.tx(0, fmt.Sprintf("SET k:%d %d", i%7, i), fmt.Sprintf("SET l:%d %d", i%7, i))
					default:
						b.key(0, fmt.Sprintf("k:%d", i), []byte("\x00\x01x"+strings.Repeat("\x00", 10)), nil)
					}
				}
				b.send()
				w := r.waitsFor(c.cause)
				if now := r.ch.Watermark.Stream().Offset; now != at {
					t.Errorf("the watermark has moved from %d to %d", at, now)
				}
				t.Logf("waits: %s; remedy: %s", w.Cause, w.Remedy)
				c.mend(dst)
				r.drained()
				r.waitsNoMore()
				if kind == "snapshot" {
					want(t, dst, "DBSIZE", fmt.Sprint(n+1))
					return
				}
				for i := n - 7; i < n; i++ {
					want(t, dst, fmt.Sprintf("GET k:%d", i%7), fmt.Sprint(i))
				}
				if r.w.Status().Resends != 0 && c.name != "READONLY" {
					t.Errorf("%d resends without a lost connection", r.w.Status().Resends)
				}
			})
		}
	}
}

// failSave makes the server refuse writes because it cannot save.
func failSave(s *rt.Server) {
	s.MustDo("CONFIG", "SET", "rdbcompression", "no")
	if err := os.Mkdir(filepath.Join(s.Dir, "dump.rdb"), 0o700); err != nil { // a file cannot be renamed to it
		panic(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "dump.rdb", "x"), nil, 0o600); err != nil {
		panic(err)
	}
	s.Do("BGSAVE")
	for s.Info("persistence")["rdb_last_bgsave_status"] != "err" {
		time.Sleep(5 * time.Millisecond)
	}
}

// busy keeps the server busy with a script until killScript.
func busy(t *testing.T, s *rt.Server) *rt.Server {
	c := s.Dial()
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte("*3\r\n$4\r\nEVAL\r\n$18\r\nwhile true do end \r\n$1\r\n0\r\n")); err != nil {
		t.Fatal(err)
	}
	rt.Eventually(t, limit, func() error {
		if r := s.Do("GET", "k"); r.Kind != resp.KindError {
			return fmt.Errorf("it is not busy: %s", answerOf(r))
		}
		return nil
	})
	return s
}

func killScript(s *rt.Server) { s.MustDo("SCRIPT", "KILL") }

// TestDataErrors: an entry that the target refuses for what it is.
func TestDataErrors(t *testing.T) {
	for _, mode := range []struct {
		name string
		make func(testing.TB) target
	}{{"standalone", standaloneTarget}, {"cluster", clusterTarget}} {
		t.Run(mode.name, func(t *testing.T) {
			g := mode.make(t)
			fresh := func() {
				g.flush()
				g.do("{a}bad", "SADD", "{a}bad", "x")
			}
			t.Run("stop", func(t *testing.T) {
				fresh()
				r := newRig(t, g.addr, nil)
				r.do("SET {a}1 1")
				r.drained()
				at := r.offset
				r.do("APPEND {a}bad secretvalue", "SET {a}2 2")
				err := r.end()
				if haul.ExitOf(err) != haul.ExitFailed {
					t.Fatalf("it ends with %v", err)
				}
				for _, part := range []string{"WRONGTYPE", "APPEND", `"{a}bad"`, fmt.Sprintf("offset %d ", at), "database 0"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("the error does not name %s: %v", part, err)
					}
				}
				if strings.Contains(err.Error()+r.log.String(), "secretvalue") {
					t.Errorf("a value is told: %v %s", err, r.log)
				}
				if r.ch.Watermark.Stream().Offset != at {
					t.Errorf("the watermark has passed it")
				}
			})
			t.Run("stop when the channel is closed at once", func(t *testing.T) {
				fresh()
				r := newRig(t, g.addr, nil)
				r.do("APPEND {a}bad x")
				if err := r.finish(); err == nil {
					t.Error("it ends well")
				}
				r = newRig(t, g.addr, func(c *Config) { c.OnError, c.MaxSkipped = OnErrorSkip, 0 })
				r.do("APPEND {a}bad x")
				if err := r.finish(); err == nil {
					t.Error("it ends well")
				}
				r = newRig(t, g.addr, nil)
				b := r.batch(false)
				b.tx(0, "INCR {a}n", "APPEND {a}bad x")
				b.send()
				if err := r.finish(); err == nil {
					t.Error("it ends well")
				}
			})
			t.Run("skip", func(t *testing.T) {
				fresh()
				list := filepath.Join(t.TempDir(), "errors.log")
				r := newRig(t, g.addr, func(c *Config) { c.OnError, c.MaxSkipped, c.ErrorsLog = OnErrorSkip, 3, list })
				for i := range 3 {
					r.do(fmt.Sprintf("INCR {a}n:%d", i), "APPEND {a}bad secretvalue", fmt.Sprintf("INCR {a}m:%d", i))
				}
				r.drained()
				r.counted("skipped", 3)
				if at := r.ch.Watermark.Stream().Offset; at != r.offset {
					t.Errorf("the watermark is at %d, want %d", at, r.offset)
				}
				for i := range 3 {
					for _, k := range []string{"n", "m"} {
						key := fmt.Sprintf("{a}%s:%d", k, i)
						if got := answerOf(g.do(key, "GET", key)); got != "1" {
							t.Errorf("%s is %s", key, got)
						}
					}
				}
				text, err := os.ReadFile(list)
				if err != nil || strings.Count(string(text), "\n") != 3 || strings.Contains(string(text), "secretvalue") ||
					!strings.Contains(string(text), `"position":100,"db":0,"command":"APPEND","keys":["{a}bad"],"error":"WRONGTYPE`) {
					t.Errorf("errors.log: %s, %v", text, err)
				}
				r.do("APPEND {a}bad x")
				if err := r.end(); haul.ExitOf(err) != haul.ExitFailed || !strings.Contains(err.Error(), "more than 3") {
					t.Errorf("the fourth: %v", err)
				}
				if at := r.ch.Watermark.Stream().Offset; at >= r.offset {
					t.Errorf("the watermark has passed the fourth")
				}
			})
			t.Run("hold", func(t *testing.T) {
				fresh()
				r := newRig(t, g.addr, func(c *Config) { c.OnError = OnErrorHold })
				r.do("SET {a}1 1")
				r.drained()
				at := r.ch.Watermark.Stream().Offset
				r.do("SET {a}2 2", "APPEND {a}bad x", "SET {a}1 2")
				w := r.waitsFor("WRONGTYPE")
				if !strings.Contains(w.Cause, `"{a}bad"`) || !strings.Contains(w.Cause, "offset 200 ") {
					t.Errorf("it does not say where to mend it: %s", w.Cause)
				}
				if r.ch.Watermark.Stream().Offset != at {
					t.Error("the watermark has passed it")
				}
				g.do("{a}bad", "DEL", "{a}bad")
				r.drained()
				r.waitsNoMore()
				if got := answerOf(g.do("{a}bad", "GET", "{a}bad")) + answerOf(g.do("{a}1", "GET", "{a}1")); got != "x2" {
					t.Errorf("the keys are %s", got)
				}
			})
			t.Run("in a transaction", func(t *testing.T) {
				fresh()
				r := newRig(t, g.addr, nil)
				at := r.offset
				b := r.batch(false)
				b.tx(0, "INCR {a}n", "APPEND {a}bad secretvalue", "INCR {a}n")
				b.words("INCR {a}n")
				b.send()
				err := r.end()
				if err == nil || !strings.Contains(err.Error(), "WRONGTYPE") || strings.Contains(err.Error(), "secretvalue") {
					t.Errorf("stop: %v", err)
				}
				if r.ch.Watermark.Stream().Offset > at {
					t.Error("the watermark has passed it")
				}
				fresh()
				r = newRig(t, g.addr, func(c *Config) { c.OnError = OnErrorSkip })
				b = r.batch(false)
				b.tx(0, "INCR {a}n", "APPEND {a}bad x", "INCR {a}n")
				b.tx(0, "INCR {a}n", "NONSENSE")
				b.words("INCR {a}n")
				b.send()
				r.drained()
				r.counted("skipped", 2)
				if got := answerOf(g.do("{a}n", "GET", "{a}n")); got != "3" {
					t.Errorf("n is %s, want 3", got)
				}
			})
		})
	}
}

// TestRefusedMSET: what is wrong with the strings of a batch is said of the one that it is wrong with.
func TestRefusedMSET(t *testing.T) {
	dst := rt.Start(t, rt.Options{Users: []string{"writer on >secret ~* &* +@all -mset"}})
	ep := topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{dst.Addr}, Username: "writer", Password: "secret"}
	r := newRigAt(t, ep, nil)
	b := r.batch(true)
	for i := range 100 {
		b.key(0, fmt.Sprintf("k:%d", i), []byte("\x00\x01x"+strings.Repeat("\x00", 10)), nil)
	}
	b.send()
	r.drained() // one by one they are allowed
	want(t, dst, "DBSIZE", "100")
	if r.w.Status().Resends != 0 {
		t.Errorf("resends: %+v", r.w.Status())
	}
}

// TestAbortedTransactions plays what EXEC may answer.
func TestAbortedTransactions(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	node := inspect(t, topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{dst.Addr}}))
	for _, c := range []struct {
		name, first, exec string
	}{
		{"queued", "-OOM command not allowed when used memory > 'maxmemory'.", "-EXECABORT Transaction discarded because of previous errors."},
		{"at EXEC", "+QUEUED", "-EXECABORT Transaction discarded because of: NOREPLICAS Not enough good replicas to write."},
	} {
		t.Run(c.name, func(t *testing.T) {
			tx := func(first, exec string) []rt.Step {
				return []rt.Step{
					rt.Expect("MULTI"), rt.Reply("+OK"), rt.Expect("INCR", "a"), rt.Reply(first), rt.Expect("INCR", "b"), rt.Reply("+QUEUED"),
					rt.Expect("EXEC"), rt.Reply(exec),
				}
			}
			script := append(login(), tx(c.first, c.exec)...)
			script = append(script, rt.Expect("SET", "c", "1"), rt.Reply("+OK"))
			script = append(script, tx("+QUEUED", "*2\r\n:1\r\n:1")...)
			script = append(script, rt.Expect("SET", "c", "1"), rt.Reply("+OK"))
			p := rt.NewPeer(t, script)
			r := newRigFor(t, topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{p.Addr()}}), node,
				func(c *Config) { c.SnapshotLanes = 1 })
			b := r.batch(false)
			b.tx(0, "INCR a", "INCR b")
			b.words("SET c 1")
			b.send()
			p.Wait()
			r.drained()
		})
	}
}

// login is what a lane asks before it is ready.
func login() rt.Script {
	const info = "role:master\r\nredis_version:7.0.15\r\n"
	return rt.Script{
		rt.Expect("PING"), rt.Reply("+PONG"),
		rt.Expect("INFO", rt.Rest), rt.Send(fmt.Sprintf("$%d\r\n%s\r\n", len(info), info)),
		rt.Expect("CLIENT", "SETNAME", rt.Any), rt.Reply("+OK"),
		rt.Expect("MULTI"), rt.Reply("+OK"),
		rt.Expect("EXEC"), rt.Reply("*0"),
		rt.Expect("CONFIG", "GET", "timeout"), rt.Send("*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n"),
	}
}

// TestRefusalsOfAPeer plays the refusals that real servers give too rarely.
func TestRefusalsOfAPeer(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	node := inspect(t, topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{dst.Addr}}))
	for _, text := range []string{"LOADING Redis is loading", "MASTERDOWN Link with MASTER is down", "TRYAGAIN x", "CLUSTERDOWN x", "NOMASTERLINK x"} {
		t.Run(text, func(t *testing.T) {
			script := append(login(),
				rt.Expect("SET", "a", "1"), rt.Reply("-"+text), rt.Expect("SET", "b", "1"), rt.Reply("+OK"), // b overtakes a
				rt.Expect("SET", "a", "1"), rt.Reply("-"+text))
			if classify(resp.NewError(text)) > actWait { // the way is what may change: all is tried
				script = append(script, rt.Expect("SET", "b", "1"), rt.Reply("-"+text))
			}
			script = append(script,
				rt.Expect("SET", "a", "1"), rt.Reply("+OK"), rt.Expect("SET", "b", "1"), rt.Reply("+OK"))
			p := rt.NewPeer(t, script)
			r := newRigFor(t, topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{p.Addr()}}), node,
				func(c *Config) { c.SnapshotLanes = 1 })
			r.do("SET a 1", "SET b 1")
			p.Wait()
			r.drained()
			if n := r.w.Status().Resends; n != 1 || !strings.Contains(r.log.String(), "applied twice") {
				t.Errorf("b was applied twice, it tells of %d: %s", n, r.log)
			}
			r.waitsNoMore()
		})
	}
}

// TestRefusedIsTriedAlone: what follows an entry that is refused for long is applied once more, not at every try.
func TestRefusedIsTriedAlone(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	for range 100 {
		dst.MustDo("RPUSH", "list", "x")
	}
	r := newRig(t, dst.Addr, nil)
	r.do("SET warm 1")
	r.drained()
	dst.MustDo("CONFIG", "SET", "maxmemory", "1")
	r.do("SET refused 1", "LPOP list")
	r.waitsFor("OOM")
	rt.Eventually(t, 20*time.Second, func() error {
		if n := dst.Info("errorstats")["errorstat_OOM"]; !strings.HasPrefix(n, "count=") || n < "count=4" {
			return fmt.Errorf("errors: %s", n)
		}
		return nil
	})
	dst.MustDo("CONFIG", "SET", "maxmemory", "0")
	r.drained()
	r.waitsNoMore()
	if n := dst.MustDo("LLEN", "list").Int; n != 98 {
		t.Errorf("LPOP was applied %d times, want 2", 100-n)
	}
	if s := r.w.Status(); s.Resends != 1 {
		t.Errorf("%d counted as sent again, want 1", s.Resends)
	}
}

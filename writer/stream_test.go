package writer

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

func TestDatabases(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	plain := []byte("\x00\x05hello" + strings.Repeat("\x00", 10))
	r := newRig(t, dst.Addr, nil)
	for db := range 3 {
		b := r.batch(true)
		b.key(db, "snap", plain, nil)
		b.key(db, "snap:2", plain, nil)
		b.send()
	}
	r.drained()
	b := r.batch(false)
	for i := range 30 {
		b.do(i%4, "RPUSH", "list", fmt.Sprint(i))
	}
	b.do(3, "SET", "db", "3")
	b.do(3, "SET", "db:b", "3")
	b.tx(3, "SET tx 3", "SELECT 1", "SET tx 1", "SELECT 2", "SET tx 2")
	b.do(2, "SET", "after", "2")
	b.tx(0, "SET tx 0", "SELECT 5", "SET tx 5")
	b.do(0, "SET", "after", "0")
	b.tx(5, "SET tx:b 5")
	b.send()
	r.drained()
	for db := range 16 {
		dst.MustDo("SELECT", db)
		var all []string
		for _, k := range dst.MustDo("KEYS", "*").Array {
			all = append(all, k.Text)
			if k.Text != "list" && k.Text != "snap" && k.Text != "snap:2" {
				want(t, dst, "GET "+k.Text, fmt.Sprint(db))
			}
		}
		slices.Sort(all)
		wanted := map[int]string{
			0: "after list snap snap:2 tx", 1: "list snap snap:2 tx", 2: "after list snap snap:2 tx", 3: "db db:b list tx", 5: "tx tx:b",
		}[db]
		if got := strings.Join(all, " "); got != wanted {
			t.Errorf("db %d has %q, want %q", db, got, wanted)
		}
	}
}

func TestUnknownDatabase(t *testing.T) {
	small := rt.Start(t, rt.Options{Config: map[string]string{"databases": "4"}})
	cluster := rt.StartCluster(t, rt.ClusterOptions{Primaries: 1})
	for _, dst := range []*rt.Server{small, cluster.Nodes[0]} {
		for name, add := range map[string]func(*batch){
			"command":     func(b *batch) { b.do(9, "SET", "wrong", "1") },
			"transaction": func(b *batch) { b.tx(0, "SET wrong 1", "SELECT 9", "SET wrong 1") },
		} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t, dst.Addr, nil)
				r.do("SET right 1")
				r.drained()
				b := r.batch(false)
				add(b)
				b.do(0, "SET", "wrong", "2")
				b.send()
				err := r.end()
				if err == nil || !strings.Contains(err.Error(), "database 9") || haul.ExitOf(err) != haul.ExitFailed {
					t.Errorf("it ends with %v", err)
				}
				want(t, dst, "KEYS *", "right")
			})
		}
	}
}

// TestDatabaseAfterRefusedTransaction: the SELECT of a transaction that is refused never happens.
func TestDatabaseAfterRefusedTransaction(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	r := newRig(t, dst.Addr, func(c *Config) { c.OnError = OnErrorSkip })
	b := r.batch(false)
	b.do(0, "SET", "a", "0")
	b.tx(0, "SET b 0", "SELECT 1", "SET b 1", "NONSENSE") // NONSENSE is refused when it is queued
	b.do(1, "SET", "c", "1")
	b.do(1, "SET", "d", "1")
	b.tx(1, "SET e 1", "SELECT 2", "SET e 2")
	b.do(2, "SET", "f", "2")
	b.send()
	r.drained()
	r.counted("skipped", 1)
	for db, keys := range []string{"a", "c d e", "e f"} {
		dst.MustDo("SELECT", db)
		all := strings.Fields(answerOf(dst.MustDo("KEYS", "*")))
		slices.Sort(all)
		if got := strings.Join(all, " "); got != keys {
			t.Errorf("db %d has %q, want %q", db, got, keys)
		}
	}
}

func TestTransactions(t *testing.T) {
	s := rt.Start(t, rt.Options{})
	c := rt.StartCluster(t, rt.ClusterOptions{})
	node := c.NodeFor(rt.Slot("{x}"))
	for _, g := range []struct{ dst, addr *rt.Server }{{s, s}, {node, c.Nodes[0]}} {
		r := newRig(t, g.addr.Addr, nil)
		stop := wire(t, g.dst)
		b := r.batch(false)
		b.words("SET {x}0 0")
		b.tx(0, "INCR {x}1", "INCR {x}2", "PUBLISH somewhere hello")
		b.words("SET {x}3 0")
		b.send()
		r.drained()
		got := strings.Join(stop(), ";")
		if got != "SET {x}0 0;MULTI;INCR {x}1;INCR {x}2;PUBLISH somewhere hello;EXEC;SET {x}3 0" {
			t.Errorf("sent %s", got)
		}
		r.counted("transactions_split", 0)
	}
	r := newRig(t, c.Nodes[0].Addr, nil)
	b := r.batch(false)
	b.tx(0, "INCR {x}1", "INCR {y}1", "MSET {x}4 4 {y}4 4 {z}4 4", "DEL {x}2 {z}2", "PUBLISH somewhere hello", "INCR {y}1")
	b.send()
	r.drained()
	r.counted("transactions_split", 1)
	for line, text := range map[string]string{"{x}1": "2", "{y}1": "2", "{x}2": "nil", "{x}4": "4", "{y}4": "4", "{z}4": "4"} {
		if got := answerOf(c.MustDo(line, "GET", line)); got != text {
			t.Errorf("%s is %s, want %s", line, got, text)
		}
	}
}

// multiKey lists commands that are cut by slots on a cluster.
func multiKey(n int, value string) map[string][]string {
	mset, del := []string{"MSET"}, []string{"DEL"}
	msetex := []string{"MSETEX", fmt.Sprint(n)}
	for i := range n {
		mset = append(mset, fmt.Sprintf("key:%d", i), value+fmt.Sprint(i))
		msetex = append(msetex, fmt.Sprintf("key:%d", i), value+fmt.Sprint(i))
		del = append(del, fmt.Sprintf("key:%d", i))
	}
	msetex = append(msetex, "PXAT", "9999999999999")
	unlink := append([]string{"unlink"}, del[1:]...)
	return map[string][]string{"MSET": mset, "DEL": del, "UNLINK": unlink, "MSETEX": msetex}
}

func TestSplitBySlot(t *testing.T) {
	releases := []string{"", "valkey-9.1"}
	for _, release := range releases {
		t.Run("release "+release, func(t *testing.T) {
			if release != "" {
				rt.Require(t, release)
			}
			c := rt.StartCluster(t, rt.ClusterOptions{Options: rt.Options{Release: release}})
			hasMSETEX := !c.Nodes[0].Do("COMMAND", "INFO", "MSETEX").Array[0].Null && len(c.Nodes[0].Do("COMMAND", "INFO", "MSETEX").Array[0].Array) > 0
			t.Logf("MSETEX: %v", hasMSETEX)
			r := newRig(t, c.Nodes[0].Addr, nil)
			const n = 40
			check := func(how string, text string) {
				t.Helper()
				r.drained()
				for i := range n {
					key := fmt.Sprintf("key:%d", i)
					if got := answerOf(c.MustDo(key, "GET", key)); got != strings.ReplaceAll(text, "#", fmt.Sprint(i)) {
						t.Fatalf("%s: %s is %.100q", how, key, got)
					}
				}
			}
			for _, name := range []string{"MSET", "DEL", "MSETEX", "UNLINK"} {
				if name == "MSETEX" && !hasMSETEX {
					continue
				}
				text := "nil"
				if strings.HasPrefix(name, "MSET") {
					text = "some#"
				}
				args := multiKey(n, "some")[name]
				for _, how := range []string{"plain", "transaction", "big"} {
					for i := range n { // the other way round before
						key := fmt.Sprintf("key:%d", i)
						c.MustDo(key, "SET", key, "old")
					}
					b := r.batch(false)
					switch how {
					case "plain":
						b.do(0, args...)
					case "transaction":
						b.tx(0, "SET one 1", strings.Join(args, " "), "INCR two")
					case "big":
						from, off, size, spans := bigCommand(args...)
						b.big(from, off, size, spans, args[0])
					}
					b.words("SET one 1")
					b.send()
					check(name+" "+how, text)
					if name == "MSETEX" {
						want(t, c.NodeFor(rt.Slot("key:0")), "PEXPIRETIME key:0", "9999999999999")
					}
				}
			}
		})
	}
}

func TestBigCommands(t *testing.T) {
	for _, mode := range []struct {
		name string
		make func(testing.TB) target
	}{{"standalone", standaloneTarget}, {"cluster", clusterTarget}} {
		t.Run(mode.name, func(t *testing.T) {
			g := mode.make(t)
			r := newRig(t, g.addr, nil)
			value := randomText(3 << 20)
			b := r.batch(false)
			b.words("SET k before")
			from, off, size, spans := bigCommand("APPEND", "k", value)
			b.big(from, off, size, spans, "APPEND")
			b.words("APPEND k after")
			b.send()
			b = r.batch(false)
			from, off, size, spans = bigCommand("HSET", "h", "f", value)
			b.big(from, off, size, spans, "HSET")
			b.send()
			r.drained()
			if got := g.do("k", "GET", "k").Text; got != "before"+value+"after" {
				t.Errorf("k has %d bytes", len(got))
			}
			if got := g.do("h", "HGET", "h", "f").Text; got != value {
				t.Errorf("h has %d bytes", len(got))
			}
			if err := r.finish(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCluster is what only a cluster makes a difference for.
func TestCluster(t *testing.T) {
	c := rt.StartCluster(t, rt.ClusterOptions{})
	t.Run("barriers", func(t *testing.T) { clusterBarriers(t, c) })
	t.Run("messages", func(t *testing.T) { clusterMessages(t, c) })
	t.Run("unroutable", func(t *testing.T) { clusterUnroutable(t, c) })
	t.Run("unknown command", func(t *testing.T) { clusterUnknownCommandIsAskedFor(t, c) })
}

// clusterBarriers: what concerns every node comes behind everything before it, and before everything behind it.
func clusterBarriers(t *testing.T, c *rt.Cluster) {
	r := newRig(t, c.Nodes[0].Addr, nil)
	for round := range 20 {
		b := r.batch(false)
		for i := range 50 {
			b.words(fmt.Sprintf("SET old:%d:%d 1", round, i))
		}
		b.words([]string{"FLUSHALL", "FLUSHDB"}[round%2])
		for i := range 50 {
			b.words(fmt.Sprintf("SET new:%d:%d 1", round, i))
		}
		if round%3 == 0 {
			b.do(0, "SCRIPT", "FLUSH")
		}
		b.send()
	}
	b := r.batch(false)
	b.words("FLUSHALL ASYNC") // the last one of its batch
	b.send()
	r.do(lines("SET last:# 1", 0, 100)...)
	r.drained()
	n := int64(0)
	for _, node := range c.Nodes {
		n += node.MustDo("DBSIZE").Int
	}
	if n != 100 {
		t.Errorf("there are %d keys, want 100", n)
	}
	b = r.batch(false)
	b.tx(0, "SET a 1", "FLUSHALL")
	b.send()
	if err := r.end(); err == nil || !strings.Contains(err.Error(), "every node") {
		t.Errorf("a transaction with FLUSHALL: %v", err)
	}
}

func clusterMessages(t *testing.T, c *rt.Cluster) {
	sub := c.Nodes[2].Dial()
	defer sub.Close()
	if _, err := sub.Write([]byte("SUBSCRIBE channel\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.ReadReply(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, c.Nodes[0].Addr, nil)
	owner := c.NodeFor(rt.Slot("shard"))
	stop := wire(t, owner)
	b := r.batch(false)
	for i := range 5 {
		b.words(fmt.Sprintf("PUBLISH channel %d", i))
	}
	b.words("SPUBLISH shard hello")
	b.send()
	r.drained()
	for i := range 5 {
		m, err := sub.ReadReply()
		if err != nil || answerOf(m) != fmt.Sprintf("message channel %d", i) {
			t.Errorf("message %d: %s, %v", i, answerOf(m), err)
		}
	}
	if got := strings.Join(stop(), ";"); !strings.Contains(got, "SPUBLISH shard hello") {
		t.Errorf("its owner got %q", got)
	}
}

// clusterUnroutable: what has no place on a cluster is refused, or skipped.
func clusterUnroutable(t *testing.T, c *rt.Cluster) {
	for _, x := range []struct {
		line, text, keys string
		skipped          int64
	}{
		{"RENAME from:1 to:2", "CROSSSLOT", `"from:1", "to:2"`, 1},
		{"SUNIONSTORE a b c", "CROSSSLOT", `"a"`, 1},
		{"NONSENSE value", "ERR Invalid command specified", "NONSENSE", 1},
		{"FUNCTION NONSENSE x", "command", "FUNCTION", 3}, // each node says so
	} {
		t.Run(x.line, func(t *testing.T) {
			r := newRig(t, c.Nodes[0].Addr, nil)
			r.do("SET before 1")
			r.drained()
			at := r.offset
			r.do(x.line, "SET after 1")
			err := r.end()
			if err == nil || !strings.Contains(err.Error(), x.text) || !strings.Contains(err.Error(), fmt.Sprintf("offset %d ", at)) || haul.ExitOf(err) != haul.ExitFailed {
				t.Errorf("stop: %v", err)
			}
			if x.text == "CROSSSLOT" && !strings.Contains(err.Error(), x.keys) {
				t.Errorf("the error does not name %s: %v", x.keys, err)
			}
			if r.ch.Watermark.Stream().Offset > at {
				t.Error("the watermark has passed it")
			}
			list := filepath.Join(t.TempDir(), "errors.log")
			r = newRig(t, c.Nodes[0].Addr, func(cfg *Config) { cfg.OnError, cfg.ErrorsLog = OnErrorSkip, list })
			r.do(x.line, "SET after 2")
			r.drained()
			r.counted("skipped", x.skipped)
			if got := answerOf(c.MustDo("after", "GET", "after")); got != "2" {
				t.Errorf("after is %s", got)
			}
			text, err := os.ReadFile(list)
			if err != nil || int64(strings.Count(string(text), "\n")) != x.skipped {
				t.Errorf("%s, %v", text, err)
			}
		})
	}
}

// clusterUnknownCommandIsAskedFor: the target knows the keys of a command that the table does not have.
func clusterUnknownCommandIsAskedFor(t *testing.T, c *rt.Cluster) {
	r := newRig(t, c.Nodes[0].Addr, nil)
	b := r.batch(false)
	for i := range 20 {
		b.words(fmt.Sprintf("SET key:%d %d", i, i))
		b.b.Commands[i].Spec = nil // as if it were a module's
	}
	b.send()
	r.drained()
	for i := range 20 {
		key := fmt.Sprintf("key:%d", i)
		if got := answerOf(c.MustDo(key, "GET", key)); got != fmt.Sprint(i) {
			t.Errorf("%s is %s", key, got)
		}
	}
}

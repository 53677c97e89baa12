package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// fill sends commands to one server over one connection.
func fill(t *testing.T, server *redistest.Server, commands func(b *batch)) {
	t.Helper()
	c := &conn{Conn: server.Dial(), addr: server.Addr}
	defer c.Close()
	var b batch
	commands(&b)
	_, err := c.ask(testContext(t), &b)
	must(t, err)
}

func TestPrune(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	begun(t, s)
	keep := NewKeySet(t.TempDir())
	keep.run = 500
	t.Cleanup(func() { keep.Close() })
	const keys = 5000
	fill(t, server, func(b *batch) {
		for db := range 3 {
			b.add("SELECT", strconv.Itoa(db))
			for i := range keys {
				key := "key:" + strconv.Itoa(i)
				b.add("SET", key, "1")
				if i%2 == db%2 {
					must(t, keep.Add(int32(db), []byte(key)))
				}
			}
		}
	})
	must(t, keep.Seal())
	var seen, removed int64
	n, err := s.Prune(testContext(t), keep, func(a, b int64) { seen, removed = a, b })
	if err != nil || n != 3*keys/2 || removed != n || seen < 3*keys {
		t.Errorf("%d removed, %v; told %d seen, %d removed", n, err, seen, removed)
	}
	for db := range 3 {
		server.MustDo("SELECT", db)
		if first := server.MustDo("EXISTS", "key:0").Int; int(first) != 1-db%2 {
			t.Errorf("database %d: key:0 %d", db, first)
		}
		own := 0
		if db == 0 {
			own = 4
		}
		if size := int(server.MustDo("DBSIZE").Int) - own; size != keys/2 {
			t.Errorf("database %d: %d keys", db, size)
		}
	}
	server.MustDo("SELECT", 0)
	if st := load(t, s); !st.Found || st.Lost != nil {
		t.Errorf("%+v", st)
	}
	must(t, keep.Close())
	if _, err := s.Prune(testContext(t), keep, nil); err == nil {
		t.Error("pruned without a set")
	}
}

func TestPruneOfACluster(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	keep := NewKeySet("")
	for i := range 100 {
		key := strconv.Itoa(i)
		c.MustDo(key, "SET", key, i)
		if i < 10 {
			must(t, keep.Add(0, []byte(key)))
		}
	}
	must(t, keep.Seal())
	n, err := s.Prune(testContext(t), keep, nil)
	if left := keysOf(t, c.Nodes...); err != nil || n != 90 || len(left) != 10 {
		t.Errorf("%d removed, %v, %d left", n, err, len(left))
	}
}

const hour = 3_600_000

// deadlines are true ones by key, some in the past by the time of Finish, some that stand for never.
func deadlines(n int) map[string]int64 {
	all := map[string]int64{
		"past": time.Now().UnixMilli() - 60_000, "year 2600": 19_880_899_200_000, "year 3000": 32_503_680_000_000,
		"year 9000": 221_845_392_000_000,
	}
	for i := range n {
		all["key:"+strconv.Itoa(i)] = time.Now().UnixMilli() + hour/2 + int64(i)*1001
	}
	return all
}

// putOff writes keys whose deadlines are an hour late, in databases 0 and 1, and keys without.
func putOff(t *testing.T, server *redistest.Server, want map[string]int64) {
	t.Helper()
	fill(t, server, func(b *batch) {
		for db := range 2 {
			b.add("SELECT", strconv.Itoa(db))
			b.add("SET", "without", "1")
			for key, deadline := range want {
				b.add("SET", key, "1")
				b.add("PEXPIREAT", key, strconv.FormatInt(deadline+hour, 10))
			}
		}
	})
}

// expectTrue compares the deadlines of a database with the true ones, to within a tolerance in ms.
func expectTrue(t *testing.T, server *redistest.Server, db int, want map[string]int64, within int64) {
	t.Helper()
	c := &conn{Conn: server.Dial(), addr: server.Addr}
	defer c.Close()
	ctx := testContext(t)
	_, err := c.do(ctx, "SELECT", strconv.Itoa(db))
	must(t, err)
	for key, deadline := range want {
		var got int64
		if server.Version.AtLeast(7, 0) {
			r, err := c.do(ctx, "PEXPIRETIME", key)
			must(t, err)
			got = r.Int
		} else {
			var b batch
			b.add("TIME")
			b.add("PTTL", key)
			r, err := c.ask(ctx, &b)
			must(t, err)
			now, err := serverTime(r[0])
			must(t, err)
			got = now + r[1].Int
		}
		if key == "past" {
			if r, err := c.do(ctx, "EXISTS", key); err != nil || r.Int != 0 {
				t.Errorf("a key that was to expire is there, %v", err)
			}
		} else if got < deadline-within || got > deadline+within {
			t.Errorf("database %d: %s expires at %d, %d from the true deadline", db, key, got, got-deadline)
		}
	}
	if r, err := c.do(ctx, "PTTL", "without"); err != nil || r.Int != -1 {
		t.Errorf("a key without a deadline has one: %d, %v", r.Int, err)
	}
}

// TestFinishFar: deadlines that are put off by the far grace get true, and others stay as they are, also when it is
// called again.
func TestFinishFar(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	if !server.Version.AtLeast(7, 0) {
		t.Skip("the test asks for deadlines by PEXPIRETIME")
	}
	at := time.Now().Add(time.Hour).UnixMilli()
	server.MustDo("SET", "ours", "v", "PXAT", at+GraceFar)
	server.MustDo("SET", "passed", "v", "PXAT", 1+GraceFar)
	server.MustDo("SET", "others", "v", "PXAT", at)
	for range 2 {
		r := streaming
		r.Grace = GraceFar
		must(t, s.Save(testContext(t), r))
		must(t, s.Finish(testContext(t), nil, nil))
		for key, want := range map[string]int64{"ours": at, "others": at, "passed": -2} {
			if got := server.MustDo("PEXPIRETIME", key).Int; got != want {
				t.Errorf("%s: %d, want %d", key, got, want)
			}
		}
	}
}

func TestFinishSetsTrueDeadlines(t *testing.T) {
	for _, release := range redistest.Releases() {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			server, s := standalone(t, redistest.Options{Release: release})
			want := deadlines(3000)
			putOff(t, server, want)
			r := streaming
			r.Grace = hour
			must(t, s.Save(testContext(t), r))
			must(t, s.Finish(testContext(t), nil, nil))
			within := int64(0)
			if !server.Version.AtLeast(7, 0) {
				within = 20 // between TIME and PTTL, of Finish and of this test, the server may be off the processor
			}
			expectTrue(t, server, 0, want, within)
			expectTrue(t, server, 1, want, within)
			st := load(t, s)
			if st.Record.Grace != 0 || st.Record.Finishing != "" || st.Record.Finished == 0 {
				t.Errorf("%+v", st.Record)
			}
			must(t, s.Finish(testContext(t), nil, nil))
			expectTrue(t, server, 0, want, within)
		})
	}
}

// Finish sets the deadlines of the keys that are listed, whatever became of them since, and of no others; of all where
// nothing is listed.
func TestFinishGoesByTheList(t *testing.T) {
	for _, release := range redistest.Releases() {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			server, s := standalone(t, redistest.Options{Release: release})
			p := NewPutOff(t.TempDir())
			for _, known := range []bool{true, false} {
				p.Begin()
				r := streaming
				r.Grace = hour
				must(t, s.Save(testContext(t), r))
				deadline := time.Now().UnixMilli() + 3*hour // what the keys below have, in the end
				want := map[string]int64{
					"listed": deadline - hour, "changed": deadline - hour, "new": deadline - hour, "taken": -1, "gone": -2,
					"other": deadline, // is not ours
				}
				for db := range int32(2) {
					server.MustDo("SELECT", db)
					for i := range 2 * pageKeys {
						key := "filler:" + strconv.Itoa(i)
						server.MustDo("SET", key, 1)
						server.MustDo("PEXPIREAT", key, deadline)
						p.Add(db, []byte(key), deadline-hour)
						want[key] = deadline - hour
					}
					for key := range want {
						server.MustDo("SET", key, 1)
						server.MustDo("PEXPIREAT", key, deadline)
					}
					for _, key := range []string{"listed", "taken", "gone"} {
						p.Add(db, []byte(key), deadline-hour)
					}
					p.Add(db, []byte("changed"), deadline-2*hour)
					p.Change(db, []byte("changed"))
					p.Change(db, []byte("changed"))
					p.Change(db, []byte("new"))
					server.MustDo("PERSIST", "taken")
					server.MustDo("DEL", "gone")
				}
				if !known {
					p.Forget()
					want["other"] = deadline - hour
				}
				must(t, s.Finish(testContext(t), p, nil))
				if p.Known() {
					t.Error("the list is still used")
				}
				for db := range 2 {
					server.MustDo("SELECT", db)
					for key, want := range want {
						got := server.MustDo("PTTL", key).Int
						if want > 0 {
							got += time.Now().UnixMilli()
						}
						if got != want && (want < 0 || got < want-5000 || got > want+5000) {
							t.Errorf("known %t, database %d: %s expires %d ms from what is expected, %d", known, db, key, got-want, got)
						}
					}
				}
				server.MustDo("SELECT", 0)
			}
		})
	}
}

// A list that grows too long, or whose disk fails, is not used; nor is one that a node of the target refuses.
func TestListThatCannotBeUsed(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	want := deadlines(50)
	delete(want, "past")
	fails := map[string]func(p *PutOff){
		"no directory": func(p *PutOff) { p.dir = "/nowhere"; p.Begin() },
		"too long":     func(p *PutOff) { p.size = putOffMax; p.Add(0, []byte("a"), hour) },
		"disk fails": func(p *PutOff) {
			must(t, p.out.Flush())
			must(t, p.file.Truncate(3))
		},
		"the target refuses": func(p *PutOff) { p.Add(7, []byte("a"), hour) },
		"nothing":            func(*PutOff) {},
	}
	for name, fail := range fails {
		p := NewPutOff(t.TempDir())
		p.Begin()
		for key, deadline := range want {
			c.MustDo(key, "SET", key, 1)
			c.MustDo(key, "PEXPIREAT", key, deadline+hour)
			p.Add(0, []byte(key), deadline)
		}
		c.MustDo("other", "SET", "other", 1, "PX", 3*hour) // shows whether all keys were looked at
		fail(p)
		r := streaming
		r.Grace = hour
		must(t, s.Save(testContext(t), r))
		must(t, s.Finish(testContext(t), p, nil))
		for key, deadline := range want {
			if got := c.MustDo(key, "PTTL", key).Int + time.Now().UnixMilli(); got < deadline-5000 || got > deadline+5000 {
				t.Errorf("%s: %s expires at %d, %d from the true deadline", name, key, got, got-deadline)
			}
		}
		if all := c.MustDo("other", "PTTL", "other").Int < 5*hour/2; all != (name != "nothing") {
			t.Errorf("%s: all keys were looked at: %t", name, all)
		}
	}
}

// However often Finish is broken off, every deadline is the true one in the end.
func TestFinishIsResumed(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	want := deadlines(6000)
	for after := int64(1); after < 20; after += 3 {
		putOff(t, server, want)
		r := streaming
		r.Grace = hour
		must(t, s.Save(testContext(t), r))
		steps, list := map[string]bool{}, NewPutOff(t.TempDir())
		for broken, stop := 0, after; ; broken++ {
			worker := newStore(t, server.Endpoint(), false, fmt.Sprintf("w%d", broken))
			steps[load(t, worker).Record.Finishing] = true
			ctx, cancel := context.WithCancel(testContext(t))
			ticks := int64(0)
			err := worker.Finish(ctx, list, func(int64, int64) {
				if ticks++; ticks >= stop {
					cancel()
				}
			})
			cancel()
			worker.Close()
			if err == nil {
				break
			}
			if !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			stop += 5
		}
		if after == 1 && !steps[finishingRaise] {
			t.Errorf("was broken off in %v", steps)
		}
		t.Logf("broken off in %v", steps)
		expectTrue(t, server, 0, want, 0)
		expectTrue(t, server, 1, want, 0)
	}
}

func TestFinishOfACluster(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	begun(t, s)
	r := streaming
	r.Grace = hour
	must(t, s.Save(testContext(t), r))
	want := deadlines(100)
	for key, deadline := range want {
		c.MustDo(key, "SET", key, 1, "PX", hour)
		c.MustDo(key, "PEXPIREAT", key, deadline+hour)
	}
	must(t, s.Finish(testContext(t), nil, nil))
	for key, deadline := range want {
		got := c.MustDo(key, "PTTL", key).Int + time.Now().UnixMilli()
		if key != "past" && (got < deadline-100 || got > deadline+100) {
			t.Errorf("%s expires at %d, %d from the true deadline", key, got, got-deadline)
		}
	}
	if st := load(t, s); st.Lost != nil {
		t.Error(st.Lost)
	}
}

func TestFinishWithoutGrace(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	must(t, s.Save(testContext(t), streaming))
	server.MustDo("SET", "a", 1, "PX", hour)
	must(t, s.Finish(testContext(t), nil, nil))
	if r := load(t, s).Record; r.Finished == 0 {
		t.Errorf("%+v", r)
	}
	if ttl := server.MustDo("PTTL", "a").Int; ttl > hour || ttl < hour/2 {
		t.Error(ttl)
	}
}

func TestImportMode(t *testing.T) {
	redistest.Require(t, "valkey-8.1")
	c, s := cluster(t, redistest.ClusterOptions{Replicas: 1, Options: redistest.Options{Release: "valkey-8.1"}})
	waitReplicas(t, s, 3)
	mode := func() (on int) {
		for _, node := range c.Nodes {
			if r := node.MustDo("CONFIG", "GET", "import-mode"); r.Array[1].Text == "yes" {
				on++
			}
		}
		return on
	}
	if ok, err := s.ImportMode(testContext(t), true); !ok || err != nil || mode() != 6 {
		t.Errorf("%v, %v, on %d nodes", ok, err, mode())
	}
	r := streaming
	r.Import = true
	must(t, s.Save(testContext(t), r))
	must(t, s.Finish(testContext(t), nil, nil))
	if got := s.Record(); mode() != 0 || got.Import || got.Finished == 0 {
		t.Errorf("on %d nodes, %+v", mode(), got)
	}
}

func TestImportModeIsUnknownOrForbidden(t *testing.T) {
	for _, release := range redistest.Releases() {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.Options{Release: release, Users: []string{"alice on >secret ~* +@all -config"}})
			knows := server.Do("CONFIG", "SET", "import-mode", "no").Kind != resp.KindError
			s := newStore(t, server.Endpoint(), false, "w1")
			if ok, err := s.ImportMode(testContext(t), true); err != nil || ok != knows {
				t.Errorf("%v, %v", ok, err)
			}
			ep := server.Endpoint()
			ep.Username, ep.Password = "alice", "secret"
			s = newStore(t, ep, false, "w1")
			if ok, err := s.ImportMode(testContext(t), true); err != nil || ok {
				t.Errorf("%v, %v", ok, err)
			}
		})
	}
}

// A key that changes all the time is listed once.
func TestListIsNotLongerThanNeedBe(t *testing.T) {
	p := NewPutOff(t.TempDir())
	p.Begin()
	for range 1000 {
		p.Change(3, []byte("session"))
		p.Change(4, []byte("session"))
	}
	p.Add(3, []byte("session"), hour)
	n := 0
	must(t, p.each(func(_ int32, key []byte, deadline int64) error {
		if n++; string(key) != "session" || deadline != unknown {
			t.Errorf("%q with deadline %d", key, deadline)
		}
		return nil
	}))
	if n != 3 {
		t.Errorf("%d keys are listed", n)
	}
}

package reader

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

func syncs(s *rt.Server) string { return s.Info("stats")["sync_full"] }

// TestCutInSnapshot: a second full sync follows, behind a FLUSHALL where the target is this haul's own, and no third.
func TestCutInSnapshot(t *testing.T) {
	for _, repeat := range []Repeat{RepeatFlush, RepeatOver} {
		t.Run(string(repeat), func(t *testing.T) {
			source, target := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
			fill(t, source, 30_000)
			proxy := rt.NewProxy(t, source.Addr)
			proxy.CutAfter(300_000, rt.ToClient)
			s := &sink{copy: newCopier(target).copy}
			l := &ledger{flush: func() { target.MustDo("FLUSHALL") }}
			r := run(t, plan{url: "redis://" + proxy.Addr(), sink: s, config: func(c *PSYNCConfig) {
				c.RepeatSnapshot, c.Checkpoint = repeat, l
			}})
			r.eventually("second sync", func() error {
				if r.reader.Status().FullSyncs != 2 {
					return errors.New("not yet")
				}
				return nil
			})
			r.streaming()
			source.MustDo("INCR", "n")
			r.level(source)
			equal(t, source, target)
			want := map[Repeat][]Clean{RepeatFlush: {CleanNone, CleanFlush}, RepeatOver: {CleanNone, CleanNone}}[repeat]
			if !slices.Equal(l.cleans, want) || l.streams != 1 {
				t.Errorf("begun with %v, want %v; %d streams", l.cleans, want, l.streams)
			}
			if n := r.reader.Status().SnapshotKeys; n != 30_000 {
				t.Errorf("the status counts %d keys", n)
			}
			if got := syncs(source); got != "2" {
				t.Errorf("the source counts %s full syncs", got)
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		source := rt.Start(t, rt.Options{})
		fill(t, source, 30_000)
		proxy := rt.NewProxy(t, source.Addr)
		proxy.Limit(600_000)
		proxy.CutAfter(300_000, rt.ToClient)
		r := run(t, plan{url: "redis://" + proxy.Addr()})
		r.eventually("second sync", func() error {
			if r.reader.Status().FullSyncs != 2 {
				return errors.New("not yet")
			}
			return nil
		})
		proxy.Cut()
		r.exit(haul.ExitFailed, "a third is not asked for", "client-output-buffer-limit")
		if got := syncs(source); got != "2" {
			t.Errorf("the source counts %s full syncs", got)
		}
	})
}

// TestCutInStream: the stream goes on where it broke off, however often.
func TestCutInStream(t *testing.T) {
	source, target := rt.Start(t, rt.Options{Config: map[string]string{"repl-backlog-size": "50mb"}}), rt.Start(t, rt.Options{})
	proxy := rt.NewProxy(t, source.Addr)
	s := &sink{copy: newCopier(target).copy}
	r := run(t, plan{url: "redis://" + proxy.Addr(), sink: s})
	r.streaming()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	loaded := make(chan rt.LoadCounts, 1)
	go func() {
		c, _ := rt.Load{Endpoint: source.Endpoint(), Rate: 4000, Seed: 3, Databases: 3}.Run(ctx)
		loaded <- c
	}()
	for cuts := 0; ; cuts++ {
		select {
		case c := <-loaded:
			if c.Errors > 0 || c.Units < 2000 {
				t.Fatalf("%+v", c)
			}
			r.level(source)
			equal(t, source, target)
			if st := r.reader.Status(); st.PartialSyncs < 5 || st.FullSyncs != 1 || syncs(source) != "1" {
				t.Errorf("%d cuts: %+v", cuts, st)
			}
			return
		case <-time.After(300 * time.Millisecond):
			proxy.Cut()
		}
	}
}

// TestHalfOpen: a dead path is noticed after ReplyTimeout, and nothing is lost.
func TestHalfOpen(t *testing.T) {
	source, target := rt.Start(t, rt.Options{Config: map[string]string{"repl-ping-replica-period": "1"}}), rt.Start(t, rt.Options{})
	proxy := rt.NewProxy(t, source.Addr)
	r := run(t, plan{url: "redis://" + proxy.Addr(), sink: &sink{copy: newCopier(target).copy}, config: func(c *PSYNCConfig) {
		c.ReplyTimeout = 2 * time.Second
	}})
	r.streaming()
	proxy.Blackhole()
	began := time.Now()
	fill(t, source, 1000)
	r.eventually("notice", func() error {
		if !strings.Contains(r.log.String(), "has sent nothing for 2s") {
			return errors.New("not yet")
		}
		return nil
	})
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("noticed after %v", took)
	}
	proxy.Cut()
	proxy.Resume()
	r.level(source)
	equal(t, source, target)
	if st := r.reader.Status(); st.FullSyncs != 1 {
		t.Errorf("%+v", st)
	}
}

// TestSourceRestarts: with its data and history the stream goes on or the run says what to do; it never costs a fork.
func TestSourceRestarts(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	source.MustDo("SET", "k", "v")
	r := run(t, plan{url: source.URL()})
	r.streaming()
	source.Kill()
	source.Restart()
	r.exit(haul.ExitHistoryLost, "another replication history", "--on-lost-history resync")
	if got := syncs(source); got != "0" {
		t.Errorf("the restarted source counts %s full syncs", got)
	}
}

// TestSpoolFull: reading stops aloud and goes on when there is room again.
func TestSpoolFull(t *testing.T) {
	for _, dir := range []string{"disk", "memory"} {
		t.Run(dir, func(t *testing.T) {
			source := rt.Start(t, rt.Options{Config: map[string]string{"repl-backlog-size": "100mb"}})
			target := rt.Start(t, rt.Options{})
			s := &sink{copy: newCopier(target).copy}
			r := run(t, plan{url: source.URL(), sink: s, bound: 1 << 20, config: func(c *PSYNCConfig) {
				c.SpoolMax = 4 << 20
				if dir == "memory" {
					c.Dir = ""
				}
			}})
			r.streaming()
			s.hold(true)
			value := strings.Repeat("v", 10_000)
			for i := range 1000 { // 10 MB
				source.MustDo("RPUSH", "list", fmt.Sprintf("%d%s", i, value))
			}
			r.waiting("4194304 bytes")
			if st := r.reader.Status(); st.Phase != haul.PhaseWaiting || st.Connected || st.Spooled > 9<<20 { // the window in memory may follow the limit
				t.Errorf("%+v", st)
			}
			if log := r.log.String(); !strings.Contains(log, "reading from the source is stopped: the spool is full") {
				t.Errorf("%s", log)
			}
			s.hold(false)
			r.level(source)
			equal(t, source, target)
			if st := r.reader.Status(); st.FullSyncs != 1 || len(r.waits.List()) != 0 {
				t.Errorf("%+v, waits %v", st, r.waits.List())
			}
		})
	}
}

// TestSnapshotLargerThanSpool: the source is stalled while the target takes what there is; nothing is written twice.
func TestSnapshotLargerThanSpool(t *testing.T) {
	source, target := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
	for i := range 300 {
		source.MustDo("SET", fmt.Sprintf("k%d", i), strings.Repeat(strconv.Itoa(i), 40_000))
	}
	source.MustDo("CONFIG", "SET", "rdbcompression", "no")
	s := &sink{copy: newCopier(target).copy, held: true}
	r := run(t, plan{url: source.URL(), sink: s, bound: 1 << 20, config: func(c *PSYNCConfig) { c.SpoolMax = 2 << 20 }})
	r.waiting("the snapshot does not fit")
	s.hold(false)
	r.streaming()
	source.MustDo("INCR", "n")
	r.level(source)
	equal(t, source, target)
	if w := r.waits.List(); len(w) != 0 {
		t.Errorf("%v", w)
	}
}

// TestEntryLargerThanSpool: what can never fit is said, not waited for.
func TestEntryLargerThanSpool(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	soon := func(c *PSYNCConfig) { c.SpoolMax = 2 << 20 }
	impatient := func(r *rig) { r.psync.stuckAfter = 300 * time.Millisecond }
	r := run(t, plan{url: source.URL(), config: soon, begin: impatient})
	r.streaming()
	source.MustDo("SETRANGE", "k", 8<<20, "x")
	source.MustDo("APPEND", "l", strings.Repeat("x", 8<<20))
	r.exit(haul.ExitFailed, "larger than the spool", "spool.max-bytes")
	source.MustDo("CONFIG", "SET", "rdbcompression", "no")
	r = run(t, plan{url: source.URL(), config: soon, begin: impatient})
	r.exit(haul.ExitFailed, "larger than the spool", "spool.max-bytes")
}

// TestSmallSpoolKeepsUp: a target that keeps up never lets a small spool fill, on disk or in memory.
func TestSmallSpoolKeepsUp(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	for _, dir := range []string{t.TempDir(), ""} {
		r := run(t, plan{url: source.URL(), sink: &sink{lean: true}, bound: 1 << 20, config: func(c *PSYNCConfig) {
			c.SpoolMax, c.Dir = 4<<20, dir
		}})
		r.streaming()
		for range 20 { // a megabyte each
			fill(t, source, 20_000)
			r.level(source)
		}
		if st := r.reader.Status(); st.Reconnects != 0 {
			t.Errorf("dir %q: %+v", dir, st)
		}
		r.stop()
	}
}

// heap is what the process holds in live and dead objects.
func heap() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

// watchHeap returns a function that tells how much the heap has grown at most since the call.
func watchHeap() func() int64 {
	before, most := heap(), int64(0)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
				most = max(most, heap()-before)
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-done
		return most
	}
}

const heapBound = 60 << 20

// TestStalledTarget: the source feels nothing of a target that stands still.
func TestStalledTarget(t *testing.T) {
	source := rt.Start(t, rt.Options{Config: map[string]string{"client-output-buffer-limit": "replica 32mb 8mb 5"}})
	s := &sink{lean: true}
	r := run(t, plan{url: source.URL(), sink: s})
	r.streaming()
	s.hold(true)
	grown := watchHeap()
	value := strings.Repeat("v", 100_000)
	c := source.Dial()
	defer c.Close()
	for i := range 2200 { // 220 MB
		if _, err := c.Do(context.Background(), 10*time.Second, "SET", "k", value); err != nil {
			t.Fatal(err)
		}
		if i%50 != 49 { // no faster than this machine's disk
			continue
		}
		r.eventually("received", func() error {
			want, _ := strconv.ParseInt(source.Info("replication")["master_repl_offset"], 10, 64)
			if got := r.reader.Status().Received; got < want {
				return fmt.Errorf("%d of %d", got, want)
			}
			return nil
		})
	}
	s.hold(false)
	r.level(source)
	if st := r.reader.Status(); st.Reconnects != 0 || st.FullSyncs != 1 || syncs(source) != "1" {
		t.Errorf("%+v", st)
	}
	if n := grown(); n > heapBound {
		t.Errorf("the heap grew by %d MB", n>>20)
	} else {
		t.Logf("heap: %d MB", n>>20)
	}
}

// TestHugeEntries: entries larger than the bound stay in the spool, in the snapshot and in the stream.
func TestHugeEntries(t *testing.T) {
	source := rt.Start(t, rt.Options{Config: map[string]string{"rdbcompression": "no", "client-output-buffer-limit": "replica 0 0 0"}})
	c := source.Dial()
	defer c.Close()
	do := func(args ...string) {
		t.Helper()
		if _, err := c.Do(context.Background(), 20*time.Second, args...); err != nil {
			t.Fatal(err)
		}
	}
	write := func() {
		do("SETRANGE", "string", strconv.Itoa(120<<20/scale), "x")
		do("EVAL", `local v = string.rep("v", 1000) for i = 1, ARGV[1] do redis.call("RPUSH", "list", v, v, v, v, v, v, v, v, v, v) end`, "0", strconv.Itoa(10_000/scale))
		do("EVAL", `local v = string.rep("v", 100000) for i = 1, ARGV[1] do redis.call("HSET", "hash", i, v) end`, "0", strconv.Itoa(1000/scale))
	}
	write()
	s := &sink{lean: true}
	grown := watchHeap()
	r := run(t, plan{url: source.URL(), sink: s, bound: 8 << 20})
	r.streaming()
	snapshot := s.bytes
	if n := grown(); n > heapBound || snapshot < 300<<20/scale {
		t.Errorf("snapshot: the heap grew by %d MB over %d MB", n>>20, snapshot>>20)
	} else {
		t.Logf("snapshot: heap %d MB", n>>20)
	}
	do("FLUSHALL")
	r.level(source)
	entries := r.reader.Status().Entries
	grown = watchHeap()
	write() // transactions of 100 MB
	do("EVAL", `redis.call("SET", "big", string.rep("v", tonumber(ARGV[1])))`, "0", strconv.Itoa(120<<20/scale))
	do("EVAL", `local v = string.rep("v", 1000) for i = 1, ARGV[1] do redis.call("SET", "k", v) end`, "0", strconv.Itoa(64_000/scale))
	do("EVAL", `local v = string.rep("v", tonumber(ARGV[1])) redis.call("MSET", "a", v, "b", v)`, "0", strconv.Itoa(50<<20/scale))
	r.level(source)
	if st := r.reader.Status(); st.FullSyncs != 1 || st.Reconnects != 0 || st.Entries-entries < 70_000/scale {
		t.Errorf("%+v", st)
	}
	if !strings.Contains(r.log.String(), "larger than the buffer") {
		t.Errorf("no word of split transactions: %s", r.log)
	}
	if n := grown(); n > heapBound {
		t.Errorf("stream: the heap grew by %d MB", n>>20)
	} else {
		t.Logf("stream: heap %d MB", n>>20)
	}
}

// TestTransactionEdge moves the limit of an entry over every byte of the commands around it: names, SELECT and EXEC
// must be seen wherever it falls.
func TestTransactionEdge(t *testing.T) {
	const bound = haul.MinBound
	limit := haul.NewChannel(bound).EntryLimit()
	tail := wire("SELECT", "7") + wire("SET", "a", "1") + wire("EXEC") + wire("SET", "b", "2")
	for over := -8; over < len(tail)+8; over += 1 + scale/3 {
		head := wire("MULTI")
		fillup := limit - over - len(head)
		for size := fillup; ; size-- {
			if c := wire("SET", "f", strings.Repeat("f", size)); len(c) <= fillup {
				head += c
				break
			}
		}
		stream := head + tail
		ctx, cancel := context.WithCancel(context.Background())
		spool := aof.NewSpool(aof.SpoolConfig{Kind: aof.SpoolStream, Budget: &aof.Budget{Max: 64 << 20}}, aof.Lineage{ReplID: id1}, 0)
		ch := haul.NewChannel(bound)
		s := &sink{in: ch}
		sunk, decoded := make(chan struct{}), make(chan error, 1)
		go func() { s.run(); close(sunk) }()
		go func() {
			decoded <- decodeStream(ctx, spool, ch, haul.Position{ReplID: id1}, streamEvents{
				getack: func(int64) {}, split: func() {}, id: func(int64) string { return id1 },
			})
		}()
		for at := 0; at < len(stream); at += 30_000 {
			if err := spool.Write(ctx, []byte(stream[at:min(at+30_000, len(stream))])); err != nil {
				t.Fatal(err)
			}
		}
		rt.Eventually(t, 20*time.Second, func() error {
			if p := ch.Watermark.Stream(); p.Offset != int64(len(stream)) || p.DB != 7 {
				return fmt.Errorf("limit %d bytes into the tail: %v of %d", over, p, len(stream))
			}
			return nil
		})
		cancel()
		<-decoded
		ch.Close()
		<-sunk
		if err := s.err(); err != nil {
			t.Errorf("%d: %v", over, err)
		}
		var names []string
		for _, x := range s.all(false) {
			for i, c := range x.commands {
				names = append(names, fmt.Sprintf("%d:%s %s", x.dbs[i], c[0], c[1]))
			}
		}
		if want := []string{"0:SET f", "7:SET a", "7:SET b"}; !slices.Equal(names, want) {
			t.Fatalf("limit %d bytes into the tail: %q", over, names)
		}
	}
}

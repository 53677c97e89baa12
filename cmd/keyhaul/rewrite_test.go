package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// formLines are commands that some release takes in another form only, or not at all. # is the number of the round. What
// the source itself does not know is left out.
var formLines = []string{
	"INCR {#}n", "RPUSH {#}log # MARKER", "SET {#}a 1 EX 5000", "SET {#}a 2 NX", "SET {#}b MARKER NX PX 5000000", "SET {#}b 3 KEEPTTL",
	"SET {#}a 3 XX GET", "SET {#}a 4 IFEQ 3", "SETEX {#}s 5000 v", "PSETEX {#}ps 5000000 v", "EXPIRE {#}n 5000", "EXPIRE {#}n 6000 GT",
	"PEXPIREAT {#}log 99999999999999 NX", "GETEX {#}s EX 7000", "GETEX {#}ps PERSIST", "MSETEX 2 {#}m1 1 {#}m2 2 EX 5000",
	"INCRBYFLOAT {#}b 1.5",
	"HSET {#}h f 1 g MARKER i 3 j 4", "HINCRBYFLOAT {#}h f 1.5", "HEXPIRE {#}h 5000 FIELDS 2 f g", "HPERSIST {#}h FIELDS 1 f",
	"HSETEX {#}h EX 5000 FIELDS 2 f 1 k 2", "HSETEX {#}h FNX EX 5000 FIELDS 1 z MARKER", "HSETEX {#}h KEEPTTL FIELDS 1 f 2",
	"HSETEX {#}h2 NX EX 5000 FIELDS 1 f 2", "HINCRBY {#}h i 1", "HINCRBYFLOAT {#}h k 1", "HGETEX {#}h PX 9000000 FIELDS 1 i",
	"HGETDEL {#}h FIELDS 1 j", "HEXPIREAT {#}h 1 FIELDS 1 i",
	"RPUSH {#}l a b c d e f g h i j", "LPOP {#}l 2", "RPOP {#}l 2", "LMOVE {#}l {#}l2 LEFT RIGHT", "LMOVE {#}l {#}l2 RIGHT LEFT",
	"LMPOP 1 {#}l LEFT COUNT 2", "PEXPIRE {#}l 5000000", "COPY {#}l {#}l3", "COPY {#}l {#}l4 DB 0",
	"ZADD {#}z 1 a 2 b 3 c 4 d", "ZADD {#}z GT 5 a 1 b 9 new", "ZADD {#}z XX LT 4 a 9 b", "ZADD {#}z GT INCR 5 c", "ZADD {#}z LT 1 d",
	"ZADD {#}z NX CH inf q", "ZRANGESTORE {#}z2 {#}z 0 2", "ZRANGESTORE {#}z3 {#}z 5 2 BYSCORE REV LIMIT 0 1", "SADD {#}set a x",
	"ZDIFFSTORE {#}z4 2 {#}z {#}z3", "ZDIFFSTORE {#}z5 3 {#}z {#}z3 {#}set", "ZMPOP 1 {#}z MIN COUNT 1",
	"GEOADD {#}g 13.36 38.11 p 15.08 37.5 c", "GEOSEARCHSTORE {#}g2 {#}g FROMLONLAT 15 37 BYRADIUS 200 km ASC COUNT 1",
	"GEOSEARCHSTORE {#}g3 {#}g FROMMEMBER c BYRADIUS 300 km STOREDIST",
	"XADD {#}x 1-1 f v", "XADD {#}x 2-1 f v", "XADD {#}x MAXLEN ~ 1000 LIMIT 10 3-1 f v", "XADD {#}x NOMKSTREAM MINID ~ 1 LIMIT 10 4-1 f v",
	"XADD {#}x MINID 2-0 5-1 f v", "XADD {#}x MAXLEN 3 6-1 f v", "XTRIM {#}x MAXLEN ~ 1 LIMIT 5", "XTRIM {#}x MINID = 5-1",
	"XGROUP CREATE {#}x gr 0", "XGROUP CREATE {#}x gr2 $ ENTRIESREAD 3", "XGROUP CREATECONSUMER {#}x gr idle",
	"XREADGROUP GROUP gr c1 COUNT 1 STREAMS {#}x >", "XAUTOCLAIM {#}x gr c2 0 0", "XGROUP SETID {#}x gr2 5-1 ENTRIESREAD 1",
	"XSETID {#}x 99-0 ENTRIESADDED 100 MAXDELETEDID 4-1", "SPUBLISH ch MARKER",
	"SET {#}gone v PX 5000000", "DELIFEQ {#}gone v", "GETDEL {#}gone",
}

// forms are the lines that a source knows, which the first round finds out.
type forms struct {
	source *rt.Server
	lines  []string
}

// write does each line on the source, in every third round as one transaction, and copies values by RESTORE.
func (f *forms) write(t *testing.T, round int) {
	t.Helper()
	s := f.source
	do := func(line string) error {
		var args []any
		for word := range strings.FieldsSeq(strings.ReplaceAll(line, "#", strconv.Itoa(round))) {
			args = append(args, word)
		}
		return s.Do(args...).Err()
	}
	if round == 0 {
		f.lines = slices.DeleteFunc(slices.Clone(formLines), func(line string) bool { return do(line) != nil })
	} else {
		lines := f.lines
		if round%3 == 2 {
			lines = slices.Concat([]string{"MULTI"}, lines, []string{"EXEC"})
		}
		for _, line := range lines {
			if err := do(line); err != nil {
				t.Fatalf("%s on %s: %v", line, s.Version, err)
			}
		}
	}
	if round == 9 { // too large to be in memory as a whole
		large := strings.Repeat("large value ", 500_000)
		s.MustDo("SETEX", "{9}large", 5000, large)
		s.MustDo("HSET", "{9}lh", "f", large)
		s.MustDo("HSET", "{9}lh", "g", "v")
		s.MustDo("XADD", "{9}lx", "MAXLEN", "5", "1-1", "f", large)
		s.MustDo("RESTORE", "{9}lh-restored", 5_000_000, s.MustDo("DUMP", "{9}lh").Text)
		s.MustDo("RESTORE", "{9}lx-restored", 0, s.MustDo("DUMP", "{9}lx").Text)
	}
	if round == 9 && s.Do("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 'MARKER' end)").Err() == nil {
		dump := s.MustDo("FUNCTION", "DUMP").Text
		s.MustDo("FUNCTION", "FLUSH")
		s.MustDo("FUNCTION", "RESTORE", dump)
	}
	for _, name := range []string{"a", "h", "l", "set", "z", "x"} {
		key := fmt.Sprintf("{%d}%s", round, name)
		s.MustDo("RESTORE", key+"-restored", 5_000_000, s.MustDo("DUMP", key).Text)
	}
}

// newTrialBetween starts servers of two releases, without data.
func newTrialBetween(t *testing.T, from, to string, cluster bool) *trial {
	t.Helper()
	rt.Require(t, from)
	rt.Require(t, to)
	s := &trial{t: t, setup: setup{cluster: cluster}, state: t.TempDir(), stopLoad: func() {}}
	s.source = rt.Start(t, rt.Options{Release: from, Config: map[string]string{"repl-backlog-size": "64mb"}})
	if cluster {
		s.whole = rt.StartCluster(t, rt.ClusterOptions{Options: rt.Options{Release: to}, Primaries: 3})
		s.nodes, s.target = s.whole.Nodes, s.whole.Endpoint()
	} else {
		target := rt.Start(t, rt.Options{Release: to})
		s.nodes, s.target = []*rt.Server{target}, target.Endpoint()
	}
	s.args = []string{"--source", s.source.URL(), "--target", s.nodes[0].URL(), "--unsupported", "degrade"}
	return s
}

// TestSoakToOtherRelease kills a keyhaul whose target is another release than its source, under load.
func TestSoakToOtherRelease(t *testing.T) {
	t.Parallel()
	for _, ends := range []struct {
		from, to string
		cluster  bool
		mix      rt.Mix
	}{
		{"redis-7.0", "redis-6.0", false, rt.MixHard},
		{"redis-7.0", "redis-6.0", true, rt.MixHard},
		{"redis-7.0", "redis-6.0", true, rt.MixCross},
		{"valkey-9.1", "redis-7.0", true, rt.MixCross},
		{"valkey-9.1", "redis-8.0", false, rt.MixHard},
		{"redis-8.0", "valkey-9.1", true, rt.MixHard},
	} {
		t.Run(fmt.Sprintf("%s to %s, cluster %t, %v", ends.from, ends.to, ends.cluster, ends.mix), func(t *testing.T) {
			t.Parallel()
			s := newTrialBetween(t, ends.from, ends.to, ends.cluster)
			s.startLoadOf(ends.mix)
			s.start()
			for i := range rounds() {
				s.strike(func() {
					pause(0, 100*time.Millisecond)
					s.kill()
				})
				if i%3 == 2 {
					s.state = t.TempDir()
				}
				s.start()
			}
			s.equal(1)
		})
	}
}

// TestSettledFromOtherRelease: keys of slots that move between shards of a source are read there, and written as an older
// target takes them.
func TestSettledFromOtherRelease(t *testing.T) {
	t.Parallel()
	rt.Require(t, "redis-7.0")
	rt.Require(t, "redis-6.0")
	s := newShardsTrialTo(t, rt.ClusterOptions{Options: rt.Options{Release: "redis-7.0"}}, 0, rt.Options{Release: "redis-6.0"})
	p := s.from.Primaries()
	slots := s.fillSlots(p[0], 5)
	s.begin()
	waysToMove["classic"](s, slots, p[0], p[1])
	s.from.WaitOK()
	if r := s.equal(); r.Target.Counts["settled_keys"] == 0 {
		t.Errorf("nothing was settled: %v", r.Target.Counts)
	}
}

// TestStreamToOtherRelease: the stream of one release is applied to another, over kills, and every key is the same.
func TestStreamToOtherRelease(t *testing.T) {
	t.Parallel()
	for _, ends := range [][2]string{
		{"redis-8.0", "redis-7.0"},
		{"valkey-9.1", "redis-7.0"},
		{"redis-7.0", "redis-6.0"},
		{"valkey-9.1", "redis-8.0"},
		{"redis-8.0", "valkey-9.1"},
		{"redis-6.0", "valkey-9.1"},
		{"valkey-9.1", "redis-6.0"},
	} {
		t.Run(ends[0]+" to "+ends[1], func(t *testing.T) {
			t.Parallel()
			onEachTarget(t, func(t *testing.T, cluster bool) {
				s := newTrialBetween(t, ends[0], ends[1], cluster)
				s.start()
				s.streams()
				known := forms{source: s.source}
				began := time.Now()
				for round := range 30 {
					known.write(t, round)
					if round == 8 || round == 20 {
						s.kill()
						s.start()
					}
				}
				s.applies()
				same := rt.CompareOptions{Grace: grace}
				if !s.source.Version.AtLeast(7, 0) { // it sends times to live, which count from when they are received: late after a kill
					same.TTLTolerance = 2*time.Second + time.Since(began)
				}
				r := s.compare(same)
				if !r.Equal() || r.Keys < 300 {
					t.Errorf("%s to %s: %s", s.source.Version, s.nodes[0].Version, r)
				}
				s.listsNoValues()
				for _, node := range s.nodes {
					ours, theirs := s.source.Do("FUNCTION", "LIST"), node.Do("FUNCTION", "LIST")
					if ours.Err() == nil && theirs.Err() == nil && len(ours.Array) != len(theirs.Array) {
						t.Errorf("%d libraries on %s, want %d", len(theirs.Array), node.Version, len(ours.Array))
					}
				}
			})
		})
	}
}

// listsNoValues looks at what is listed of what the target lacks.
func (s *trial) listsNoValues() {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.state, "default", "unsupported.log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	if bytes.Contains(text, []byte("MARKER")) || strings.Contains(s.keyhaul.stderr(), "MARKER") {
		s.t.Error("a value is in a log")
	}
	for line := range bytes.Lines(text) {
		var x struct {
			Keys        []string
			Lacks, Done string
		}
		if err := json.Unmarshal(line, &x); err != nil || len(x.Keys) == 0 && x.Lacks != "functions" || x.Lacks == "" || x.Done == "" {
			s.t.Errorf("%v: %s", err, line)
		}
	}
}

// TestUnsupported: what the target lacks is refused, left out, or done in part.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	rt.Require(t, "redis-8.0")
	rt.Require(t, "redis-7.0")
	for how, want := range map[string]string{"fail": "", "drop": "old", "degrade": "new"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			source, target := rt.Start(t, rt.Options{Release: "redis-8.0"}), rt.Start(t, rt.Options{Release: "redis-7.0"})
			p := start(t, between(source, target, "--unsupported", how)...)
			p.streaming()
			source.MustDo("HSET", "h", "f", "old")
			source.MustDo("HSETEX", "h", "EX", 1000, "FIELDS", 1, "f", "new")
			source.MustDo("HEXPIRE", "h", 1000, "FIELDS", 1, "f")
			source.MustDo("SET", "behind", "it")
			if how == "fail" {
				p.exit(haul.ExitFailed, `HSETEX of "h"`, "hash field TTLs", "--unsupported")
				return
			}
			at := source.Offset()
			p.eventually("applied", func(r report) bool { return r.Links[0].Applied >= at })
			if got := target.MustDo("HGET", "h", "f").Text; got != want {
				t.Errorf("the field is %q, want %q", got, want)
			}
			counts := p.status().Target.Counts
			if n := counts["unsupported_dropped"] + 10*counts["unsupported_degraded"]; n != map[string]int64{"drop": 2, "degrade": 11}[how] {
				t.Errorf("counts are %v", counts)
			}
			text, err := os.ReadFile(filepath.Join(p.state, "default", "unsupported.log"))
			if err != nil || bytes.Count(text, []byte("\n")) != 2 || !bytes.Contains(text, []byte(`"keys":["h"]`)) || bytes.Contains(text, []byte("new")) {
				t.Errorf("%v: %s", err, text)
			}
		})
	}
}

// TestTimeToLiveCountsFromReceipt: a TTL that an old source sends counts from when it was received, however long the target
// takes, and also after a restart.
func TestTimeToLiveCountsFromReceipt(t *testing.T) {
	t.Parallel()
	rt.Require(t, "redis-6.0")
	source, target := rt.Start(t, rt.Options{Release: "redis-6.0"}), rt.Start(t, rt.Options{Release: "redis-7.0"})
	state := t.TempDir()
	args := between(source, target, "--state-dir", state, "--expiry-mode", "target")
	p := start(t, args...)
	p.streaming()
	source.MustDo("SET", "x", "y")
	dump := source.MustDo("DUMP", "x").Text
	target.Freeze()
	source.MustDo("SETEX", "a", 1000, "v")
	source.MustDo("SET", "b", "v", "PX", 1_000_000)
	source.MustDo("SET", "c", "v")
	source.MustDo("EXPIRE", "c", 1000)
	source.MustDo("RESTORE", "d", 1_000_000, dump)
	at := source.Offset()
	p.eventually("received", func(r report) bool { return r.Links[0].Received >= at })
	aged := func(ms int64) {
		rt.Eventually(t, patience, func() error {
			if left := source.MustDo("PTTL", "a").Int; left > 1_000_000-ms {
				return fmt.Errorf("%d ms are left", left)
			}
			return nil
		})
	}
	aged(1500) // so that it is in the spool on disk
	p.signal(syscall.SIGKILL)
	<-p.ended
	aged(3000)
	target.Thaw()
	p = start(t, args...)
	p.eventually("applied", func(r report) bool { return r.Links[0].Applied >= at })
	for _, key := range []string{"a", "b", "c", "d"} {
		s, d := source.MustDo("PTTL", key).Int, target.MustDo("PTTL", key).Int
		if d <= 0 || d-s > 1000 || s-d > 1000 {
			t.Errorf("%s: %d ms are left on the source, %d on the target", key, s, d)
		}
	}
	p.signal(syscall.SIGTERM)
	p.exit(haul.ExitDone)
	if r, err := rt.Compare(context.Background(), source.Endpoint(), target.Endpoint(), rt.CompareOptions{TTLTolerance: time.Second}); err != nil || !r.Equal() {
		t.Errorf("%v, %s", err, r)
	}
}

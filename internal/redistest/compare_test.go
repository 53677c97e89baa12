package redistest

import (
	"strings"
	"testing"
	"time"
)

func mustEqual(t *testing.T, source, target Endpoint, keys int) {
	t.Helper()
	for _, opts := range []CompareOptions{{}, {Digest: true}} {
		report, err := Compare(t.Context(), source, target, opts)
		if err != nil {
			t.Fatal(err)
		}
		if !report.Equal() || report.Keys != keys {
			t.Fatalf("want %d equal keys: %s", keys, report)
		}
	}
}

func mustDiffer(t *testing.T, source, target Endpoint, opts CompareOptions, want string) {
	t.Helper()
	report, err := Compare(t.Context(), source, target, opts)
	if err != nil {
		t.Fatal(err)
	}
	if report.Different != 1 || len(report.Differences) != 1 || !strings.Contains(report.Differences[0], want) {
		t.Fatalf("want one difference with %q: %s", want, report)
	}
}

// variety fills a server with a key of every kind, 10 in database 0 and 2 in database 3.
func variety(s *Server) {
	s.t.Helper()
	in := time.Hour.Milliseconds() + time.Now().UnixMilli()
	for _, command := range [][]any{
		{"SET", "text", "plain"},
		{"SET", "number", 17},
		{"SET", "empty", ""},
		{"SET", "dying", "x"},
		{"PEXPIREAT", "dying", in},
		{"RPUSH", "list", "a", "b", strings.Repeat("c", 300)},
		{"SADD", "intset", 3, 1, 2},
		{"SADD", "set", "z", "y", "x"},
		{"ZADD", "zset", 1.5, "a", "-inf", "b", 1e20, "c", 0.1, "d"},
		{"HSET", "hash", "f", "1", "g", strings.Repeat("v", 200)},
		{"XADD", "stream", "1-1", "a", "1"},
		{"XADD", "stream", "1-2", "a", "2"},
		{"XGROUP", "CREATE", "stream", "group", 0},
		{"XREADGROUP", "GROUP", "group", "me", "COUNT", 1, "STREAMS", "stream", ">"},
		{"PFADD", "hll", "a", "b", "c"},
		{"SELECT", 3},
		{"SET", "text", "other"},
		{"HSET", "hash", "f", "1"},
		{"SELECT", 0},
	} {
		s.MustDo(command...)
	}
}

func TestCompareFindsPlantedDifferences(t *testing.T) {
	source, target := Start(t, Options{}), Start(t, Options{})
	variety(source)
	sync := func() {
		target.ReplicaOf(source)
		target.MustDo("REPLICAOF", "NO", "ONE")
	}
	sync()
	mustEqual(t, source.Endpoint(), target.Endpoint(), 13)

	for _, test := range []struct {
		name string
		do   [][]any // on the target
		want string
	}{
		{"value", [][]any{{"SET", "text", "plain!"}}, `db 0: key "text": value of string: source "plain", target "plain!"`},
		{"type", [][]any{{"DEL", "text"}, {"RPUSH", "text", "plain"}}, "type: source string, target list"},
		{"list order", [][]any{{"LPUSH", "list", "b"}, {"LREM", "list", -1, "b"}}, "value of list: [0]: source"},
		{"member", [][]any{{"SREM", "set", "z"}}, "value of set: source has 3 elements, target 2"},
		{"score", [][]any{{"ZADD", "zset", 1.25, "a"}}, "value of zset"},
		{"field", [][]any{{"HSET", "hash", "f", "2"}}, "value of hash"},
		{"TTL", [][]any{{"PEXPIRE", "dying", 1000 * 3601}}, "TTL: source expires at"},
		{"TTL lost", [][]any{{"PERSIST", "dying"}}, "target none"},
		{"TTL added", [][]any{{"PEXPIRE", "text", 100000}}, "TTL: source none"},
		{"missing", [][]any{{"DEL", "zset"}}, `key "zset": missing on the target (zset)`},
		{"extra", [][]any{{"SET", "more", "x"}}, `key "more": extra on the target (string)`},
		{"stream entry", [][]any{{"XDEL", "stream", "1-2"}}, "metadata of stream"},
		{"group", [][]any{{"XGROUP", "SETID", "stream", "group", "1-2"}}, "groups[0].last-delivered-id: source"},
		{"pending", [][]any{{"XACK", "stream", "group", "1-1"}}, "metadata of stream: groups[0]"},
		{"group lost", [][]any{{"XGROUP", "DESTROY", "stream", "group"}}, "groups: source has 1 elements, target 0"},
		{"other database", [][]any{{"SELECT", 3}, {"SET", "text", "plain"}}, `db 3: key "text": value`},
		{"new database", [][]any{{"SELECT", 5}, {"SET", "text", "x"}}, `db 5: key "text": extra`},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, command := range test.do {
				target.MustDo(command...)
			}
			target.MustDo("SELECT", 0)
			mustDiffer(t, source.Endpoint(), target.Endpoint(), CompareOptions{}, test.want)
			mustDiffer(t, source.Endpoint(), target.Endpoint(), CompareOptions{Digest: true}, test.want)
			sync()
		})
	}

	target.MustDo("SET", "keyhaul:mark", "x")
	target.MustDo("PEXPIRE", "dying", 3600*1000)
	report, err := Compare(t.Context(), source.Endpoint(), target.Endpoint(), CompareOptions{TTLTolerance: time.Minute})
	if err != nil || !report.Equal() {
		t.Errorf("with a tolerance, and with a key of keyhaul's own: %v, %s", err, report)
	}
}

func TestCompareFieldTTLs(t *testing.T) {
	Require(t, "valkey-9.1")
	source, target := Start(t, Options{Release: "valkey-9.1"}), Start(t, Options{Release: "valkey-9.1"})
	at := time.Now().Add(time.Hour).UnixMilli()
	for i, s := range []*Server{source, target} {
		s.MustDo("HSET", "hash", "f", 1, "g", 2)
		s.MustDo("HPEXPIREAT", "hash", at+int64(i), "FIELDS", 1, "f")
	}
	mustDiffer(t, source.Endpoint(), target.Endpoint(), CompareOptions{}, `field f expires at`)
	target.MustDo("HPEXPIREAT", "hash", at, "FIELDS", 1, "f")
	mustEqual(t, source.Endpoint(), target.Endpoint(), 1)
}

func TestCompareAcrossReleases(t *testing.T) {
	Require(t, "redis-6.0")
	old := Start(t, Options{Release: "redis-6.0"})
	variety(old)
	for _, release := range Releases() {
		t.Run(release, func(t *testing.T) {
			target := Start(t, Options{Release: release})
			target.ReplicaOf(old)
			target.MustDo("REPLICAOF", "NO", "ONE")
			mustEqual(t, old.Endpoint(), target.Endpoint(), 13)
			target.MustDo("ZADD", "zset", 1.25, "a")
			mustDiffer(t, old.Endpoint(), target.Endpoint(), CompareOptions{}, "value of zset")
		})
	}
}

func TestCompareExpiring(t *testing.T) {
	source, target := Start(t, Options{}), Start(t, Options{})
	at := time.Now().Add(500 * time.Millisecond).UnixMilli()
	for _, s := range []*Server{source, target} {
		s.MustDo("SET", "stays", 1)
		for i := range 50 {
			s.MustDo("SET", i, 1, "PX", 1000)
			s.MustDo("PEXPIREAT", i, at)
		}
	}
	for time.Now().UnixMilli() < at+50 { // comparing all the while that they expire
		report, err := Compare(t.Context(), source.Endpoint(), target.Endpoint(), CompareOptions{})
		if err != nil || !report.Equal() {
			t.Fatalf("%v, %s", err, report)
		}
	}
	mustEqual(t, source.Endpoint(), target.Endpoint(), 1)
}

// TestCompareGrace: deadlines that are held back by exactly the grace are equal, and so is a key that is deleted on the
// target a moment after it has expired on the source.
func TestCompareGrace(t *testing.T) {
	source, target := Start(t, Options{}), Start(t, Options{})
	at := time.Now().Add(time.Hour).UnixMilli()
	grace := time.Hour
	for _, s := range []*Server{source, target} {
		s.MustDo("MSET", "held", 1, "exact", 1)
		s.MustDo("PEXPIREAT", "held", at)
		s.MustDo("PEXPIREAT", "exact", at)
		s.MustDo("SET", "keyhaul:"+s.Addr, 1) // is no key of the data, wherever it stands
	}
	target.MustDo("PEXPIREAT", "held", at+grace.Milliseconds())
	mustDiffer(t, source.Endpoint(), target.Endpoint(), CompareOptions{}, "TTL")
	target.MustDo("PEXPIREAT", "exact", at+grace.Milliseconds()-1)
	mustDiffer(t, source.Endpoint(), target.Endpoint(), CompareOptions{Grace: grace}, "TTL")
	target.MustDo("PEXPIREAT", "exact", at)
	target.MustDo("SET", "fading", 1, "PX", grace.Milliseconds())
	conn := target.Dial()
	defer func() { _ = conn.Close() }()
	timer := time.AfterFunc(200*time.Millisecond, func() { _, _ = conn.Do(t.Context(), time.Second, "DEL", "fading") })
	defer timer.Stop()
	report, err := Compare(t.Context(), source.Endpoint(), target.Endpoint(), CompareOptions{Grace: grace})
	if err != nil || !report.Equal() || report.Keys != 2 {
		t.Errorf("want 2 equal keys: %v, %s", err, report)
	}
}

package rdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// asCommands returns the commands that build a value, as text.
func asCommands(to Release, v Value, body []byte, size int) (all []string, lost string, err error) {
	lost, err = to.Commands(v, []byte("k"), func() io.Reader { return bytes.NewReader(body) }, size, func(args ...[]byte) error {
		all = append(all, string(bytes.Join(args, []byte(" "))))
		return nil
	})
	return all, lost, err
}

func TestCommands(t *testing.T) {
	const ms = 1700000000000
	redis := func(major, minor int) Release { return Release{Major: major, Minor: minor} }
	ttl := newSnapshot("").i64(ms).len(4, 1).str("a", "1").len(1).str("b", "2").len(0).str("c", "3").len(2).str("d", "4")
	array := newSnapshot("").len(2, 1, 7).len(0, 1).i64(5).len(3, 0).str("s")
	for _, tt := range []struct {
		name  string
		to    Release
		typ   byte
		body  []byte
		size  int
		lost  string
		wants []string
	}{
		{"empty string", redis(7, 0), TypeString, encoded(""), 10, "", []string{"SET k "}},
		{"pieces", redis(7, 0), TypeString, encoded("abcdefgh"), 3, "", []string{"SET k abc", "SETRANGE k 3 def", "SETRANGE k 6 gh"}},
		{
			"list", redis(7, 0), TypeList, newSnapshot("").len(4).str("aaaa", "bb", "cccccccccccccc", "d").b, 12, "",
			[]string{"RPUSH k aaaa bb", "RPUSH k cccccccccccccc", "RPUSH k d"},
		},
		{"empty list", redis(7, 0), TypeList, []byte{0}, 12, "", nil},
		{"zset", redis(7, 0), TypeZSet, newSnapshot("").len(2).str("a").raw(254).str("b").raw(3, '0', '.', '1').b, 99, "", []string{"ZADD k inf a 0.1 b"}},
		{"fields", redis(7, 4), TypeHashTTL, ttl.b, 99, "", []string{
			"HSET k a 1 b 2 c 3 d 4", fmt.Sprintf("HPEXPIREAT k %d FIELDS 2 a b", ms), fmt.Sprintf("HPEXPIREAT k %d FIELDS 1 d", ms+1),
		}},
		{"fields in two", Release{Valkey: true, Major: 9}, TypeHashTTL, ttl.b, 9, "", []string{
			"HSET k a 1 b 2", fmt.Sprintf("HPEXPIREAT k %d FIELDS 2 a b", ms), "HSET k c 3 d 4", fmt.Sprintf("HPEXPIREAT k %d FIELDS 1 d", ms+1),
		}},
		{"fields without", redis(7, 2), TypeHashTTL, ttl.b, 99, lostFieldTTLs, []string{"HSET k a 1 b 2 c 3 d 4"}},
		{"array", redis(8, 8), TypeArray, array.b, 99, "", []string{"ARMSET k 0 5 3 s", "ARSEEK k 7"}},
		{"stream to 6.0", redis(6, 0), TypeStream3, madeStream(TypeStream3).b, 99, "", []string{
			"XADD k 10-5 a 1 b 2", "XADD k 11-5 z 5 a 70000 z -6", "XADD k 12-6 a " + strings.Repeat("x", 100) + " b ", "XSETID k 20-0",
			"XGROUP CREATE k g 12-6", "XREADGROUP GROUP g one COUNT 1 STREAMS k 0",
			"XCLAIM k g one 0 11-5 TIME 1700000000001 RETRYCOUNT 1 FORCE JUSTID", "XREADGROUP GROUP g nothing COUNT 1 STREAMS k 0",
			"XREADGROUP GROUP g two COUNT 1 STREAMS k 0", "XCLAIM k g two 0 10-5 TIME 1700000000000 RETRYCOUNT 3 FORCE JUSTID",
			"XCLAIM k g two 0 12-6 TIME 1700000000002 RETRYCOUNT 2 FORCE JUSTID", "XGROUP CREATE k empty 0-0",
		}},
		{"stream to 7.0", redis(7, 0), TypeStream5, madeStream(TypeStream5).b, 99, lostUnowned + ", " + lostProducers, []string{
			"XADD k 10-5 a 1 b 2", "XADD k 11-5 z 5 a 70000 z -6", "XADD k 12-6 a " + strings.Repeat("x", 100) + " b ",
			"XSETID k 20-0 ENTRIESADDED 7 MAXDELETEDID 12-5", "XGROUP CREATE k g 12-6 ENTRIESREAD 3", "XGROUP CREATECONSUMER k g one",
			"XCLAIM k g one 0 11-5 TIME 1700000000001 RETRYCOUNT 1 FORCE JUSTID", "XGROUP CREATECONSUMER k g nothing",
			"XGROUP CREATECONSUMER k g two", "XCLAIM k g two 0 10-5 TIME 1700000000000 RETRYCOUNT 3 FORCE JUSTID", "XGROUP CREATE k empty 0-0",
		}},
		{
			"empty stream", redis(7, 0), TypeStream3, newSnapshot("").len(0, 0, 5, 6, 0, 0, 5, 6, 9, 0).b, 99, "",
			[]string{"XADD k MAXLEN 0 0-1 x y", "XSETID k 5-6 ENTRIESADDED 9 MAXDELETEDID 5-6"},
		},
	} {
		got, lost, err := asCommands(tt.to, Value{Type: tt.typ}, tt.body, tt.size)
		if err != nil || lost != tt.lost || !slices.Equal(got, tt.wants) {
			t.Errorf("%s: lost %q, %v\n%s\nwant\n%s", tt.name, lost, err, strings.Join(got, "\n"), strings.Join(tt.wants, "\n"))
		}
	}
}

func TestCommandsErrors(t *testing.T) {
	mine := errors.New("mine")
	for _, s := range madeValues() {
		_, err := Release{Major: 8, Minor: 8}.Commands(s.Value, []byte("k"), func() io.Reader { return bytes.NewReader(s.body) }, 1000, func(...[]byte) error { return mine })
		if !errors.Is(err, mine) {
			t.Errorf("%s: %v", s.name, err)
		}
		_, _, err = asCommands(Release{Major: 8, Minor: 8}, s.Value, s.body[:len(s.body)-1], 1000)
		if !known(err) || !errors.Is(err, ErrTruncated) {
			t.Errorf("%s cut short: %v", s.name, err)
		}
	}
	for _, v := range []Value{{Type: TypeModule2}, {Type: TypeModulePreGA}, {Type: TypeArray}, {Type: 64}, {Type: 23, Valkey: true}} {
		if _, _, err := asCommands(Release{Major: 8}, v, nil, 1000); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%v: %v", v, err)
		}
	}
}

// TestCommandsSizes: values of many elements and of long ones, and what streams have at their edges, arrive whole by commands of
// every size.
func TestCommandsSizes(t *testing.T) {
	source := redistest.Start(t, redistest.Options{})
	fillSizes(source)
	to, err := ParseRelease(source.Version.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{100, 5000, 1 << 20} {
		target := redistest.Start(t, redistest.Options{})
		for _, key := range source.MustDo("KEYS", "*").Array {
			dump := []byte(source.MustDo("DUMP", key.Text).Text)
			v := Value{Type: dump[0], Valkey: to.Valkey && dump[0] >= Type22}
			lost, err := to.Commands(v, []byte(key.Text), func() io.Reader { return bytes.NewReader(dump[1 : len(dump)-FooterSize]) }, size, func(args ...[]byte) error {
				words := make([]any, len(args))
				for i, a := range args {
					words[i] = a
				}
				return target.Do(words...).Err()
			})
			if err != nil || lost != "" {
				t.Errorf("%s in commands of %d: lost %q, %v", key.Text, size, lost, err)
			}
		}
		report, err := redistest.Compare(t.Context(), source.Endpoint(), target.Endpoint(), redistest.CompareOptions{})
		if err != nil || !report.Equal() || report.Keys < 9 {
			t.Errorf("in commands of %d: %v, %v", size, report, err)
		}
		target.Stop()
	}
}

func fillSizes(s *redistest.Server) {
	for i := range 1500 {
		s.MustDo("RPUSH", "list", i, strings.Repeat("x", i))
		s.MustDo("SADD", "set", i, fmt.Sprint("member ", i))
		s.MustDo("ZADD", "zset", float64(i)/7, fmt.Sprint("member ", i))
		s.MustDo("HSET", "hash", i, strings.Repeat("y", i))
		s.MustDo("XADD", "stream", fmt.Sprint(i+1, "-0"), "f", i, "f", "again")
	}
	s.MustDo("RPUSH", "list of long", strings.Repeat("z", 1<<20), "", strings.Repeat("w", 1<<20))
	s.MustDo("SET", "string", strings.Repeat("0123456789", 50000))
	s.MustDo("SET", "incompressible", func() string {
		b := make([]byte, 300000)
		x := uint32(1)
		for i := range b {
			x = x*1664525 + 1013904223
			b[i] = byte(x >> 24)
		}
		return string(b)
	}())
	s.MustDo("XGROUP", "CREATE", "stream", "g", 0)
	s.MustDo("XREADGROUP", "GROUP", "g", "alice", "COUNT", 1200, "STREAMS", "stream", ">")
	s.MustDo("XREADGROUP", "GROUP", "g", "bob", "COUNT", 100, "STREAMS", "stream", ">")
	s.MustDo("XDEL", "stream", "1500-0", "1400-0")
	s.MustDo("XADD", "trimmed", "5-5", "f", "v")
	s.MustDo("XTRIM", "trimmed", "MAXLEN", 0)
	s.MustDo("XADD", "all deleted", "5-5", "f", "v")
	s.MustDo("XDEL", "all deleted", "5-5")
	s.MustDo("XGROUP", "CREATE", "never used", "g", "$", "MKSTREAM")
}

func BenchmarkCommands(b *testing.B) {
	for _, s := range goldenValues(b) {
		if len(s.body) < 1000 || !strings.HasPrefix(s.name, "redis-8.0/") {
			continue
		}
		b.Run(fmt.Sprintf("%d/%s", s.Type, s.name), func(b *testing.B) {
			b.SetBytes(int64(len(s.body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (Release{Major: 8}).Commands(s.Value, []byte("k"), func() io.Reader { return bytes.NewReader(s.body) }, 64<<10, func(...[]byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestCommandsDeletedPending: what is pending of a deleted message stays so, and nothing else tells that it was there again.
func TestCommandsDeletedPending(t *testing.T) {
	s := redistest.Start(t, redistest.Options{})
	for _, deleted := range [][]any{{"2-0", "4-0"}, {"1-0"}, {"1-0", "2-0", "3-0", "4-0", "5-0", "6-0"}, {"6-0", "3-0"}} {
		s.MustDo("FLUSHALL")
		for i := range 6 {
			s.MustDo("XADD", "from", fmt.Sprint(i+1, "-0"), "f", "v")
		}
		s.MustDo("XGROUP", "CREATE", "from", "g", 0)
		s.MustDo("XGROUP", "CREATE", "from", "h", 0)
		s.MustDo("XREADGROUP", "GROUP", "g", "alice", "COUNT", 4, "STREAMS", "from", ">")
		s.MustDo("XREADGROUP", "GROUP", "h", "bob", "STREAMS", "from", ">")
		s.MustDo(append([]any{"XDEL", "from"}, deleted...)...)
		s.MustDo("XACK", "from", "h", "3-0")
		samePending(t, s)
	}
}

// samePending copies the stream "from" by commands and compares.
func samePending(t *testing.T, s *redistest.Server) {
	t.Helper()
	to, err := ParseRelease(s.Version.String())
	if err != nil {
		t.Fatal(err)
	}
	dump := []byte(s.MustDo("DUMP", "from").Text)
	_, err = to.Commands(Value{Type: dump[0]}, []byte("to"), func() io.Reader { return bytes.NewReader(dump[1 : len(dump)-FooterSize]) }, 1000, func(args ...[]byte) error {
		words := make([]any, len(args))
		for i, a := range args {
			words[i] = a
		}
		return s.Do(words...).Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	told := func(key string) string {
		var all []string
		for _, group := range []string{"g", "h"} {
			for _, p := range s.MustDo("XPENDING", key, group, "-", "+", 9).Array {
				all = append(all, group, p.Array[0].Text, p.Array[1].Text, fmt.Sprint(p.Array[3].Int))
			}
		}
		info := s.MustDo("XINFO", "STREAM", key).Array
		for i := 0; i+1 < len(info); i += 2 {
			if !strings.HasPrefix(info[i].Text, "radix") {
				all = append(all, fmt.Sprint(info[i].Text, info[i+1]))
			}
		}
		return strings.Join(append(all, fmt.Sprint(s.MustDo("XRANGE", key, "-", "+")), fmt.Sprint(s.MustDo("XINFO", "GROUPS", key))), "\n")
	}
	if from, to := told("from"), told("to"); from != to {
		t.Errorf("%s\n\nwant\n\n%s", to, from)
	}
}

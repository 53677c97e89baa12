package rdb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/internal/feed"
)

// snapshot builds the bytes of an RDB by the tables of protocol.md, section 3.
type snapshot struct{ b []byte }

func newSnapshot(magic string) *snapshot { return &snapshot{[]byte(magic)} }

func (s *snapshot) raw(b ...byte) *snapshot { s.b = append(s.b, b...); return s }

func (s *snapshot) len(ns ...uint64) *snapshot {
	for _, n := range ns {
		s.b = appendLength(s.b, n)
	}
	return s
}

func (s *snapshot) str(texts ...string) *snapshot {
	for _, t := range texts {
		s.b = append(s.b, encoded(t)...)
	}
	return s
}

func (s *snapshot) i64(ns ...int64) *snapshot {
	for _, n := range ns {
		s.b = binary.LittleEndian.AppendUint64(s.b, uint64(n))
	}
	return s
}

// id appends a stream's 16-byte id.
func (s *snapshot) id(n byte) *snapshot { return s.raw(bytes.Repeat([]byte{n}, 16)...) }

// end appends the end mark and the checksum.
func (s *snapshot) end() []byte {
	s.raw(opEOF)
	return binary.LittleEndian.AppendUint64(s.b, CRC64(0, s.b))
}

// streamBody is what the versions of a stream add to each other.
func streamBody(t byte) *snapshot {
	s := newSnapshot("").len(1).str(string(make([]byte, 16)), "listpack").len(3, 5, 6)
	if t >= TypeStream2 {
		s.len(1, 1, 2, 2, math.MaxUint64)
	}
	s.len(2)
	for _, group := range []string{"one", "two"} {
		s.str(group).len(5, 6)
		if t >= TypeStream2 {
			s.len(math.MaxUint64) // entries read: -1
		}
		s.len(2).id(1).i64(1700000000000).len(3).id(2).i64(0).len(1)
		s.len(1).str("consumer").i64(1700000000000)
		if t >= TypeStream3 {
			s.i64(-1)
		}
		s.len(2).id(1).id(2)
		if t >= TypeStream5 {
			s.len(1).id(9)
		}
	}
	if t >= TypeStream4 {
		s.len(100, 1000, 2).str("producer").len(2).str("a").len(5, 5).str("b").len(5, 6).str("idle").len(0).len(7, 8)
	}
	return s
}

// values are values of every type, as servers would write them.
var values = []struct {
	name  string
	magic string
	typ   byte
	value *snapshot
}{
	{"string", "REDIS0011", TypeString, newSnapshot("").str("v")},
	{"string int", "REDIS0011", TypeString, newSnapshot("").raw(0xc2, 1, 2, 3, 4)},
	{"string lzf", "REDIS0011", TypeString, newSnapshot("").raw(lzf(strings.Repeat("a", 100))...)},
	{"list", "REDIS0003", TypeList, newSnapshot("").len(3).str("a", "", "c")},
	{"set", "REDIS0011", TypeSet, newSnapshot("").len(2).str("a", "b")},
	{"zset", "REDIS0006", TypeZSet, newSnapshot("").len(4).str("a").raw(3, '1', '.', '5').str("b").raw(253).str("c").raw(254).str("d").raw(255)},
	{"hash", "REDIS0011", TypeHash, newSnapshot("").len(2).str("f", "v", "g", "w")},
	{"zset2", "REDIS0008", TypeZSet2, newSnapshot("").len(2).str("a").i64(1).str("b").i64(2)},
	{"module2", "REDIS0011", TypeModule2, newSnapshot("").len(math.MaxUint64).len(1, 5, 2, 6).len(3).raw(1, 2, 3, 4).len(4).i64(9).len(5).str("x").len(0)},
	{"zipmap", "REDIS0003", TypeHashZipmap, newSnapshot("").str("zipmap")},
	{"ziplist", "REDIS0003", TypeListZiplist, newSnapshot("").str("ziplist")},
	{"intset", "REDIS0011", TypeSetIntset, newSnapshot("").str("intset")},
	{"zset ziplist", "REDIS0006", TypeZSetZiplist, newSnapshot("").str("ziplist")},
	{"hash ziplist", "REDIS0006", TypeHashZiplist, newSnapshot("").str("ziplist")},
	{"quicklist", "REDIS0007", TypeListQuicklist, newSnapshot("").len(2).str("ziplist", "ziplist")},
	{"hash listpack", "REDIS0010", TypeHashListpack, newSnapshot("").str("listpack")},
	{"zset listpack", "REDIS0010", TypeZSetListpack, newSnapshot("").str("listpack")},
	{"quicklist2", "REDIS0010", TypeListQuicklist2, newSnapshot("").len(2).len(1).str("plain").len(2).str("listpack")},
	{"set listpack", "REDIS0011", TypeSetListpack, newSnapshot("").str("listpack")},
	{"stream", "REDIS0009", TypeStream, streamBody(TypeStream)},
	{"stream2", "REDIS0010", TypeStream2, streamBody(TypeStream2)},
	{"stream3", "REDIS0011", TypeStream3, streamBody(TypeStream3)},
	{"stream4", "REDIS0013", TypeStream4, streamBody(TypeStream4)},
	{"stream5", "REDIS0014", TypeStream5, streamBody(TypeStream5)},
	{"22 of Redis", "REDIS0012", Type22, newSnapshot("").len(2).len(0).str("f", "v").len(1700000000000).str("g", "w")},
	{"22 of Valkey", "VALKEY080", Type22, newSnapshot("").len(2).str("f", "v").i64(-1).str("g", "w").i64(1700000000000)},
	{"23 of Redis", "REDIS0012", Type23, newSnapshot("").str("listpack")},
	{"hash TTL", "REDIS0012", TypeHashTTL, newSnapshot("").i64(1700000000000).len(2).len(0).str("f", "v").len(1).str("g", "w")},
	{"hash TTL listpack", "REDIS0012", TypeHashTTLListpack, newSnapshot("").i64(1700000000000).str("listpack")},
	{"array", "REDIS0014", TypeArray, newSnapshot("").len(4, 1, 77).len(0, 1).i64(5).len(1, 2).i64(6).len(2, 0).str("s").len(3, 3).str("t")},
	{"array without flag", "REDIS0014", TypeArray, newSnapshot("").len(1, 0).len(9, 0).str("s")},
}

func TestValues(t *testing.T) {
	for _, v := range values {
		t.Run(v.name, func(t *testing.T) {
			s := newSnapshot(v.magic).raw(opSelectDB).len(3).raw(v.typ).str("key").raw(v.value.b...).raw(TypeString).str("next", "w")
			if v.magic < "REDIS0005" {
				s.raw(opEOF)
			} else {
				s.end()
			}
			data := s.b
			if v.magic >= "REDIS0005" {
				data = binary.LittleEndian.AppendUint64(data, CRC64(0, data))
			}
			for _, limit := range []int{8, 1 << 20} {
				records, _, err := walk(data, 5, limit)
				if err != nil || len(records) != 2 {
					t.Fatalf("%d records, %v", len(records), err)
				}
				f := records[0]
				if f.Type != v.typ || f.DB != 3 || string(f.name) != "key" || !bytes.Equal(f.value, v.value.b) {
					t.Errorf("%+v, want %x", f, v.value.b)
				}
				if string(records[1].name) != "next" {
					t.Errorf("the next key is %q", records[1].name)
				}
			}
			for cut := range data {
				if _, _, err := walk(data[:cut], 100, 1<<20); !errors.Is(err, ErrTruncated) {
					t.Fatalf("cut at %d of %d: %v", cut, len(data), err)
				}
			}
		})
	}
}

func TestOpcodes(t *testing.T) {
	long := strings.Repeat("s", 3<<20) // more than any window keeps
	aux := func(s *snapshot, name, value string) *snapshot { return s.raw(opAux).str(name, value) }
	s := newSnapshot("REDIS0013")
	aux(s, "redis-ver", "8.6.0")
	aux(s, "repl-stream-db", "5")
	s.raw(opAux).str("ctime").raw(0xc2, 1, 2, 3, 4)
	for range 100 {
		aux(s, "lua", long[:3000])
	}
	aux(s, "lua", long)
	s.raw(opModuleAux).len(math.MaxUint64).len(2, 1).len(5).str(long).len(0)
	s.raw(opFunction2).str("#!lua name=x")
	s.raw(opSelectDB).len(2).raw(opResizeDB).len(7, 1).raw(opSlotInfo).len(1, 2, 3)
	s.raw(opExpireMS).i64(1700000000123).raw(opIdle).len(70000)
	aux(s, "mvcc-tstamp", "123") // KeyDB has metadata between a deadline and its key
	s.raw(TypeString).str("a", "1")
	s.raw(opFreq, 200)
	s.raw(opExpire, 0, 0xf1, 0x53, 0x65)
	s.raw(TypeString).str("b", long)
	meta := []byte{op243, 2, 1, 2, 3, 4, 2, 9, 0, 4, 3, 2, 1, 5, 1, 'x', 0}
	s.raw(opExpireMS).i64(-1).raw(meta...).raw(TypeString).str("c", "3")
	s.raw(opAuxEnterprise1).len(9).raw(opAuxEnterprise2).len(8)
	s.raw(opSelectDB).len(0).raw(opResizeDB).len(2, 0).raw(TypeString).raw(0xc0, 7).str("4")
	data := s.end()
	for _, limit := range []int{8 << 10, 4 << 20} {
		records, d, err := walk(data, 10_000, limit)
		if err != nil || len(records) != 5 {
			t.Fatalf("limit %d: %d records, %v", limit, len(records), err)
		}
		if d.StreamDB != 5 || d.Keys != 9 || d.Version != 13 || d.Valkey {
			t.Errorf("%+v", d)
		}
		if f := records[0]; f.Kind != KindFunction || f.code() != "#!lua name=x" {
			t.Errorf("function: %+v", f)
		}
		a, b, c, e := records[1], records[2], records[3], records[4]
		if string(a.name) != "a" || a.DB != 2 || !a.HasExpire || a.ExpireAt != 1700000000123 || !a.HasIdle || a.Idle != 70000 || a.HasFreq {
			t.Errorf("a: %+v", a.Record)
		}
		if string(b.name) != "b" || !b.HasFreq || b.Freq != 200 || b.HasIdle || b.ExpireAt != 0x6553f100*1000 || b.large != (limit < len(long)) ||
			!bytes.Equal(b.value, encoded(long)) {
			t.Errorf("b: %+v, large %t", b.Record, b.large)
		}
		if string(c.name) != "c" || !bytes.Equal(c.prefix, meta) || !c.HasExpire || c.ExpireAt != -1 || string(c.value) != "\x013" {
			t.Errorf("c: %+v", c)
		}
		if string(e.name) != "7" || e.DB != 0 || e.HasExpire || e.HasFreq || e.HasIdle || len(e.prefix) != 0 {
			t.Errorf("7: %+v", e)
		}
	}
}

// TestLargeFirstKey: a key whose value is not kept, with much before it that does not belong to it.
func TestLargeFirstKey(t *testing.T) {
	s := newSnapshot("REDIS0009")
	for i := range 50 {
		s.raw(opAux).str("lua", strings.Repeat("x", i*100))
	}
	data := s.raw(TypeString).str("large", strings.Repeat("0123456789", 10_000)).end()
	records, _, err := walk(data, 1000, 50_000) // walk looks at the bytes
	if err != nil || len(records) != 1 || !records[0].large {
		t.Errorf("%d records, %v", len(records), err)
	}
}

func TestSlotImport(t *testing.T) {
	s := newSnapshot("VALKEY080").raw(op243).raw(bytes.Repeat([]byte("j"), 40)...).len(2, 0, 100, 200, 300)
	records, d, err := walk(s.raw(TypeString).str("k", "v").end(), 7, 1000)
	if err != nil || len(records) != 1 || string(records[0].name) != "k" || len(records[0].prefix) > 0 || !d.Valkey || d.Version != 80 {
		t.Errorf("%+v, %v", records, err)
	}
}

func TestDecoderRefuses(t *testing.T) {
	key := func(magic string, typ byte) *snapshot { return newSnapshot(magic).raw(typ).str("secret") }
	for _, tt := range []struct {
		name string
		data []byte
		want error
	}{
		{"no snapshot", []byte("GET / HTTP/1.1\r\n"), ErrCorrupt},
		{"no version", newSnapshot("REDISxxxx").end(), ErrCorrupt},
		{"signed version", newSnapshot("REDIS+011").end(), ErrCorrupt},
		{"version 0", newSnapshot("REDIS0000").end(), ErrCorrupt},
		{"newer Redis", newSnapshot("REDIS0015").end(), ErrUnsupported},
		{"far newer Redis", newSnapshot("REDIS0080").end(), ErrUnsupported},
		{"newer Valkey", newSnapshot("VALKEY081").end(), ErrUnsupported},
		{"pre-GA function", newSnapshot("REDIS0010").raw(opFunctionPreGA).str("a").end(), ErrUnsupported},
		{"opcode 242", newSnapshot("REDIS0011").raw(242).end(), ErrUnsupported},
		{"pre-GA module", key("REDIS0008", TypeModulePreGA).len(5).end(), ErrUnsupported},
		{"type 8", key("REDIS0008", 8).end(), ErrUnsupported},
		{"type 29", key("REDIS0014", 29).end(), ErrUnsupported},
		{"KeyDB cron", key("REDIS0009", 64).end(), ErrUnsupported},
		{"23 of Valkey", key("VALKEY080", Type23).str("x").end(), ErrUnsupported},
		{"24 of Valkey", key("VALKEY080", TypeHashTTL).i64(0).len(0).end(), ErrUnsupported},
		{"26 of Valkey", key("VALKEY080", TypeStream4).raw(streamBody(TypeStream4).b...).end(), ErrUnsupported},
		{"array of Valkey", key("VALKEY080", TypeArray).len(0, 0).end(), ErrUnsupported},
		{"length byte", key("REDIS0011", TypeString).raw(0x82).end(), ErrCorrupt},
		{"string encoding", key("REDIS0011", TypeString).raw(0xc4).end(), ErrCorrupt},
		{"special as count", key("REDIS0011", TypeList).raw(0xc0, 1).end(), ErrCorrupt},
		{"length of 2^63", key("REDIS0011", TypeString).len(1 << 63).end(), ErrCorrupt},
		{"name of 1 GiB", newSnapshot("REDIS0011").raw(TypeString).len(1 << 30).end(), ErrCorrupt},
		{"name encoding", newSnapshot("REDIS0011").raw(TypeString, 0xc5).end(), ErrCorrupt},
		{"module opcode", key("REDIS0011", TypeModule2).len(1, 6).end(), ErrCorrupt},
		{"array element", key("REDIS0014", TypeArray).len(1, 0, 0, 4).end(), ErrCorrupt},
		{"database", newSnapshot("REDIS0011").raw(opSelectDB).len(1 << 40).end(), ErrCorrupt},
		{"repl-stream-db", newSnapshot("REDIS0011").raw(opAux).str("repl-stream-db", "x").end(), ErrCorrupt},
		{"malformed metadata", newSnapshot("REDIS0011").raw(opAux).raw(lzfOf([]byte{1 << 5, 0}, 3)...).str("x").end(), ErrCorrupt},
		{"wrong checksum", append(newSnapshot("REDIS0011").raw(opEOF).b, 1, 2, 3, 4, 5, 6, 7, 8), ErrChecksum},
		{"bytes behind the end", append(newSnapshot("REDIS0003").raw(opEOF).b, 1), ErrCorrupt},
		{"list of 2^64-1", key("REDIS0011", TypeList).len(math.MaxUint64).str("a").b, ErrTruncated},
	} {
		for _, limit := range []int{16, 1 << 20} {
			_, _, err := walk(tt.data, 3, limit)
			if !errors.Is(err, tt.want) {
				t.Errorf("%s, limit %d: %v, want %v", tt.name, limit, err, tt.want)
				continue
			}
			positioned(t, err, len(tt.data))
			var at *PositionError
			if errors.As(err, &at); bytes.Contains(tt.data, []byte("secret")) && at.Key != "secret" {
				t.Errorf("%s, limit %d: it is of key %q", tt.name, limit, at.Key)
			}
		}
	}
}

// TestMetadataTooLarge: what belongs to a key and stands before its name may be larger than what is kept. It cannot be
// carried then, and must be an error.
func TestMetadataTooLarge(t *testing.T) {
	s := newSnapshot("REDIS0013").raw(op243).len(1).raw(1, 2, 3, 4).len(5).str(strings.Repeat("m", 5000)).len(0)
	data := s.raw(TypeString).str("k", "v").end()
	_, _, err := walk(data, 100, 1000)
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("err = %v", err)
	}
	positioned(t, err, len(data))
	if _, _, err := walk(data, 100, 10_000); err != nil {
		t.Error(err)
	}
}

func TestChecksumOff(t *testing.T) {
	data := append(newSnapshot("REDIS0011").raw(TypeString).str("k", "v").raw(opEOF).b, make([]byte, 8)...)
	if records, _, err := walk(data, 3, 1000); err != nil || len(records) != 1 {
		t.Errorf("%d records, %v", len(records), err)
	}
}

func TestSourceErrorsAreNotTheSnapshots(t *testing.T) {
	boom := fmt.Errorf("disk: %w", io.ErrUnexpectedEOF)
	d := decoderOf(failing{boom}, &oneBuffer{}, 100)
	if err := d.Header(); err != boom { //nolint:errorlint // it is promised to be the value itself
		t.Errorf("err = %v", err)
	}
}

type failing struct{ err error }

func (failing) Ready() bool                                 { return true }
func (f failing) Read(context.Context, []byte) (int, error) { return 0, f.err }

func TestFooter(t *testing.T) {
	for _, tt := range []struct {
		typ      byte
		valkey   bool
		metadata bool
		want     uint16
	}{
		{TypeString, false, false, 6},
		{TypeHashZiplist, true, false, 6},
		{TypeListQuicklist, false, false, 7},
		{TypeZSet2, false, false, 8},
		{TypeModule2, false, false, 8},
		{TypeStream, false, false, 9},
		{TypeHashListpack, false, false, 10},
		{TypeStream2, false, false, 10},
		{TypeSetListpack, false, false, 11},
		{TypeStream3, true, false, 11},
		{Type22, false, false, 12},
		{Type22, true, false, 80},
		{TypeHashTTL, false, false, 12},
		{TypeHashTTLListpack, false, false, 12},
		{TypeStream4, false, false, 13},
		{TypeStream5, false, false, 14},
		{TypeArray, false, false, 14},
		{TypeString, false, true, 13},
		{TypeArray, false, true, 14},
	} {
		if got := FooterVersion(tt.typ, tt.valkey, tt.metadata); got != tt.want {
			t.Errorf("FooterVersion(%d, %t, %t) = %d, want %d", tt.typ, tt.valkey, tt.metadata, got, tt.want)
		}
	}
	body := []byte("\x00\x01x")
	p := AppendFooter(body, 11, CRC64(0, body))
	if len(p) != len(body)+FooterSize || binary.LittleEndian.Uint16(p[3:]) != 11 ||
		binary.LittleEndian.Uint64(p[5:]) != CRC64(0, p[:5]) {
		t.Errorf("footer %x", p)
	}
}

// FuzzDecoder checks that nothing panics, that no length takes memory that its bytes do not, and that pieces of any
// size and any limit give the same.
func FuzzDecoder(f *testing.F) {
	for _, v := range values {
		f.Add(newSnapshot(v.magic).raw(v.typ).str("k").raw(v.value.b...).end(), uint8(7))
	}
	f.Add(newSnapshot("REDIS0011").raw(opAux).str("repl-stream-db", "3").raw(opFreq, 1, opIdle, 2, TypeString).str("k", "v").end(), uint8(1))
	f.Add(newSnapshot("REDIS0011").raw(TypeString, 0x80, 0x1f, 0xff, 0xff, 0xff).b, uint8(1))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		keep := &oneBuffer{}
		d := decoderOf(&pieces{data: data, size: int(size) + 1}, keep, 1<<10)
		err := d.Header()
		for r := (Record{}); err == nil && r.Kind != KindEnd; {
			err = d.Next(&r)
		}
		if keep.largest > 4*len(data)+2<<20 {
			t.Fatalf("%d bytes of memory for a snapshot of %d", keep.largest, len(data))
		}
		a, _, errA := walk(data, len(data)+1, 1<<20)
		b, _, errB := walk(data, int(size)+1, 1<<14)
		if errors.Is(errA, errWindow) || errors.Is(errB, errWindow) {
			t.Fatal(errA, errB)
		}
		if len(a) != len(b) || (errA == nil) != (errB == nil) {
			t.Fatalf("%d records, %v; in pieces %d, %v", len(a), errA, len(b), errB)
		}
		for i := range a {
			if !bytes.Equal(a[i].name, b[i].name) || !bytes.Equal(a[i].value, b[i].value) {
				t.Fatalf("record %d: %+v, in pieces %+v", i, a[i], b[i])
			}
		}
	})
}

// repeated yields a head once and then a body for ever.
type repeated struct {
	head, body []byte
	at         int
}

func (s *repeated) Ready() bool { return true }

func (s *repeated) Read(_ context.Context, p []byte) (int, error) {
	if len(s.head) > 0 {
		n := copy(p, s.head)
		s.head = s.head[n:]
		return n, nil
	}
	n := copy(p, s.body[s.at:])
	s.at = (s.at + n) % len(s.body)
	return n, nil
}

func BenchmarkDecode(b *testing.B) {
	text := strings.Repeat("value ", 20)
	bodies := map[string]func(s *snapshot, i int){
		"string": func(s *snapshot, i int) {
			s.raw(TypeString).str(fmt.Sprint("key:", i), text[:20+i%100])
		},
		"string with TTL": func(s *snapshot, i int) {
			s.raw(opExpireMS).i64(1700000000000).raw(TypeString).str(fmt.Sprint("key:", i), text[:20+i%100])
		},
		"hash listpack": func(s *snapshot, i int) {
			s.raw(TypeHashListpack).str(fmt.Sprint("hash:", i), text)
		},
		"hash table": func(s *snapshot, i int) {
			s.raw(TypeHash).str(fmt.Sprint("hash:", i)).len(10)
			for range 10 {
				s.str("field", text[:20+i%60])
			}
		},
		"zset": func(s *snapshot, i int) {
			s.raw(TypeZSet2).str(fmt.Sprint("zset:", i)).len(10)
			for range 10 {
				s.str("member").i64(5)
			}
		},
		"stream": func(s *snapshot, _ int) { s.raw(TypeStream3).str("stream").raw(streamBody(TypeStream3).b...) },
	}
	for name, fill := range bodies {
		b.Run(name, func(b *testing.B) {
			s := newSnapshot("")
			const keys = 1000
			for i := range keys {
				fill(s, i)
			}
			src := &repeated{head: []byte("REDIS0011"), body: s.b}
			d := NewDecoder(func(sum func([]byte)) *feed.Window {
				return feed.New(b.Context(), src, &oneBuffer{}, 0, 1<<20, sum)
			})
			if err := d.Header(); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(len(s.b) / keys))
			b.ReportAllocs()
			var r Record
			for b.Loop() {
				if err := d.Next(&r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package rdb

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
)

// lp builds a listpack of texts and whole numbers.
func lp(parts ...any) string {
	var b []byte
	for _, part := range parts {
		from := len(b)
		switch p := part.(type) {
		case int:
			switch {
			case p >= 0 && p < 1<<7:
				b = append(b, byte(p))
			case p >= -1<<12 && p < 1<<12:
				b = append(b, 0xc0|byte(uint16(p)>>8)&0x1f, byte(p))
			case p >= math.MinInt16 && p <= math.MaxInt16:
				b = binary.LittleEndian.AppendUint16(append(b, 0xf1), uint16(p))
			case p >= -1<<23 && p < 1<<23:
				b = append(b, 0xf2, byte(p), byte(p>>8), byte(p>>16))
			case p >= math.MinInt32 && p <= math.MaxInt32:
				b = binary.LittleEndian.AppendUint32(append(b, 0xf3), uint32(p))
			default:
				b = binary.LittleEndian.AppendUint64(append(b, 0xf4), uint64(p))
			}
		case string:
			switch {
			case len(p) < 1<<6:
				b = append(b, 0x80|byte(len(p)))
			case len(p) < 1<<12:
				b = append(b, 0xe0|byte(len(p)>>8), byte(len(p)))
			default:
				b = binary.LittleEndian.AppendUint32(append(b, 0xf0), uint32(len(p)))
			}
			b = append(b, p...)
		}
		size := len(b) - from
		for i := int(backLength(size)) - 1; i >= 0; i-- { // seven bits a byte, all but the first marked
			septet := byte(size>>(7*i)) & 0x7f
			if i < int(backLength(size))-1 {
				septet |= 0x80
			}
			b = append(b, septet)
		}
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(b)+7))
	head = binary.LittleEndian.AppendUint16(head, uint16(min(len(parts), unknownCount)))
	return string(append(append(head, b...), packEnd))
}

// zl wraps entries of a ziplist, given as bytes behind the length of the previous one.
func zl(entries ...string) string {
	var b []byte
	previous, tail := 0, 0
	for _, e := range entries {
		tail = len(b)
		if previous < 254 {
			b = append(b, byte(previous))
			previous = 1
		} else {
			b = binary.LittleEndian.AppendUint32(append(b, 0xfe), uint32(previous))
			previous = 5
		}
		b = append(b, e...)
		previous += len(e)
	}
	head := binary.LittleEndian.AppendUint32(nil, uint32(len(b)+11))
	head = binary.LittleEndian.AppendUint32(head, uint32(10+tail))
	head = binary.LittleEndian.AppendUint16(head, uint16(len(entries)))
	return string(append(append(head, b...), packEnd))
}

func rawIDOf(ms, seq uint64) string {
	return string(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, ms), seq))
}

// madeStream is a stream as a newer or older release would write it, with all that it may have: entries with the fields of
// the master entry, with others, with one field twice, and deleted ones; a group with what two consumers, and from v5 on nobody, has pending.
func madeStream(t byte) *snapshot {
	node := lp(3, 1, 2, "a", "b", 0,
		2, 0, 0, "1", 2, 5,
		0, 1, 0, 3, "z", 5, "a", 70000, "z", -6, 10,
		3, 2, 0, "gone", "gone", 5,
		2, 2, 1, strings.Repeat("x", 100), "", 5)
	s := newSnapshot("").len(1).str(rawIDOf(10, 5), node).len(3, 20, 0)
	if t >= TypeStream2 {
		s.len(10, 5, 12, 5, 7)
	}
	s.len(2).str("g").len(12, 6)
	if t >= TypeStream2 {
		s.len(3)
	}
	s.len(3)
	s.raw([]byte(rawIDOf(10, 5))...).i64(1700000000000).len(3)
	s.raw([]byte(rawIDOf(11, 5))...).i64(1700000000001).len(1)
	s.raw([]byte(rawIDOf(12, 6))...).i64(1700000000002).len(2)
	s.len(3)
	for _, c := range []struct {
		name string
		ids  []string
	}{{"one", []string{rawIDOf(11, 5)}}, {"nothing", nil}, {"two", []string{rawIDOf(10, 5), rawIDOf(12, 6)}}} {
		if t >= TypeStream5 && len(c.ids) == 2 {
			c.ids = c.ids[:1]
		}
		s.str(c.name).i64(1700000000003)
		if t >= TypeStream3 {
			s.i64(-1)
		}
		s.len(uint64(len(c.ids)))
		for _, id := range c.ids {
			s.raw([]byte(id)...)
		}
	}
	if t >= TypeStream5 {
		s.len(1).raw([]byte(rawIDOf(12, 6))...)
	}
	s.str("empty").len(0, 0)
	if t >= TypeStream2 {
		s.len(math.MaxUint64)
	}
	s.len(0, 0)
	if t >= TypeStream5 {
		s.len(0)
	}
	if t >= TypeStream4 {
		s.len(100, 1000, 2).str("p").len(2).str("a").len(10, 5).str("b").len(11, 5).str("idle").len(0).len(7, 8)
	}
	return s
}

// streamLines are the elements of madeStream.
func streamLines(t byte) []string {
	read, info, active := "-1", "First:{MS:0 Seq:0} MaxDeleted:{MS:0 Seq:0} Added:0 Extended:false", "-1"
	if t >= TypeStream2 {
		read, info = "3", "First:{MS:10 Seq:5} MaxDeleted:{MS:12 Seq:5} Added:7 Extended:true"
	}
	all := []string{
		`entry {10 5} ["a" "1" "b" "2"]`,
		`entry {11 5} ["z" "5" "a" "70000" "z" "-6"]`,
		fmt.Sprintf(`entry {12 6} ["a" %q "b" ""]`, strings.Repeat("x", 100)),
		"stream {Length:3 Last:{MS:20 Seq:0} " + info + "}",
		`group "g" {12 6} ` + read,
	}
	last := "pending {12 6} 1700000000002 2"
	if t >= TypeStream5 {
		all = append(all, last)
	}
	all = append(all, `consumer "one" 1700000000003 `+active, "pending {11 5} 1700000000001 1", `consumer "nothing" 1700000000003 `+active,
		`consumer "two" 1700000000003 `+active, "pending {10 5} 1700000000000 3")
	if t < TypeStream5 {
		all = append(all, last)
	}
	all = append(all, `group "empty" {0 0} -1`)
	if t >= TypeStream4 {
		all = append(all, `producer "p"`, `producer "idle"`)
	}
	return all
}

// scores begins a sorted set with members of these scores and one more.
func scores(all ...float64) *snapshot {
	s := newSnapshot("").len(uint64(len(all)) + 1)
	for i, f := range all {
		s.str(fmt.Sprint(i)).i64(int64(math.Float64bits(f)))
	}
	return s
}

// madeValues are values that no server at hand writes.
func madeValues() []sample {
	long := strings.Repeat("abcdefgh", 40000)
	item := func(s string) string { return fmt.Sprintf(`2 "" %q 0 0 {0 0}`, s) }
	member := func(s string) string { return fmt.Sprintf(`3 %q "" 0 0 {0 0}`, s) }
	scored := func(s, score string) string { return fmt.Sprintf(`4 %q "" %s 0 {0 0}`, s, score) }
	field := func(f, v string, at int) string { return fmt.Sprintf(`5 %q %q 0 %d {0 0}`, f, v, at) }
	const soon = 1700000000000
	all := []sample{
		{"empty string", Value{Type: TypeString}, encoded(""), []string{""}},
		{"integer", Value{Type: TypeString}, []byte{0xc2, 0xff, 0xff, 0xff, 0x7f}, []string{"2147483647"}},
		{"long string", Value{Type: TypeString}, encoded(long), []string{long}},
		{"compressed string", Value{Type: TypeString}, lzf(strings.Repeat("a", 300000) + "b"), []string{strings.Repeat("a", 300000) + "b"}},
		{"compressed to a piece", Value{Type: TypeString}, lzf(strings.Repeat("a", 65536)), []string{strings.Repeat("a", 65536)}},
		{"list", Value{Type: TypeList}, newSnapshot("").len(3).str("a", "").raw(0xc0, 0x80).b, []string{item("a"), item(""), item("-128")}},
		{
			"zset",
			Value{Type: TypeZSet},
			newSnapshot("").len(3).str("a").raw(4, '-', '1', '.', '5').str("b").raw(254).str("c").raw(255).b,
			[]string{scored("a", "-1.5"), scored("b", "+Inf"), scored("c", "-Inf")},
		},
		{
			"zipmap",
			Value{Type: TypeHashZipmap},
			encoded("\x02\x01f\x03\x02val__\xfe\x00\x01\x00\x00" + long[:256] + "\x00\x00\xff"),
			[]string{field("f", "val", 0), field(long[:256], "", 0)},
		},
		{
			"list ziplist",
			Value{Type: TypeListZiplist},
			encoded(zl("\x01a", "\x41\x00"+strings.Repeat("y", 256), "\x80\x00\x00\x00\x02zz", "\xc0\x00\x80", "\xd0\xff\xff\xff\x7f",
				"\xe0\x01\x00\x00\x00\x00\x00\x00\x80", "\xf0\x00\x00\x80", "\xfe\x80", "\xf1", "\xfd")),
			[]string{
				item("a"), item(strings.Repeat("y", 256)), item("zz"), item("-32768"), item("2147483647"), item("-9223372036854775807"),
				item("-8388608"), item("-128"), item("0"), item("12"),
			},
		},
		{
			"quicklist2",
			Value{Type: TypeListQuicklist2},
			newSnapshot("").len(3, 1).str("plain").len(2).str(lp("a", 127, 128, -4096, 4096, -1<<23, 1<<23, math.MinInt32, math.MinInt64, "")).len(1).str("x").b,
			[]string{
				item("plain"), item("a"), item("127"), item("128"), item("-4096"), item("4096"), item("-8388608"), item("8388608"),
				item("-2147483648"), item("-9223372036854775808"), item(""), item("x"),
			},
		},
		{"set listpack", Value{Type: TypeSetListpack}, encoded(lp("a", 5)), []string{member("a"), member("5")}},
		{"intset", Value{Type: TypeSetIntset}, encoded("\x02\x00\x00\x00\x02\x00\x00\x00\xff\xff\x07\x00"), []string{member("-1"), member("7")}},
		{
			"zset listpack",
			Value{Type: TypeZSetListpack},
			encoded(lp("a", -3, "d", 0, "b", "2.5", "c", "inf")),
			[]string{scored("a", "-3"), scored("d", "0"), scored("b", "2.5"), scored("c", "+Inf")},
		},
		{
			"zset2",
			Value{Type: TypeZSet2},
			scores(math.Inf(-1), -0.5, 5e-324, 0.1+float64(len(long))/3, math.MaxFloat64).str(long[:80]).i64(int64(math.Float64bits(1e22))).b,
			[]string{
				scored("0", "-Inf"), scored("1", "-0.5"), scored("2", "5e-324"), scored("3", fmt.Sprint(0.1+float64(len(long))/3)),
				scored("4", "1.7976931348623157e+308"), scored(long[:80], "1e+22"),
			},
		},
		{
			"22 of Redis",
			Value{Type: Type22},
			newSnapshot("").len(2, 0).str("f", "v").len(soon).str("g", "w").b,
			[]string{field("f", "v", 0), field("g", "w", soon)},
		},
		{
			"22 of Valkey",
			Value{Type22, true},
			newSnapshot("").len(2).str("f", "v").i64(-1).str("g", "w").i64(soon).b,
			[]string{field("f", "v", 0), field("g", "w", soon)},
		},
		{
			"late of Valkey",
			Value{Type22, true},
			newSnapshot("").len(2).str("f", "v").i64(LastFieldTTL+5).str("g", "w").i64(soon).b,
			[]string{field("f", "v", LastFieldTTL+5), field("g", "w", soon)},
		},
		{
			"23 of Redis",
			Value{Type: Type23},
			encoded(lp("g", "w", soon, "f", 1, 0)),
			[]string{field("g", "w", soon), field("f", "1", 0)},
		},
		{
			"hash TTL",
			Value{Type: TypeHashTTL},
			newSnapshot("").i64(soon).len(3, 0).str("f", "v").len(1).str("g", "w").len(6).str("h", "x").b,
			[]string{field("f", "v", 0), field("g", "w", soon), field("h", "x", soon+5)},
		},
		{
			"hash TTL listpack",
			Value{Type: TypeHashTTLListpack},
			newSnapshot("").i64(soon).str(lp("g", "w", soon, "f", 1, 0)).b,
			[]string{field("g", "w", soon), field("f", "1", 0)},
		},
		{
			"array",
			Value{Type: TypeArray},
			newSnapshot("").len(4, 1, 77).len(0, 1).i64(-5).len(1, 2).i64(int64(math.Float64bits(1.5))).len(2, 0).str("s").len(9, 3).str("t").b,
			[]string{`13 at 77 ""`, `12 at 0 "-5"`, `12 at 1 "1.5"`, `12 at 2 "s"`, `12 at 9 "t"`},
		},
	}
	for t := byte(TypeStream); t <= TypeStream5; t++ {
		if typeKind(t, false) == TypeStream {
			all = append(all, sample{TypeName(t) + fmt.Sprint(t), Value{Type: t}, madeStream(t).b, streamLines(t)})
		}
	}
	return all
}

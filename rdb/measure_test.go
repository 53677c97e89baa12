package rdb

import (
	"fmt"
	"testing"
)

// TestMeasure: what lengths say of a value is what its elements are, however the bytes come.
func TestMeasure(t *testing.T) {
	for _, g := range goldens(t) {
		for _, size := range []int{1, 13, 1 << 20} {
			for _, limit := range []int{256, 1 << 20} {
				var m Measure
				d := decoderOf(&pieces{data: g.data, size: size}, &oneBuffer{}, limit)
				d.Measure = &m
				aux := map[string]string{}
				d.Aux = func(name, value []byte) { aux[string(name)] = string(value) }
				if err := d.Header(); err != nil {
					t.Fatal(err)
				}
				for {
					start := d.w.Offset()
					var f found
					if err := d.Next(&f.Record); err != nil {
						t.Fatal(err)
					}
					if f.Kind == KindEnd {
						break
					}
					if err := f.take(d, g.data, start); err != nil {
						t.Fatal(err)
					}
					if f.Kind == KindKey {
						sameMeasure(t, fmt.Sprintf("%s, pieces of %d, limit %d", g.name, size, limit), &f, d.Valkey, m)
					}
				}
				if aux["redis-bits"] != "64" {
					t.Errorf("%s: AUX is %v", g.name, aux)
				}
			}
		}
	}
}

func sameMeasure(t *testing.T, where string, f *found, valkey bool, m Measure) {
	t.Helper()
	var elements, bytes int64
	err := Value{Type: f.Type, Valkey: valkey}.ElementsOf(f.value, func(e *Element) error {
		switch e.Kind {
		case ElementItem, ElementMember, ElementScored, ElementField, ElementEntry, ElementIndexed:
			elements++
		case ElementPiece:
			bytes += int64(len(e.Value))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if m.Elements != elements {
		t.Errorf("%s: %q of type %d has %d elements, measured %d", where, f.name, f.Type, elements, m.Elements)
	}
	integer := f.Type == TypeString && f.value[0]>>6 == 3 && f.value[0]&0x3f != encLZF
	if f.Type == TypeString && !integer && m.Bytes != bytes {
		t.Errorf("%s: %q has %d bytes, measured %d", where, f.name, bytes, m.Bytes)
	}
}

// TestPackedCount: the count of a compressed collection is in its first bytes, whatever these are compressed to.
func TestPackedCount(t *testing.T) {
	for name, lzf := range map[string][]byte{
		"a run longer than the head": append([]byte{31}, "\x00\x01\x00\x00\x2a\x00ssssssssssssssssss"...),
		"short runs":                 []byte("\x01\x00\x01\x01\x00\x00\x01\x2a\x00\x02sss"),
		"a reference":                []byte("\x00\x00\x20\x00\x00\x2a\x00\x00\x02sss"),
	} {
		if got := packedCount(TypeSetListpack, lzf[:min(len(lzf), packedHead)], true); got != 42 {
			t.Errorf("%s: %d", name, got)
		}
	}
	if n := ModuleName([]byte{0x81, 0, 0, 0, 0, 0, 0, 0x04, 0x01}); n != "AAAAAAAAB" {
		t.Errorf("name of a module: %s", n)
	}
}

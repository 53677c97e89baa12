package writer

import (
	"fmt"
	"strings"
	"testing"
)

// TestEncodingDoesNotAllocate: nothing is allocated for each entry.
func TestEncodingDoesNotAllocate(t *testing.T) {
	text := append([]byte("\x00\x20"), strings.Repeat("x", 32)...)
	text = append(text, make([]byte, 10)...)
	for name, add := range map[string]func(*batch, int){
		"commands":     func(x *batch, i int) { x.do(i%2, "SET", fmt.Sprint(i), "value") },
		"transactions": func(x *batch, i int) { x.tx(0, fmt.Sprintf("INCR a:%d", i), "INCR b") },
		"snapshot":     func(x *batch, i int) { x.key(0, fmt.Sprint(i), text, nil) },
	} {
		b := benchBatch(t, add)
		b.Snapshot = name == "snapshot"
		o := &outbox{conn: nowhere{}, push: func([]op) {}}
		enc := encoder{pxat: true}
		if n := testing.AllocsPerRun(20, func() {
			if err := enc.encode(o, item{batch: b, n: uint32(len(b.Entries))}); err != nil {
				t.Fatal(err)
			}
			if err := o.flush(); err != nil {
				t.Fatal(err)
			}
		}); n > 4 {
			t.Errorf("%s: %v allocations for %d entries", name, n, len(b.Entries))
		}
	}
}

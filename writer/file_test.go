package writer

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// fileForms are the formats, writing into w.
func fileForms(w io.Writer) map[string]fileForm {
	d := newDispatcher(Config{Node: topology.Node{Product: "redis", Major: 7}})
	return map[string]fileForm{
		"rdb":   newRDBFile(w, FileConfig{}),
		"resp":  newRESPFile(w, d, false),
		"jsonl": newJSONLFile(w, FileConfig{}),
		"plain": newRESPFile(w, d, true),
	}
}

// fileBatch is a batch of strings.
func fileBatch(t testing.TB) *haul.Batch {
	text := append([]byte("\x00\x20"), strings.Repeat("x", 32)...)
	text = append(text, make([]byte, rdb.FooterSize)...)
	b := benchBatch(t, func(x *batch, i int) {
		x.key(0, fmt.Sprintf("key:%d", i), text, func(k *haul.Key) { k.Has |= haul.HasExpire; k.ExpireAt = 9999999999999 })
	})
	b.Snapshot, b.Format = true, haul.Format{Version: 10}
	return b
}

// TestFilesDoNotAllocate: nothing is allocated for each key where its bytes are only carried through.
func TestFilesDoNotAllocate(t *testing.T) {
	b := fileBatch(t)
	for name, form := range fileForms(io.Discard) {
		n := testing.AllocsPerRun(20, func() {
			if err := form.write(b, 0, uint32(len(b.Entries))); err != nil {
				t.Fatal(err)
			}
		})
		if name != "plain" && n > 4 {
			t.Errorf("%s: %v allocations for %d keys", name, n, len(b.Entries))
		}
	}
}

func BenchmarkFile(b *testing.B) {
	keys := fileBatch(b)
	for name, form := range fileForms(io.Discard) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(keys.Buf)))
			b.ReportAllocs()
			for b.Loop() {
				if err := form.write(keys, 0, uint32(len(keys.Entries))); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)*float64(len(keys.Entries))/b.Elapsed().Seconds(), "keys/s")
		})
	}
}

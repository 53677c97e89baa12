package rdb

import (
	"hash/crc64"
	"math/rand/v2"
	"testing"
)

func TestCRC64Check(t *testing.T) {
	if got := CRC64(0, []byte("123456789")); got != 0xe9c6d914c4b8d9ca {
		t.Errorf("CRC64 = %#x", got)
	}
	if got := CRC64(42, nil); got != 42 {
		t.Errorf("CRC64 of nothing = %d", got)
	}
}

// TestCRC64AgainstLibrary compares with hash/crc64, which inverts before and after.
func TestCRC64AgainstLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	table := crc64.MakeTable(poly)
	data := make([]byte, 4096)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for size := range 200 {
		for from := range 20 {
			start := rng.Uint64()
			p := data[from : from+size]
			if got, want := CRC64(start, p), ^crc64.Update(^start, table, p); got != want {
				t.Fatalf("CRC64 of [%d:%d] = %#x, want %#x", from, from+size, got, want)
			}
		}
	}
	want := ^crc64.Update(^uint64(0), table, data)
	for piece := 1; piece < 100; piece++ {
		var got uint64
		for from := 0; from < len(data); from += piece {
			got = CRC64(got, data[from:min(from+piece, len(data))])
		}
		if got != want {
			t.Fatalf("in pieces of %d: %#x, want %#x", piece, got, want)
		}
	}
}

func BenchmarkCRC64(b *testing.B) {
	for name, size := range map[string]int{"64KiB": 64 << 10, "100B": 100} {
		b.Run(name, func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			var crc uint64
			for b.Loop() {
				crc = CRC64(crc, p)
			}
		})
	}
}

package rdb

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
)

func encoded(s string) []byte { return append(appendLength(nil, uint64(len(s))), s...) }

// lzf packs s as a server would write it: literals, and back references where the last byte repeats.
func lzf(s string) []byte {
	var packed []byte
	for i := 0; i < len(s); {
		run := 0
		for i > 0 && i+run < len(s) && s[i+run] == s[i-1] && run < 264 {
			run++
		}
		switch {
		case run >= 9:
			packed = append(packed, 7<<5, byte(run-9), 0)
			i += run
		case run >= 3:
			packed = append(packed, byte(run-2)<<5, 0)
			i += run
		default:
			packed = append(packed, 0, s[i])
			i++
		}
	}
	return lzfOf(packed, len(s))
}

func lzfOf(packed []byte, raw int) []byte {
	out := appendLength([]byte{0xc0 | encLZF}, uint64(len(packed)))
	return append(appendLength(out, uint64(raw)), packed...)
}

func TestAppendString(t *testing.T) {
	for _, tt := range []struct {
		name string
		enc  []byte
		want string
	}{
		{"empty", []byte{0}, ""},
		{"short", encoded("hello"), "hello"},
		{"14 bits", encoded(strings.Repeat("x", 500)), strings.Repeat("x", 500)},
		{"32 bits", encoded(strings.Repeat("x", 20000)), strings.Repeat("x", 20000)},
		{"32 bits for little", []byte{0x80, 0, 0, 0, 2, 'a', 'b'}, "ab"},
		{"64 bits for little", []byte{0x81, 0, 0, 0, 0, 0, 0, 0, 2, 'a', 'b'}, "ab"},
		{"int8", []byte{0xc0, 0x7f}, "127"},
		{"int8 negative", []byte{0xc0, 0x80}, "-128"},
		{"int16", []byte{0xc1, 0xff, 0x7f}, "32767"},
		{"int16 negative", []byte{0xc1, 0x00, 0x80}, "-32768"},
		{"int32", []byte{0xc2, 0xff, 0xff, 0xff, 0x7f}, "2147483647"},
		{"int32 negative", []byte{0xc2, 0, 0, 0, 0x80}, "-2147483648"},
		{"lzf literals", lzfOf([]byte{2, 'a', 'b', 'c'}, 3), "abc"},
		{"lzf short reference", lzfOf([]byte{2, 'a', 'b', 'c', 1 << 5, 2, 0, '!'}, 7), "abcabc!"},
		{"lzf overlap", lzfOf([]byte{0, 'a', 7 << 5, 255, 0}, 265), strings.Repeat("a", 265)},
		{"lzf overlap of two", lzfOf([]byte{1, 'a', 'b', 4 << 5, 1}, 8), "abababab"},
		{"lzf far reference", lzfOf(farReference(), 8196), strings.Repeat("abcdefgh", 1024) + "abcd"},
		{"lzf empty", lzfOf(nil, 0), ""},
		{"lzf run", lzf(strings.Repeat("a", 1000) + "b"), strings.Repeat("a", 1000) + "b"},
	} {
		got, err := AppendString([]byte("before:"), tt.enc)
		if err != nil || string(got) != "before:"+tt.want {
			t.Errorf("%s: %.40q, %v, want %.40q", tt.name, got, err, tt.want)
		}
		plain, size, err := StringForm(tt.enc)
		isPlain := tt.enc[0]>>6 != 3
		if err != nil || (plain != nil) != isPlain || isPlain && string(plain) != tt.want || size < len(tt.want) {
			t.Errorf("%s: StringForm = %.40q, %d, %v", tt.name, plain, size, err)
		}
		for cut := range min(len(tt.enc), 300) {
			if got, err := AppendString(nil, tt.enc[:cut]); !errors.Is(err, ErrString) {
				t.Errorf("%s cut at %d: %.40q, %v", tt.name, cut, got, err)
			}
		}
		if _, err := AppendString(nil, append(bytes.Clone(tt.enc), 0)); !errors.Is(err, ErrString) {
			t.Errorf("%s with a byte behind it: %v", tt.name, err)
		}
	}
}

// farReference packs 8192 literal bytes and four more that are the same as 8192 bytes before, the greatest distance.
func farReference() []byte {
	var packed []byte
	for range 1024 {
		packed = append(append(packed, 7), "abcdefgh"...)
	}
	return append(packed, 2<<5|0x1f, 0xff)
}

func TestAppendStringRefuses(t *testing.T) {
	for name, enc := range map[string][]byte{
		"nothing":                nil,
		"unknown encoding":       {0xc4},
		"unknown length":         {0x82, 0, 0, 0, 1, 'a'},
		"length of 2^64-1":       {0x81, 255, 255, 255, 255, 255, 255, 255, 255},
		"lzf reference to start": lzfOf([]byte{1 << 5, 0}, 3),
		"lzf reference before":   lzfOf([]byte{1, 'a', 'b', 1 << 5, 2}, 5),
		"lzf cut literal":        lzfOf([]byte{5, 'a'}, 6),
		"lzf cut reference":      lzfOf([]byte{0, 'a', 1 << 5}, 4),
		"lzf cut long reference": lzfOf([]byte{0, 'a', 7 << 5}, 10),
		"lzf too long":           lzfOf([]byte{2, 'a', 'b', 'c'}, 2),
		"lzf reference too long": lzfOf([]byte{0, 'a', 1 << 5, 0}, 3),
		"lzf too short":          lzfOf([]byte{2, 'a', 'b', 'c'}, 4),
		"lzf raw absurd":         lzfOf([]byte{2, 'a', 'b', 'c'}, 1<<41),
		"lzf lengths special":    {0xc3, 0xc0, 1},
	} {
		if got, err := AppendString([]byte("x"), enc); !errors.Is(err, ErrString) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	// what stands before the string is no part of it
	if _, err := AppendString([]byte("secret"), lzfOf([]byte{0, 'a', 1 << 5, 3}, 4)); !errors.Is(err, ErrString) {
		t.Errorf("a reference to what stands before: %v", err)
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add(encoded("hello"))
	f.Add([]byte{0xc1, 1, 2})
	f.Add(lzf(strings.Repeat("ab", 50)))
	f.Add(lzf(strings.Repeat("a", 500)))
	f.Fuzz(func(t *testing.T, enc []byte) {
		got, err := AppendString([]byte("x"), enc)
		plain, size, formErr := StringForm(enc)
		if err != nil {
			return
		}
		if formErr != nil || got[0] != 'x' || len(got)-1 > size || plain != nil && !bytes.Equal(plain, got[1:]) {
			t.Fatalf("AppendString = %q; StringForm = %q, %d, %v", got, plain, size, formErr)
		}
		if len(got) > 300*len(enc)+16 {
			t.Fatalf("%d bytes of %d", len(got), len(enc))
		}
	})
}

func BenchmarkAppendLZF(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	var text strings.Builder
	for text.Len() < 4096 {
		text.WriteString(strings.Repeat(string(rune('a'+rng.IntN(26))), 1+rng.IntN(12)))
	}
	enc := lzf(text.String())
	var dst []byte
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if dst, err = AppendString(dst[:0], enc); err != nil {
			b.Fatal(err)
		}
	}
}

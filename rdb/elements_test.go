package rdb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// listed returns the elements of a value as lines of text, adjacent pieces of a string as one.
func listed(v Value, body []byte) ([]string, error) {
	var l lines
	err := v.ElementsOf(body, l.add)
	return l, err
}

func ignored(*Element) error { return nil }

type lines []string

func (l *lines) add(e *Element) error {
	text := fmt.Sprintf("%d %q %q %v %d %v", e.Kind, e.Name, e.Value, e.Score, e.ExpireAt, e.ID)
	switch e.Kind {
	case ElementPiece:
		if n := len(*l); n > 0 {
			(*l)[n-1] += string(e.Value)
			return nil
		}
		text = string(e.Value)
	case ElementEntry:
		text = fmt.Sprintf("entry %v %q", e.ID, e.Fields)
	case ElementStream:
		text = fmt.Sprintf("stream %+v", e.Stream)
	case ElementGroup:
		text = fmt.Sprintf("group %q %v %d", e.Name, e.ID, e.EntriesRead)
	case ElementConsumer:
		text = fmt.Sprintf("consumer %q %d %d", e.Name, e.Seen, e.Active)
	case ElementPending:
		text = fmt.Sprintf("pending %v %d %d", e.ID, e.Delivered, e.Deliveries)
	case ElementProducer:
		text = fmt.Sprintf("producer %q", e.Name)
	case ElementIndexed, ElementCursor:
		text = fmt.Sprintf("%d at %d %q", e.Kind, e.Index, e.Value)
	}
	*l = append(*l, text)
	return nil
}

// sample is a value with what it holds.
type sample struct {
	name string
	Value
	body []byte
	want []string
}

// goldenValues returns every value of the golden files.
func goldenValues(t testing.TB) []sample {
	var all []sample
	for _, g := range goldens(t) {
		records, d, err := walk(g.data, 1<<20, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range records {
			if f.Kind == KindKey {
				v := Value{f.Type, d.Valkey}
				all = append(all, sample{fmt.Sprintf("%s/%.30q", g.name, f.name), v, bytes.Clone(f.value), nil})
			}
		}
	}
	return all
}

// TestElementsAgree: a value is the same from memory and from a reader, whatever the reader gives at once.
func TestElementsAgree(t *testing.T) {
	for _, s := range append(goldenValues(t), madeValues()...) {
		want, err := listed(s.Value, s.body)
		if err != nil || len(want) == 0 {
			t.Errorf("%s, type %d: %d elements, %v", s.name, s.Type, len(want), err)
			continue
		}
		if s.want != nil && !slices.Equal(want, s.want) {
			t.Errorf("%s:\n%s\nwant\n%s", s.name, strings.Join(want, "\n"), strings.Join(s.want, "\n"))
		}
		for i, r := range []io.Reader{bytes.NewReader(s.body), iotest.OneByteReader(bytes.NewReader(s.body)), iotest.DataErrReader(bytes.NewReader(s.body))} {
			var got lines
			if err := s.Elements(r, got.add); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s from reader %d: %d elements, %v, want %d", s.name, i, len(got), err, len(want))
			}
		}
	}
}

// TestElementsTruncated: no beginning of a value is a success, and nothing may follow its end.
func TestElementsTruncated(t *testing.T) {
	for _, s := range append(goldenValues(t), madeValues()...) {
		step := stride(len(s.body))
		for cut := 0; cut < len(s.body); cut += step {
			err := s.ElementsOf(s.body[:cut], ignored)
			var at *ValueError
			if !errors.As(err, &at) || !errors.Is(err, ErrTruncated) || at.Offset > int64(cut) {
				t.Fatalf("%s cut at %d of %d: %v", s.name, cut, len(s.body), err)
			}
			err = s.Elements(bytes.NewReader(s.body[:cut]), ignored)
			if !errors.As(err, &at) || !errors.Is(err, ErrTruncated) {
				t.Fatalf("%s cut at %d of %d, from a reader: %v", s.name, cut, len(s.body), err)
			}
		}
		if _, err := listed(s.Value, s.body); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
		if _, err := listed(s.Value, append(slices.Clone(s.body), 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s with a byte more: %v", s.name, err)
		}
	}
}

// stride is the distance of places to try in a value of n bytes: all of a small one, a few of a large one.
func stride(n int) int { return 1 + max(n/100, n*n/4_000_000) }

// TestElementsFlipped: wrong bytes are an error or another value, and neither a panic nor much memory.
func TestElementsFlipped(t *testing.T) {
	for _, s := range append(goldenValues(t), madeValues()...) {
		step := stride(len(s.body))
		body := slices.Clone(s.body)
		for at := 0; at < len(body); at += step {
			for _, flip := range []byte{1, 0x80, 0xff, body[at] ^ 0x81} {
				body[at] ^= flip
				if err := s.ElementsOf(body, ignored); err != nil && !known(err) {
					t.Fatalf("%s with byte %d as %#x: %v", s.name, at, body[at], err)
				}
				body[at] = s.body[at]
			}
		}
	}
}

// known tells whether an error is one of the value's bytes.
func known(err error) bool {
	var at *ValueError
	return errors.As(err, &at) && (errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrUnsupported))
}

// TestElementsHugeLengths: a length is believed when its bytes are there, not before.
func TestElementsHugeLengths(t *testing.T) {
	huge := []byte{0x81, 0, 0, 1, 0, 0, 0, 0, 1}
	for typ := byte(0); typ <= TypeArray; typ++ {
		for _, valkey := range []bool{false, true} {
			for _, body := range [][]byte{huge, append([]byte{1}, huge...), bytes.Repeat(huge, 4), append([]byte{0xc3}, bytes.Repeat(huge, 2)...)} {
				v := Value{typ, valkey}
				allocated := testing.AllocsPerRun(1, func() {
					_ = v.Elements(bytes.NewReader(body), ignored)
				})
				_, err := listed(v, body)
				if !known(err) || allocated > 100 {
					t.Errorf("type %d, %x: %v, %v allocations", typ, body, err, allocated)
				}
			}
		}
	}
}

// TestElementsErrors: errors of the reader and of emit come as they are.
func TestElementsErrors(t *testing.T) {
	mine := fmt.Errorf("mine, which is no %w", ErrCorrupt)
	for _, s := range madeValues() {
		if err := s.ElementsOf(s.body, func(*Element) error { return mine }); !errors.Is(err, mine) || known(err) {
			t.Errorf("%s: %v", s.name, err)
		}
		broken := errors.New("the disk")
		r := io.MultiReader(bytes.NewReader(s.body[:len(s.body)-1]), iotest.ErrReader(broken))
		if err := s.Elements(r, ignored); !errors.Is(err, broken) || known(err) {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// TestElementsAllocate: no allocation for an element. With the race detector what is kept from value to value is not always there.
func TestElementsAllocate(t *testing.T) {
	for _, s := range goldenValues(t) {
		n := testing.AllocsPerRun(10, func() {
			if err := s.ElementsOf(s.body, ignored); err != nil {
				t.Fatal(err)
			}
		})
		if all, _ := listed(s.Value, s.body); len(all) > 200 && n > 50 {
			t.Errorf("%s, type %d: %v allocations", s.name, s.Type, n)
		}
	}
}

func BenchmarkElements(b *testing.B) {
	for _, s := range goldenValues(b) {
		if len(s.body) < 1000 || strings.HasPrefix(s.name, "redis-6.0-") {
			continue
		}
		b.Run(fmt.Sprintf("%d/%s", s.Type, s.name), func(b *testing.B) {
			b.SetBytes(int64(len(s.body)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.ElementsOf(s.body, ignored); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestElementsMemory: a long string takes no more memory than a short one, compressed or not.
func TestElementsMemory(t *testing.T) {
	const size = 64 << 20
	packed := []byte{0, 'a'}
	for raw := 1; raw < size; raw += 264 {
		packed = append(packed, 7<<5, 255, 0)
	}
	raw := 1 + (len(packed)-2)/3*264
	for name, r := range map[string]io.Reader{
		"plain":      io.MultiReader(bytes.NewReader(appendLength(nil, size)), io.LimitReader(zeros{}, size)),
		"compressed": bytes.NewReader(lzfOf(packed, raw)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		total, longest := 0, 0
		err := Value{Type: TypeString}.Elements(r, func(e *Element) error {
			total += len(e.Value)
			longest = max(longest, len(e.Value))
			return nil
		})
		runtime.ReadMemStats(&after)
		if err != nil || total < size || longest > pieceSize+1000 {
			t.Errorf("%s: %d bytes in pieces of up to %d, %v", name, total, longest, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, used)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

package feed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
)

// source yields data in pieces of random size and says at random whether it is ready.
type source struct {
	t     testing.TB
	data  []byte
	pos   int
	piece func() int  // bytes of the next read
	ready func() bool // asked while there is data
}

func (s *source) Ready() bool { return s.pos == len(s.data) || s.ready() }

func (s *source) Read(_ context.Context, p []byte) (int, error) {
	if len(p) == 0 {
		s.t.Fatal("the window reads into no room")
	}
	if s.pos == len(s.data) {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.piece())], s.data[s.pos:])
	s.pos += n
	return n, nil
}

// keeper stands for the reader's batches: an entry that is complete lies in the buffer until the buffer is handed on,
// and its bytes must be true then. Buffers that were handed on are spoilt, as another user may have them.
type keeper struct {
	t       testing.TB
	buf     []byte
	entries []entry
	passed  bool // something without an entry was passed since the last hand-on
	standard,
	rolls, idles, largest int
}

type entry struct {
	mark int
	want []byte
}

func newKeeper(t testing.TB, standard int) *keeper {
	return &keeper{t: t, standard: standard, buf: make([]byte, 0, standard)}
}

// sized returns an empty buffer of the standard size, or the next power of two times it with room for want.
func (k *keeper) sized(want int) []byte {
	size := k.standard
	for size < want {
		size *= 2
	}
	k.largest = max(k.largest, size)
	return make([]byte, 0, size)
}

func (k *keeper) Roll(_ context.Context, tail []byte, want int) ([]byte, error) {
	k.rolls++
	if len(k.entries) > 0 {
		return k.ship(tail, want), nil
	}
	if want <= cap(k.buf) {
		k.buf = k.buf[:copy(k.buf[:cap(k.buf)], tail)]
		return k.buf, nil
	}
	k.buf = append(k.sized(want), tail...)
	return k.buf, nil
}

func (k *keeper) Idle(_ context.Context, tail []byte) ([]byte, error) {
	k.idles++
	if len(k.entries) == 0 && !k.passed {
		return k.Roll(context.Background(), tail, len(tail))
	}
	return k.ship(tail, len(tail)), nil
}

func (k *keeper) ship(tail []byte, want int) []byte {
	next := append(k.sized(want), tail...)
	k.check()
	clear(k.buf[:cap(k.buf)])
	k.buf, k.entries, k.passed = next, nil, false
	return next
}

// check looks at the bytes of the complete entries, which the window must not have touched.
func (k *keeper) check() {
	for _, e := range k.entries {
		if got := k.buf[:cap(k.buf)][e.mark : e.mark+len(e.want)]; !bytes.Equal(got, e.want) {
			k.t.Fatalf("a complete entry of %d bytes at %d was changed", len(e.want), e.mark)
		}
	}
}

// run is a window and the trivial model of it: indices into the data.
type run struct {
	t       testing.TB
	rng     *rand.Rand
	data    []byte
	first   int64
	limit   int
	src     *source
	keep    *keeper
	w       *Window
	summed  int // bytes given to sum
	start   int // of the entry in hand
	pos     int
	must    int // bytes of the entry in hand that Keep passed while it was kept whole
	asked   int // the most bytes that the entry in hand was asked for
	history []string
}

func newRun(t testing.TB, rng *rand.Rand, data []byte, limit, standard int) *run {
	r := &run{t: t, rng: rng, data: data, first: rng.Int64N(1 << 40), limit: limit}
	most := []int{1, 7, 4 << 10, 64 << 10, 100 << 10}[rng.IntN(5)]
	data = data[:min(len(data), 2000*most)] // so many reads are enough
	r.data = data
	often := rng.IntN(3)
	r.src = &source{
		t: t, data: data,
		piece: func() int { return 1 + rng.IntN(most) },
		ready: func() bool { return often == 0 || often == 1 && rng.IntN(4) > 0 },
	}
	r.keep = newKeeper(t, standard)
	r.w = New(context.Background(), r.src, r.keep, r.first, limit, r.take)
	return r
}

// take is the window's sum.
func (r *run) take(p []byte) {
	if r.summed+len(p) > len(r.data) || !bytes.Equal(p, r.data[r.summed:r.summed+len(p)]) {
		r.fatalf("sum was given %d bytes at %d, others than were passed", len(p), r.summed)
	}
	r.summed += len(p)
}

func (r *run) fatalf(format string, args ...any) {
	r.t.Helper()
	last := r.history[max(0, len(r.history)-12):]
	r.t.Fatalf("%s (limit %d, buffers %d, at %d of %d, after %v)",
		fmt.Sprintf(format, args...), r.limit, r.keep.standard, r.pos, len(r.data), last)
}

// size of the next thing: mostly small, sometimes around the sizes that matter, rarely huge.
func (r *run) size() int {
	switch r.rng.IntN(20) {
	case 0:
		return r.rng.IntN(4 * r.keep.standard)
	case 1:
		return max(0, r.keep.standard-2+r.rng.IntN(4))
	case 2:
		return max(0, r.limit-2+r.rng.IntN(4))
	case 3:
		return max(0, cap(r.w.buf)-len(r.w.buf)-1+r.rng.IntN(3))
	case 4:
		return max(0, len(r.w.buf)-r.w.pos-1+r.rng.IntN(3))
	}
	return r.rng.IntN(200)
}

// step does something at random and compares. It reports whether the data has ended.
func (r *run) step() (done bool) {
	n := r.size()
	op := r.rng.IntN(13)
	r.history = append(r.history, fmt.Sprintf("%d:%d", op, n))
	var err error
	switch op {
	case 0, 1:
		n = 1
		r.asked = max(r.asked, r.pos-r.start+1)
		var b byte
		if b, err = r.w.Byte(); err == nil && b != r.data[r.pos] {
			r.fatalf("Byte is %d, want %d", b, r.data[r.pos])
		}
	case 2, 3, 4:
		r.asked = max(r.asked, r.pos-r.start+n)
		var p []byte
		if p, err = r.w.Next(n); err == nil && !bytes.Equal(p, r.data[r.pos:r.pos+n]) {
			r.fatalf("Next(%d) has other bytes", n)
		}
	case 5, 6, 7:
		r.asked = max(r.asked, r.pos-r.start+n)
		err = r.w.Skip(int64(n))
	case 8:
		whole := !r.w.Large()
		if err = r.w.Keep(n); err == nil && whole {
			if r.w.Large() {
				r.fatalf("Keep(%d) made the entry a large one", n)
			}
			r.must = r.pos - r.start + n
		}
	case 9:
		p := r.w.Buffered()
		if r.pos+len(p) > len(r.data) || !bytes.Equal(p, r.data[r.pos:r.pos+len(p)]) {
			r.fatalf("Buffered has other bytes")
		}
		n = min(n, len(p))
		r.w.Advance(n)
	case 10:
		r.complete()
		return false
	case 11:
		n = 1
		r.asked = max(r.asked, r.pos-r.start+1)
		var b byte
		if b, err = r.w.Peek(); err == nil {
			n = 0
			if b != r.data[r.pos] {
				r.fatalf("Peek is %d, want %d", b, r.data[r.pos])
			}
		}
	default:
		n = 0
		err = r.w.HandOn()
	}
	if err != nil {
		return r.end(n, err)
	}
	r.pos += n
	r.compare()
	return false
}

// complete ends the entry in hand, mostly with an entry in the batch.
func (r *run) complete() {
	switch {
	case r.w.Large() || r.pos == r.start || r.rng.IntN(8) == 0:
		r.keep.passed = true
	default:
		r.keep.entries = append(r.keep.entries, entry{r.w.Mark(), r.data[r.start:r.pos]})
	}
	r.keep.buf = r.w.buf // as long as the window has it
	r.w.Begin()
	r.start, r.must, r.asked = r.pos, 0, 0
	r.compare()
}

func (r *run) compare() {
	if got, want := r.w.Offset(), r.first+int64(r.pos); got != want {
		r.fatalf("Offset is %d, want %d", got, want)
	}
	if got, want := r.w.Rel(), int64(r.pos-r.start); got != want {
		r.fatalf("Rel is %d, want %d", got, want)
	}
	kept := r.w.Kept()
	look := kept
	if len(kept) > 1000 && r.rng.IntN(16) > 0 { // all of it now and then, its ends always
		look = kept[len(kept)-500:]
	}
	if at := r.start + len(kept) - len(look); len(kept) > r.pos-r.start || !bytes.Equal(look, r.data[at:at+len(look)]) {
		r.fatalf("Kept has %d bytes, others than the entry", len(kept))
	}
	if !r.w.Large() && len(kept) != r.pos-r.start || len(kept) < r.must {
		r.fatalf("Kept has %d bytes of %d, %d of them must be", len(kept), r.pos-r.start, r.must)
	}
	if r.w.Large() && r.asked <= r.limit {
		r.fatalf("an entry of %d bytes is large", r.asked)
	}
	if len(kept) > 0 && &r.w.buf[r.w.Mark()] != &kept[0] {
		r.fatalf("the buffer does not have the entry at Mark")
	}
	if r.summed > r.pos {
		r.fatalf("sum was given %d bytes", r.summed)
	}
	if r.rng.IntN(4) == 0 {
		r.w.Sync()
		if r.summed != r.pos {
			r.fatalf("after Sync sum was given %d bytes", r.summed)
		}
	}
}

// end checks the end of the stream, which was met while n bytes were asked for.
func (r *run) end(n int, err error) bool {
	want := io.ErrUnexpectedEOF
	if r.pos == r.start && r.pos == len(r.data) {
		want = io.EOF
	}
	if r.pos+n <= len(r.data) || err != want { //nolint:errorlint // it is the value itself
		r.fatalf("%v, want %v where %d bytes are asked for", err, want, n)
	}
	r.w.Sync()
	return true
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

func TestWindowAgainstModel(t *testing.T) {
	data := randomBytes(rand.New(rand.NewPCG(0, 0)), 4<<20)
	for seed := range uint64(150) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(1, seed))
			standard := []int{64, 1000, 4 << 10, 64 << 10}[rng.IntN(4)]
			limit := []int{16, standard - 1, standard, standard + 1, 3 * standard}[rng.IntN(5)]
			size := rng.IntN(min(len(data), 100*standard))
			r := newRun(t, rng, data[:size], limit, standard)
			for !r.step() {
				if len(r.history) > 200_000 {
					t.Fatal("no end")
				}
			}
			most := 4 * (limit + trust + 8*standard + scratch)
			if r.keep.largest > most {
				t.Errorf("buffers grew to %d bytes, limit %d", r.keep.largest, limit)
			}
		})
	}
}

// TestWindowEnds cuts the stream at every position of an entry that is read in every way.
func TestWindowEnds(t *testing.T) {
	data := randomBytes(rand.New(rand.NewPCG(0, 1)), 400)
	for size := range 301 {
		rng := rand.New(rand.NewPCG(2, uint64(size)))
		for _, limit := range []int{10, 1000} {
			r := newRun(t, rng, data[:size], limit, 64)
			for !r.step() {
			}
		}
	}
}

// TestWindowFullBuffer: the keeper may hand on what is complete and return a buffer that the entry in hand fills to
// its last byte. The next read must still have room.
func TestWindowFullBuffer(t *testing.T) {
	const standard = 1 << 10
	for _, tail := range []int{standard - 1, standard, standard + 1, 2 * standard} {
		for _, limit := range []int{100, 1 << 20} {
			t.Run(fmt.Sprintf("tail=%d,limit=%d", tail, limit), func(t *testing.T) {
				data := randomBytes(rand.New(rand.NewPCG(3, 3)), 200<<10)
				ready := true
				first := 16 * standard
				pieces := []int{first}
				src := &source{t: t, data: data, ready: func() bool { return ready }, piece: func() int {
					n := 1 << 20
					if len(pieces) > 0 {
						n, pieces = pieces[0], pieces[1:]
					}
					return n
				}}
				k := newKeeper(t, standard)
				k.buf = make([]byte, 0, 32*standard)
				w := New(t.Context(), src, k, 0, limit, nil)
				w.buf = k.buf
				// an entry that is complete, and one in hand that has tail bytes
				if err := w.Skip(int64(first - tail)); err != nil {
					t.Fatal(err)
				}
				k.passed = true
				w.Begin()
				if err := w.Skip(int64(tail)); err != nil {
					t.Fatal(err)
				}
				ready = false
				if err := w.Skip(100 << 10); err != nil {
					t.Fatal(err)
				}
				p, err := w.Next(10)
				if at := first + 100<<10; err != nil || !bytes.Equal(p, data[at:at+10]) {
					t.Fatalf("Next: %v", err)
				}
				if rel, want := w.Rel(), int64(tail+100<<10+10); rel != want {
					t.Errorf("Rel is %d, want %d", rel, want)
				}
			})
		}
	}
}

// TestWindowWalksInBoundedRoom: an entry of any size is walked through in a buffer that does not grow with it, and in
// few reads, also if the source is never ready.
func TestWindowWalksInBoundedRoom(t *testing.T) {
	for name, step := range map[string]func(w *Window) error{
		"Skip": func(w *Window) error { return w.Skip(8 << 20) },
		"Next": func(w *Window) error {
			for range 8 << 10 {
				if _, err := w.Next(1 << 10); err != nil {
					return err
				}
			}
			return nil
		},
		"Byte": func(w *Window) error {
			for range 8 << 20 {
				if _, err := w.Byte(); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		for _, ready := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s,ready=%t", name, ready), func(t *testing.T) {
				data := make([]byte, 9<<20)
				reads := 0
				src := &source{t: t, data: data, ready: func() bool { return ready }, piece: func() int { reads++; return 1 << 20 }}
				k := newKeeper(t, 64<<10)
				w := New(t.Context(), src, k, 0, 128<<10, nil)
				if err := step(w); err != nil {
					t.Fatal(err)
				}
				if !w.Large() || w.Rel() != 8<<20 {
					t.Errorf("large %t, %d bytes passed", w.Large(), w.Rel())
				}
				if k.largest > 1<<20 || reads > 200 {
					t.Errorf("buffer of %d bytes, %d reads", k.largest, reads)
				}
			})
		}
	}
}

// TestWindowTrustsNoLength: a wrong length must not take more memory than bytes come.
func TestWindowTrustsNoLength(t *testing.T) {
	src := &source{t: t, data: make([]byte, 3<<20), ready: func() bool { return true }, piece: func() int { return 1 << 20 }}
	k := newKeeper(t, 64<<10)
	w := New(t.Context(), src, k, 0, 128<<10, nil)
	if err := w.Keep(1 << 40); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("err = %v", err)
	}
	if k.largest > 16<<20 {
		t.Errorf("buffer of %d bytes", k.largest)
	}
}

// failing is a keeper and a source that fail on demand.
type failing struct {
	*keeper
	roll, idle, read error
}

func (f *failing) Roll(ctx context.Context, tail []byte, want int) ([]byte, error) {
	if f.roll != nil {
		return nil, f.roll
	}
	return f.keeper.Roll(ctx, tail, want)
}

func (f *failing) Idle(ctx context.Context, tail []byte) ([]byte, error) {
	if f.idle != nil {
		return nil, f.idle
	}
	return f.keeper.Idle(ctx, tail)
}

func (f *failing) Read(context.Context, []byte) (int, error) { return 0, f.read }
func (f *failing) Ready() bool                               { return false }

func TestWindowPassesErrorsOn(t *testing.T) {
	boom := errors.New("boom")
	for name, f := range map[string]*failing{
		"roll": {roll: boom}, "idle": {idle: boom}, "read": {read: boom}, "wrapped EOF": {read: fmt.Errorf("%w: %w", boom, io.EOF)},
	} {
		f.keeper = newKeeper(t, 64)
		w := New(t.Context(), f, f, 0, 100, nil)
		if _, err := w.Byte(); !errors.Is(err, boom) {
			t.Errorf("%s: Byte: %v", name, err)
		}
		if err := w.Skip(1000); !errors.Is(err, boom) {
			t.Errorf("%s: Skip: %v", name, err)
		}
	}
}

// FuzzWindow lets the fuzzer choose the seed and the sizes.
func FuzzWindow(f *testing.F) {
	data := randomBytes(rand.New(rand.NewPCG(0, 0)), 1<<20)
	f.Add(uint64(1), uint16(64), uint16(64), uint32(10000))
	f.Fuzz(func(t *testing.T, seed uint64, standard, limit uint16, size uint32) {
		standard = max(standard, 16)
		r := newRun(t, rand.New(rand.NewPCG(9, seed)), data[:int(size)%len(data)], int(limit), int(standard))
		for !r.step() {
			if len(r.history) > 50_000 {
				return
			}
		}
	})
}

// TestWindowKeepsNoMoreThanAsked: a long name stays in the buffer, but what follows it may make the entry a large one.
func TestWindowKeepsNoMoreThanAsked(t *testing.T) {
	src := &source{t: t, data: make([]byte, 4<<10), ready: func() bool { return true }, piece: func() int { return 100 }}
	w := New(t.Context(), src, newKeeper(t, 64), 0, 50, nil)
	if err := w.Keep(1000); err != nil || w.Large() || len(w.Kept()) != 1000 {
		t.Fatalf("%v, large %t, kept %d", err, w.Large(), len(w.Kept()))
	}
	if err := w.Skip(2000); err != nil || !w.Large() || len(w.Kept()) < 1000 {
		t.Errorf("%v, large %t, kept %d", err, w.Large(), len(w.Kept()))
	}
	w.Begin() // the next entry has the limit of before
	if err := w.Skip(500); err != nil || !w.Large() {
		t.Errorf("%v, large %t", err, w.Large())
	}
}

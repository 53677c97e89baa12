package haul

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const standard = BatchBytes + batchOverhead

// mustNew returns a new batch, or fails when none is to be had.
func mustNew(t *testing.T, c *Channel) *Batch {
	t.Helper()
	b, err := c.New(canceledAfter(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func canceledAfter(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// send sends b with n entries that end at offset.
func send(t *testing.T, c *Channel, b *Batch, n int, offset int64) {
	t.Helper()
	b.Entries = append(b.Entries, make([]Entry, n)...)
	b.End = Position{ReplID: "r", Offset: offset}
	if err := c.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}

func TestChannelHoldsItsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewChannel(1)
		var held []*Batch
		for range int(MinBound / standard) {
			held = append(held, mustNew(t, c))
		}
		if _, err := c.New(canceledAfter(t, time.Second)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("a batch above the bound: %v", err)
		}
		send(t, c, held[0], 2, 1)
		b := <-c.Batches()
		b.Done(1)
		if _, err := c.New(canceledAfter(t, time.Second)); err == nil {
			t.Fatal("a batch is given up before its last entry is done")
		}
		time.AfterFunc(time.Second, func() { b.Done(1) })
		start := time.Now()
		again := mustNew(t, c)
		if time.Since(start) != time.Second || again != b || len(again.Buf)+len(again.Entries) > 0 || cap(again.Buf) != BatchBytes {
			t.Errorf("after %v: %+v", time.Since(start), again)
		}
		time.AfterFunc(time.Second, func() { c.Discard(held[1]) })
		mustNew(t, c)
		cause := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		if _, err := c.New(ctx); !errors.Is(err, cause) {
			t.Errorf("New: %v", err)
		}
	})
}

func TestChannelQueueNeverWaits(t *testing.T) {
	c := NewChannel(4 << 20)
	var sent int64
	for {
		if c.share.used+standard > c.bound {
			break
		}
		sent++
		send(t, c, mustNew(t, c), 1, sent)
	}
	c.Close()
	n := int64(0)
	for b := range c.Batches() {
		n++
		if b.End.Offset != n {
			t.Errorf("batch %d ends at %d", n, b.End.Offset)
		}
		b.Done(1)
	}
	if n != sent || n != c.bound/standard || c.Watermark.Stream().Offset != n {
		t.Errorf("%d of %d, applied %v", n, sent, c.Watermark.Stream())
	}
	if c.share.used != 0 || c.share.pool.used != 0 {
		t.Error("something of the bound is still held")
	}
}

func TestGrow(t *testing.T) {
	c := NewChannel(4 << 20)
	b := mustNew(t, c)
	b.Buf = append(b.Buf, "what it held"...)
	for _, tt := range []struct {
		want, size int
		weight     int64
	}{
		{BatchBytes + 1, 2 * BatchBytes, standard + BatchBytes},
		{1 << 20, 1 << 20, standard - BatchBytes + 1<<20},
		{100 << 20, 128 << 20, 2 << 20}, // above the bound: it may not wait for what it holds itself
		{300 << 20, 512 << 20, 2 << 20},
	} {
		if err := c.Grow(canceledAfter(t, time.Minute), b, tt.want); err != nil {
			t.Fatal(err)
		}
		if cap(b.Buf) != tt.size || b.weight != tt.weight || string(b.Buf) != "what it held" {
			t.Errorf("Grow(%d): %d bytes that weigh %d", tt.want, cap(b.Buf), b.weight)
		}
	}
	send(t, c, b, 1, 1)
	(<-c.Batches()).Done(1)
	if c.share.used != 0 || c.share.pool.used != 0 {
		t.Error("something of the bound is still held")
	}
	if next := mustNew(t, c); next == b {
		t.Error("a huge batch is used again")
	}
}

// TestOversizeBatches: a reader asks for the next batch before it hands on the one in hand. It must not wait for itself
// however large both become.
func TestOversizeBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewChannel(MinBound)
		done := make(chan int)
		go func() {
			n := 0
			for b := range c.Batches() {
				n++
				time.Sleep(time.Millisecond)
				b.Done(len(b.Entries))
			}
			done <- n
		}()
		rng := rand.New(rand.NewPCG(1, 1))
		inHand := mustNew(t, c)
		for i := range 200 {
			next := mustNew(t, c)
			if err := c.Grow(canceledAfter(t, time.Minute), next, 1<<(10+rng.IntN(13))); err != nil {
				t.Fatalf("batch %d: %v", i, err)
			}
			send(t, c, inHand, 1, int64(i))
			inHand = next
		}
		c.Discard(inHand)
		c.Close()
		if n := <-done; n != 200 {
			t.Errorf("%d batches", n)
		}
		if c.share.used != 0 {
			t.Error("something of the bound is still held")
		}
	})
}

// TestGrowShedsUnusedBatches: buffers that lie ready are no part of the bound, so they go when it is needed.
func TestGrowShedsUnusedBatches(t *testing.T) {
	c := NewChannel(4 << 20)
	var all []*Batch
	for range 20 {
		all = append(all, mustNew(t, c))
	}
	for _, b := range all {
		c.Discard(b)
	}
	b := mustNew(t, c)
	if err := c.Grow(t.Context(), b, 1<<20); err != nil {
		t.Fatal(err)
	}
	if left := len(c.unused); left > 11 {
		t.Errorf("%d unused batches are left", left)
	}
}

func TestBatchParts(t *testing.T) {
	c := NewChannel(1)
	b := mustNew(t, c)
	send(t, c, b, 2, 7)
	b.Expect(3)
	for range 4 {
		b.Done(1)
		if c.Watermark.Stream().Offset == 7 {
			t.Fatal("complete before the last part")
		}
	}
	b.Done(1)
	if c.Watermark.Stream().Offset != 7 {
		t.Error("not complete")
	}
}

func TestBatchReset(t *testing.T) {
	c := NewChannel(1)
	b := mustNew(t, c)
	b.Buf = append(b.Buf, "SETkv"...)
	b.Args = append(b.Args, Span{0, 3}, Span{3, 1}, Span{4, 1})
	b.Commands = append(b.Commands, Command{Raw: Span{0, 5}, NArg: 3})
	b.Keys = append(b.Keys, Key{Name: []byte("k")})
	b.Extra = append(b.Extra, 'x')
	b.Snapshot = true
	e := Entry{N: 1, Big: &Big{}}
	if got := b.Arg(&b.CommandsOf(&e)[0], 1); string(got) != "k" || cap(got) != 1 {
		t.Errorf("argument 1 is %q with room for %d", got, cap(got))
	}
	if string(b.KeyOf(&e).Name) != "k" {
		t.Error("KeyOf is another key")
	}
	b.Entries = append(b.Entries, e)
	send(t, c, b, 0, 5)
	b.Done(1)
	again := mustNew(t, c)
	if again != b {
		t.Fatal("the batch is not used again")
	}
	if b.Snapshot || b.End != (Position{}) || len(b.Args)+len(b.Commands)+len(b.Keys)+len(b.Extra)+len(b.Entries)+len(b.Buf) > 0 {
		t.Errorf("%+v", b)
	}
	if b.Entries[:1][0].Big != nil || b.Keys[:1][0].Name != nil {
		t.Error("a batch that is used again holds what it held")
	}
}

func TestBigSection(t *testing.T) {
	big := Big{Bytes: bytes.NewReader([]byte("0123456789")), Off: 2, Len: 6}
	p := make([]byte, 4)
	if n, err := big.Section(BigSpan{1, 3}).Read(p); n != 3 || string(p[:n]) != "345" || err != nil {
		t.Errorf("%q, %v", p[:n], err)
	}
}

// TestChannelRace has many goroutines acknowledge in any order while one sends.
func TestChannelRace(t *testing.T) {
	c := NewChannel(MinBound)
	var wg sync.WaitGroup
	var acknowledged atomic.Int64
	for range 4 {
		wg.Go(func() {
			for b := range c.Batches() {
				n := len(b.Entries)
				for range n {
					b.Done(1)
				}
				acknowledged.Add(int64(n))
				_ = c.Watermark.Progress()
			}
		})
	}
	total := 0
	for i := range 2000 {
		send(t, c, mustNew(t, c), i%5, int64(i))
		total += i % 5
	}
	c.Close()
	if err := c.Watermark.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if p := c.Watermark.Progress(); c.Watermark.Stream().Offset != 1999 || p.Entries != int64(total) || !p.Oldest.IsZero() {
		t.Errorf("%v, %+v, want %d entries", c.Watermark.Stream(), p, total)
	}
}

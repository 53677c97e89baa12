package haul

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestWatermarkOrder(t *testing.T) {
	w := newWatermark()
	if w.Stream().Offset != -1 {
		t.Errorf("it begins at %v", w.Stream())
	}
	zero := w.Reached(0)
	w.Start(Position{ReplID: "r", Offset: 100, DB: 3})
	if w.Stream() != (Position{ReplID: "r", Offset: 100, DB: 3}) || !isClosed(zero) || !isClosed(w.Reached(100)) || isClosed(w.Reached(101)) {
		t.Errorf("started at %v", w.Stream())
	}
	read := time.Now()
	var tickets []*ticket
	for i := range 5 {
		x := &ticket{end: Position{ReplID: "r", Offset: 110 + 10*int64(i), DB: int32(i)}, entries: 2, read: read.Add(time.Duration(i))}
		tickets = append(tickets, x)
		w.add(x)
	}
	reached := make(map[int64]<-chan struct{})
	for off := int64(101); off <= 150; off++ {
		reached[off] = w.Reached(off)
	}
	for _, step := range []struct {
		complete int
		want     int64
		oldest   int
	}{{2, 100, 0}, {1, 100, 0}, {0, 130, 3}, {4, 130, 3}, {3, 150, -1}} {
		if err := w.Drain(canceled(errors.New("not yet"))); err == nil {
			t.Error("drained too early")
		}
		w.complete(tickets[step.complete])
		if w.Stream().Offset != step.want || w.Progress().Entries != (step.want-100)/10*2 {
			t.Errorf("after %d: %v, %+v, want %d", step.complete, w.Stream(), w.Progress(), step.want)
		}
		var oldest time.Time
		if step.oldest >= 0 {
			oldest = tickets[step.oldest].read
		}
		if !w.Progress().Oldest.Equal(oldest) {
			t.Errorf("after %d the oldest is of %v", step.complete, w.Progress().Oldest.Sub(read))
		}
		for off, ch := range reached {
			if isClosed(ch) != (off <= step.want) {
				t.Errorf("after %d, at %d: reached %d: %t", step.complete, step.want, off, isClosed(ch))
			}
		}
	}
	if err := w.Drain(t.Context()); err != nil || w.Stream().DB != 4 {
		t.Errorf("%v, %v", err, w.Stream())
	}
}

func canceled(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}

func TestWatermarkSnapshot(t *testing.T) {
	w := newWatermark()
	for range 2 { // the second time it is sent again
		a := &ticket{end: Position{Offset: 500}, entries: 3, snapshot: true}
		b := &ticket{end: Position{Offset: 900}, entries: 4, snapshot: true}
		w.add(a)
		w.add(b)
		w.complete(b)
		w.complete(a)
		if p := w.Progress(); p.SnapshotBytes != 900 || p.SnapshotKeys != 7 || p.Entries != 0 || w.Stream().Offset != -1 {
			t.Errorf("%+v, %v", p, w.Stream())
		}
		w.Restart()
		if p := w.Progress(); p.SnapshotBytes != 0 || p.SnapshotKeys != 0 {
			t.Errorf("%+v", p)
		}
	}
}

// TestWatermarkAgainstModel completes many tickets in random order.
func TestWatermarkAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(1, seed))
		w := newWatermark()
		var tickets []*ticket
		done := make(map[int]bool)
		var pending []int
		base := 0
		for len(done) < 3000 {
			if len(pending) == 0 || rng.IntN(3) > 0 && len(pending) < 1+rng.IntN(800) {
				x := &ticket{end: Position{Offset: int64(len(tickets))}, entries: 1}
				pending = append(pending, len(tickets))
				tickets = append(tickets, x)
				w.add(x)
				continue
			}
			i := rng.IntN(len(pending))
			w.complete(tickets[pending[i]])
			done[pending[i]] = true
			pending = append(pending[:i], pending[i+1:]...)
			for done[base] {
				base++
			}
			if got := w.Stream().Offset; got != int64(base-1) || w.Progress().Entries != int64(base) {
				t.Fatalf("seed %d: at %d, want %d", seed, got, base-1)
			}
		}
	}
}

func TestEmptyBatchesMoveTheWatermark(t *testing.T) {
	c := NewChannel(1)
	first := mustNew(t, c)
	send(t, c, first, 1, 10)
	send(t, c, mustNew(t, c), 0, 20)
	if c.Watermark.Stream().Offset != -1 {
		t.Errorf("an empty batch overtakes: %v", c.Watermark.Stream())
	}
	(<-c.Batches()).Done(1)
	if c.Watermark.Stream().Offset != 20 {
		t.Errorf("at %v", c.Watermark.Stream())
	}
	send(t, c, mustNew(t, c), 0, 30)
	if c.Watermark.Stream().Offset != 30 {
		t.Errorf("at %v", c.Watermark.Stream())
	}
}

func TestWaits(t *testing.T) {
	var w Waits
	w.Clear("nobody")
	w.Set("a", "first", "do this")
	since := w.List()[0].Since
	for i := range 3 {
		w.Set(fmt.Sprint("b", i), "other", "")
	}
	w.Set("a", "second", "do that")
	list := w.List()
	if len(list) != 4 || list[0] != (Wait{"a", "second", "do that", since}) {
		t.Errorf("%+v", list)
	}
	w.Clear("a")
	if list := w.List(); len(list) != 3 || list[0].Who != "b0" {
		t.Errorf("%+v", list)
	}
}

func TestExitOf(t *testing.T) {
	cause := errors.New("cause")
	err := Errorf(ExitHistoryLost, "start again", "offset %d: %w", 5, cause)
	for _, tt := range []struct {
		err  error
		want Exit
	}{
		{nil, ExitDone},
		{cause, ExitFailed},
		{err, ExitHistoryLost},
		{fmt.Errorf("link a: %w", err), ExitHistoryLost},
		{errors.Join(cause, err), ExitHistoryLost},
	} {
		if got := ExitOf(tt.err); got != tt.want {
			t.Errorf("ExitOf(%v) = %d, want %d", tt.err, got, tt.want)
		}
	}
	var e *Error
	if !errors.As(err, &e) || e.Remedy != "start again" || !errors.Is(err, cause) || err.Error() != "offset 5: cause" {
		t.Errorf("%v", err)
	}
	if p := (Position{ReplID: "abc", Offset: 7, DB: 2}).String(); p != "abc:7 db 2" {
		t.Errorf("Position: %s", p)
	}
	if DropSentinel.String() != "sentinel-hello" || DropTopology.String() != "cluster-topology" || DropNone.String() != "none" {
		t.Error("names of Drop")
	}
}

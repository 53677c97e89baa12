package aof

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestOpenSpoolWhileRunning takes copies of a spool's files at any moment, as a crash would leave them.
func TestOpenSpoolWhileRunning(t *testing.T) {
	const start = 12345
	data := testData(6 << 20)
	dir := t.TempDir()
	s := startSpool(t, SpoolConfig{Dir: dir, Window: 1 << 20, Budget: &Budget{Max: 16 << 20}}, start)
	received := make(chan struct{})
	go func() {
		defer close(received)
		rng := rand.New(rand.NewPCG(1, 1))
		for at := 0; at < len(data); at += 128 << 10 {
			s.write(rng, data[at:at+128<<10])
			time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
		}
	}()
	copies := 0
	for running := true; running; copies++ {
		select {
		case <-received:
			running = false
		default:
		}
		before := s.flushedTo()
		crashed := t.TempDir()
		if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		after := s.flushedTo()
		o, err := OpenSpool(openConfig(crashed), 7, start)
		if err != nil || o == nil && before > start {
			t.Fatalf("copy %d: %v, %v", copies, o, err)
		}
		if o == nil {
			continue
		}
		// a block may be on disk that is not noted yet
		if o.End() < before || o.End() > after+blockBytes {
			t.Fatalf("copy %d ends at %d, %d to %d was flushed", copies, o.End(), before, after)
		}
		check(t, o, start, data)
		o.Remove()
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	o := reopen(t, dir, start)
	if o.End() != start+int64(len(data)) {
		t.Errorf("after a clean stop it ends at %d", o.End())
	}
	check(t, o, start, data)
	t.Logf("%d copies", copies)
}

// TestOpenSpoolGoesOn: a reader crosses from what an earlier process left to what is received now, and trimming gives
// the old segments up.
func TestOpenSpoolGoesOn(t *testing.T) {
	const start, half = 777, 3 << 20
	data := testData(2 * half)
	dir := t.TempDir()
	cfg := SpoolConfig{Dir: dir, Window: 1 << 20, Budget: &Budget{Max: 16 << 20}}
	first := startSpool(t, cfg, start)
	first.write(rand.New(rand.NewPCG(1, 1)), data[:half])
	first.Trim(start + half) // all is acknowledged, but Run leaves what it holds
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	left := dirSize(t, dir)
	if first.budget.Used() != left || left == 0 {
		t.Fatalf("%d bytes are used, %d on disk", first.budget.Used(), left)
	}
	first.Close()

	infos, err := Segments(dir)
	if err != nil || len(infos) == 0 {
		t.Fatal(infos, err)
	}
	from := infos[0].First
	cfg = openConfig(dir)
	cfg.Budget.Max = 16 << 20
	s, err := OpenSpool(cfg, 7, from)
	if err != nil || s == nil || s.Start() != from || s.End() != start+half {
		t.Fatalf("from %d: %v, %v", from, s, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	go func() {
		_ = s.Write(ctx, data[half:])
		s.Finish()
	}()
	got, err := readAll(t.Context(), s.ReaderAt(from), 100_000)
	if err != io.EOF || !bytes.Equal(got, data[from-start:]) { //nolint:errorlint // the value itself
		t.Fatalf("read %d bytes, %v", len(got), err)
	}
	p := make([]byte, 200<<10)
	for _, off := range []int64{start + half - int64(len(p))/2, start + half - 1, start + half} {
		if n, err := s.ReadAt(p, off); n != len(p) || err != nil || !bytes.Equal(p, data[off-start:off-start+int64(n)]) {
			t.Errorf("ReadAt over the border at %d: %d, %v", off, n, err)
		}
	}
	s.Trim(start + half)
	if now, _ := Segments(dir); len(now) == 0 || now[0].First < start+half {
		t.Errorf("after Trim the first segment is %v", now)
	}
	eventually(t, "the budget is right", func() bool { return cfg.Budget.Used() == dirSize(t, dir) })
	s.Trim(s.End())
	eventually(t, "all is gone", func() bool { return cfg.Budget.Used() == 0 && len(segmentFiles(t, dir)) == 0 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestOpenSpoolTimes: how old bytes are is still known.
func TestOpenSpoolTimes(t *testing.T) {
	dir := t.TempDir()
	s := startSpool(t, SpoolConfig{Dir: dir}, 0)
	var began, flushed [3]time.Time
	for i := range began {
		began[i] = time.Now()
		if err := s.Write(t.Context(), []byte("0123456789")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is on disk", func() bool { return s.flushedTo() == int64(i+1)*10 })
		flushed[i] = time.Now()
		time.Sleep(150 * time.Millisecond)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	o := reopen(t, dir, 10)
	for i := 1; i < len(began); i++ {
		at := o.Oldest(int64(i) * 10)
		if at.Before(began[i].Add(-time.Second/10)) || at.After(flushed[i].Add(time.Second/10)) {
			t.Errorf("byte %d came at %v, it was written at %v and flushed at %v", i*10, at, began[i], flushed[i])
		}
	}
	if !o.Oldest(30).IsZero() {
		t.Error("there is an oldest byte behind the last")
	}
}

func BenchmarkOpenSpool(b *testing.B) {
	dir := b.TempDir()
	s := NewSpool(openConfig(dir), Lineage{replID, 7}, 0)
	data := testData(256 << 20)
	goOn(b, s, data)
	s.Close()
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		reopen(b, dir, 0).Close()
	}
}

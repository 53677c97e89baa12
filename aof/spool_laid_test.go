package aof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// laid is a spool on disk: some segments of some blocks of some bytes.
type laid struct {
	dir      string
	data     []byte
	segments []string // paths
}

const (
	laidStart    = 5000
	laidSegments = 3
	laidBlocks   = 4
	laidBlock    = 100
	laidFile     = segmentHeader + laidBlocks*(blockHeader+laidBlock)
	laidSegment  = laidBlocks * laidBlock
	laidEnd      = laidStart + laidSegments*laidSegment
)

func layOut(t testing.TB) laid {
	t.Helper()
	l := laid{dir: t.TempDir(), data: testData(laidEnd - laidStart)}
	at := 0
	for range laidSegments {
		g, err := createSegment(l.dir, SpoolStream, Lineage{replID, 7}, int64(laidStart+at))
		for range laidBlocks {
			if err == nil {
				err = g.appendBlock(l.data[at:at+laidBlock], int64(laidStart+at), time.Now())
			}
			g.size += blockHeader + laidBlock
			at += laidBlock
		}
		if err = errors.Join(err, g.file.Close()); err != nil {
			t.Fatal(err)
		}
		l.segments = append(l.segments, g.path)
	}
	return l
}

func openConfig(dir string) SpoolConfig {
	return SpoolConfig{Dir: dir, Kind: SpoolStream, Window: 1 << 20, Budget: &Budget{Max: 1 << 30}, Log: zerolog.Nop()}
}

// reopen opens what must be usable.
func reopen(t testing.TB, dir string, from int64) *Spool {
	t.Helper()
	s, err := OpenSpool(openConfig(dir), 7, from)
	if err != nil || s == nil {
		t.Fatalf("OpenSpool from %d: %v, %v", from, s, err)
	}
	return s
}

// check compares all that s holds with data, which begins at start, and its budget with what is on disk.
func check(t testing.TB, s *Spool, start int64, data []byte) {
	t.Helper()
	first, end := s.Start(), s.End()
	want := data[first-start : end-start]
	got := make([]byte, end-first)
	if n, err := s.ReadAt(got, first); n != len(got) || err != nil || !bytes.Equal(got, want) {
		t.Fatalf("ReadAt from %d to %d: %d bytes, %v", first, end, n, err)
	}
	r := s.ReaderAt(first)
	for done := 0; done < len(want); {
		n, err := r.Read(t.Context(), got)
		if err != nil || n == 0 || !bytes.Equal(got[:n], want[done:done+n]) {
			t.Fatalf("Read at %d: %d bytes, %v", first+int64(done), n, err)
		}
		done += n
	}
	if r.Ready() {
		t.Fatal("there is more to read behind the end")
	}
	if n, err := s.ReadAt(make([]byte, 1), end); n != 0 || err == nil {
		t.Fatalf("behind the end: %d, %v", n, err)
	}
	if size := dirSize(t, s.cfg.Dir); s.cfg.Budget.Used() != size {
		t.Fatalf("%d bytes are used, %d are on disk", s.cfg.Budget.Used(), size)
	}
}

// dirSize adds up the segments of a directory that holds one spool.
func dirSize(t testing.TB, dir string) (size int64) {
	t.Helper()
	infos, err := Segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range infos {
		size += g.Size
	}
	return size
}

// goOn receives data into s and stops.
func goOn(t testing.TB, s *Spool, data []byte) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	err := s.Write(t.Context(), data)
	cancel()
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
}

func edit(t testing.TB, path string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// snapshotDir returns the files of dir and what is in them.
func snapshotDir(t testing.TB, dir string) string {
	t.Helper()
	all := ""
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all += fmt.Sprintf("%s %x\n", e.Name(), b)
	}
	return all
}

// survives opens a damaged spool of which all up to end is good, and then goes on with it.
func survives(t *testing.T, l laid, from, end int64) {
	t.Helper()
	s := reopen(t, l.dir, from)
	if s.End() != end || s.Start() > from || from-s.Start() > laidSegment {
		t.Fatalf("from %d it holds %d to %d, want the end %d", from, s.Start(), s.End(), end)
	}
	check(t, s, laidStart, l.data)
	infos, err := Segments(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range infos {
		if g.First > end {
			t.Errorf("left behind the end %d: %s", end, g.Path)
		}
	}
	goOn(t, s, l.data[end-laidStart:])
	check(t, s, laidStart, l.data)
	s.Close()
	if s.cfg.Budget.Used() != 0 {
		t.Errorf("after Close %d bytes are used", s.cfg.Budget.Used())
	}
	again := reopen(t, l.dir, from)
	if again.End() != laidEnd {
		t.Errorf("after going on it ends at %d, want %d", again.End(), laidEnd)
	}
	check(t, again, laidStart, l.data)
	again.Remove()
	if again.cfg.Budget.Used() != 0 || dirSize(t, l.dir) != 0 {
		t.Errorf("after Remove %d bytes are used, %d on disk", again.cfg.Budget.Used(), dirSize(t, l.dir))
	}
}

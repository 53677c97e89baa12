package aof

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

const replID = "0123456789abcdef0123456789abcdef01234567"

// spoolTest is a spool whose Run runs.
type spoolTest struct {
	*Spool
	t      *testing.T
	budget *Budget
	stop   func() error // ends Run and waits for it
	cancel func()
}

func startSpool(t *testing.T, cfg SpoolConfig, start int64) *spoolTest {
	t.Helper()
	if cfg.Budget == nil {
		cfg.Budget = &Budget{Max: 1 << 30}
	}
	cfg.Log = zerolog.Nop()
	if cfg.Kind == "" {
		cfg.Kind = SpoolStream
	}
	s := &spoolTest{Spool: NewSpool(cfg, Lineage{replID, 7}, start), t: t, budget: cfg.Budget}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.cancel = cancel
	s.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { _ = s.stop() })
	return s
}

// write takes p in, in pieces of random size as a socket would give them.
func (s *spoolTest) write(rng *rand.Rand, p []byte) {
	s.t.Helper()
	for len(p) > 0 {
		room, err := s.Buffer(s.t.Context())
		if err != nil {
			s.t.Errorf("Buffer at %d: %v", s.End(), err)
			return
		}
		n := min(len(room), len(p), 1+rng.IntN(100<<10))
		copy(room, p[:n])
		s.Commit(n)
		p = p[n:]
	}
}

// eventually waits for what another goroutine does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (s *spoolTest) flushedTo() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flushed
}

func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	names := make([]string, 0, len(files))
	for _, f := range files {
		names = append(names, f.Name())
	}
	return names
}

func testData(n int) []byte {
	rng := rand.New(rand.NewPCG(5, 5))
	b := make([]byte, n)
	for i := 0; i+8 <= n; i += 8 {
		order.PutUint64(b[i:], rng.Uint64())
	}
	return b
}

func readAll(ctx context.Context, r *Reader, size int) ([]byte, error) {
	var got []byte
	p := make([]byte, size)
	for {
		n, err := r.Read(ctx, p)
		got = append(got, p[:n]...)
		if err != nil {
			return got, err
		}
	}
}

// TestSpoolReads sends bytes through memory and through disk, with a reader that keeps up and one that begins late,
// while others read anywhere.
func TestSpoolReads(t *testing.T) {
	data := testData(5 << 20)
	for _, tt := range []struct {
		name   string
		memory bool
		window int64
		late   bool
	}{
		{"memory only", true, 0, false},
		{"memory only, late", true, 0, true},
		{"large window", false, 64 << 20, false},
		{"small window", false, 256 << 10, false},
		{"small window, late", false, 256 << 10, true},
		{"no window", false, 0, false},
		{"no window, late", false, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const start = 12345
			dir := ""
			if !tt.memory {
				dir = filepath.Join(t.TempDir(), "state", "spool")
			}
			s := startSpool(t, SpoolConfig{Dir: dir, Window: tt.window}, start)
			received := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				defer close(received)
				s.write(rand.New(rand.NewPCG(1, 1)), data)
				s.Finish()
			})
			for i := range 3 {
				wg.Go(func() {
					rng := rand.New(rand.NewPCG(2, uint64(i)))
					for range 100 {
						have := int(s.End() - start)
						if have == 0 {
							continue
						}
						from := rng.IntN(have)
						p := make([]byte, rng.IntN(min(have-from, 400<<10))+1)
						n, err := s.ReadAt(p, start+int64(from))
						if err != nil || n != len(p) || !bytes.Equal(p, data[from:from+n]) {
							t.Errorf("ReadAt(%d bytes, %d) = %d, %v", len(p), from, n, err)
							return
						}
					}
				})
			}
			if tt.late {
				<-received
			}
			got, err := readAll(t.Context(), s.Reader(), 70_000)
			wg.Wait()
			if err != io.EOF || !bytes.Equal(got, data) { //nolint:errorlint // a feed.Source returns the value itself
				t.Fatalf("read %d bytes of %d, %v", len(got), len(data), err)
			}
			if s.End() != start+int64(len(data)) {
				t.Errorf("End is %d", s.End())
			}
			checkReadAtEdges(t, s.Spool, start, data)
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			if !tt.memory {
				checkModes(t, dir)
			}
			s.Remove()
			if used, left := s.budget.Used(), segmentFiles(t, dir+"/"); used != 0 || !tt.memory && len(left) > 0 {
				t.Errorf("after Remove %d bytes are used, left are %v", used, left)
			}
		})
	}
}

func checkReadAtEdges(t *testing.T, s *Spool, start int64, data []byte) {
	t.Helper()
	p := make([]byte, 10)
	end := s.End()
	if n, err := s.ReadAt(p, end-10); n != 10 || err != nil || !bytes.Equal(p, data[len(data)-10:]) {
		t.Errorf("the last bytes: %d, %v", n, err)
	}
	if n, err := s.ReadAt(p, end-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("over the end: %d, %v", n, err)
	}
	if n, err := s.ReadAt(p, start-1); n != 0 || err == nil {
		t.Errorf("before the start: %d, %v", n, err)
	}
	if n, err := s.ReadAt(nil, start); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
}

func checkModes(t *testing.T, dir string) {
	t.Helper()
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	for _, name := range segmentFiles(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestSpoolReaderWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSpool(SpoolConfig{Budget: &Budget{Max: 1 << 20}}, Lineage{}, 5)
		r := s.Reader()
		if r.Ready() {
			t.Error("ready without a byte")
		}
		time.AfterFunc(time.Second, func() { _ = s.Write(t.Context(), []byte("abc")) })
		start := time.Now()
		p := make([]byte, 2)
		if n, err := r.Read(t.Context(), p); n != 2 || err != nil || string(p) != "ab" || time.Since(start) != time.Second {
			t.Errorf("Read = %d, %v, %q after %v", n, err, p, time.Since(start))
		}
		if !r.Ready() {
			t.Error("not ready with a byte left")
		}
		if n, err := r.Read(t.Context(), p); n != 1 || err != nil || r.Ready() {
			t.Errorf("Read = %d, %v, ready %t", n, err, r.Ready())
		}
		cause := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		if n, err := r.Read(ctx, p); n != 0 || !errors.Is(err, cause) {
			t.Errorf("Read = %d, %v", n, err)
		}
		time.AfterFunc(time.Second, s.Finish)
		for range 2 {
			if n, err := r.Read(t.Context(), p); n != 0 || err != io.EOF || !r.Ready() { //nolint:errorlint // the value itself
				t.Errorf("Read = %d, %v", n, err)
			}
		}
	})
}

// TestSpoolFull: reading stops at the limit, and goes on when what is applied was trimmed.
func TestSpoolFull(t *testing.T) {
	for _, memory := range []bool{true, false} {
		for _, limit := range []int64{blockBytes, 1 << 20, 5 << 20} {
			t.Run(fmt.Sprintf("memory=%t,limit=%d", memory, limit), func(t *testing.T) {
				dir := ""
				if !memory {
					dir = t.TempDir()
				}
				s := startSpool(t, SpoolConfig{Dir: dir, Window: 256 << 10, Budget: &Budget{Max: limit}}, 0)
				piece := testData(blockBytes)
				for round := range 3 {
					var err error
					for err == nil {
						err = s.Write(t.Context(), piece)
					}
					if !errors.Is(err, ErrFull) {
						t.Fatal(err)
					}
					used := s.budget.Used()
					if most := limit + 8*blockBytes; used < limit || used > most {
						t.Errorf("round %d: full at %d bytes, limit %d", round, used, limit)
					}
					end := s.End()
					eventually(t, "all is on disk", func() bool { return memory || s.flushedTo() == end })
					if err := s.Write(t.Context(), piece); !errors.Is(err, ErrFull) {
						t.Errorf("still full, but %v", err)
					}
					half := end - used/2
					s.Trim(half)
					p := make([]byte, end-half)
					if n, err := s.ReadAt(p, half); int64(n) != end-half || err != nil {
						t.Errorf("what is not trimmed: %d, %v", n, err)
					}
					s.Trim(end + 1000)
					if left := s.budget.Used(); limit >= 1<<20 && left > limit/2 {
						t.Errorf("round %d: %d bytes of %d are used after everything is trimmed", round, left, limit)
					}
				}
				if _, err := s.ReadAt(make([]byte, 1), 0); err == nil && limit > blockBytes {
					t.Error("trimmed bytes are read")
				}
				if err := s.stop(); err != nil {
					t.Error(err)
				}
				s.Remove()
				if used := s.budget.Used(); used != 0 {
					t.Errorf("%d bytes are used in the end", used)
				}
			})
		}
	}
}

// TestSpoolFinishedLeavesNothing: a snapshot that is applied gives all of its budget back while Run still runs.
func TestSpoolFinishedLeavesNothing(t *testing.T) {
	for _, trimFirst := range []bool{true, false} {
		dir := t.TempDir()
		s := startSpool(t, SpoolConfig{Dir: dir, Kind: SpoolSnapshot, Window: 1 << 20}, 0)
		if err := s.Write(t.Context(), testData(300<<10)); err != nil {
			t.Fatal(err)
		}
		if trimFirst {
			s.Trim(300 << 10)
			s.Finish()
		} else {
			s.Finish()
			eventually(t, "all is on disk", func() bool { return s.flushedTo() == 300<<10 })
			s.Trim(300 << 10)
		}
		eventually(t, "nothing is left", func() bool { return s.budget.Used() == 0 && len(segmentFiles(t, dir)) == 0 })
	}
}

// TestSpoolDiskFails: the link is told when memory is used up, and goes on when the disk is well again.
func TestSpoolDiskFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	if err := os.WriteFile(dir, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := startSpool(t, SpoolConfig{Dir: dir, Window: 512 << 10}, 0)
	data := testData(2 << 20)
	var err error
	at := 0
	for ; err == nil && at < len(data); at += 64 << 10 {
		err = s.Write(t.Context(), data[at:at+64<<10])
	}
	at -= 64 << 10
	if !errors.Is(err, ErrFull) || s.DiskError() == nil || at < 512<<10 {
		t.Fatalf("at %d: %v, disk error %v", at, err, s.DiskError())
	}
	p := make([]byte, at)
	if n, err := s.ReadAt(p, 0); n != at || err != nil || !bytes.Equal(p, data[:at]) {
		t.Fatalf("what is in memory: %d, %v", n, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the disk is tried again", func() bool { return s.DiskError() == nil })
	if err := s.Write(t.Context(), data[at:]); err != nil {
		t.Fatal(err)
	}
	s.Finish()
	got, err := readAll(t.Context(), s.Reader(), 10_000)
	if !errors.Is(err, io.EOF) || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// TestSpoolSaysWhatIsNotOnDisk: bytes that could not be written at the end are an error of Run, and a segment without
// a block does not stay behind.
func TestSpoolSaysWhatIsNotOnDisk(t *testing.T) {
	dir := t.TempDir()
	s := startSpool(t, SpoolConfig{Dir: dir, Window: 512 << 10}, 0)
	if err := s.Write(t.Context(), []byte("first")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is on disk", func() bool { return s.flushedTo() == 5 })
	s.cancel()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	g, err := createSegment(dir, SpoolStream, Lineage{replID, 7}, 99)
	if err != nil {
		t.Fatal(err)
	}
	s.current = g
	_ = g.file.Close()
	if err := s.Write(t.Context(), []byte("second")); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(canceled()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
	if left := segmentFiles(t, dir); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// TestSpoolDamage: a block that does not hold what was written is reported with its place, never read.
func TestSpoolDamage(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"flipped":   func(b []byte) []byte { b[segmentHeader+blockHeader+1000] ^= 1; return b },
		"checksum":  func(b []byte) []byte { b[segmentHeader] ^= 1; return b },
		"offset":    func(b []byte) []byte { b[segmentHeader+8] ^= 1; return b },
		"truncated": func(b []byte) []byte { return b[:segmentHeader+100] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := startSpool(t, SpoolConfig{Dir: dir}, 1000)
			data := testData(512 << 10)
			if err := s.Write(t.Context(), data); err != nil {
				t.Fatal(err)
			}
			s.Finish()
			if err := s.stop(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, segmentFiles(t, dir)[0])
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readAll(t.Context(), s.Reader(), 1000)
			if len(got) > 0 || err == nil || err == io.EOF || //nolint:errorlint // the end of the stream is the value itself
				!strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "offset 1000") {
				t.Errorf("Read: %d bytes, %v", len(got), err)
			}
			if n, err := s.ReadAt(make([]byte, 10), 1000); n > 0 || err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("ReadAt: %d, %v", n, err)
			}
		})
	}
}

// TestSegmentFormat pins the bytes on disk: another version of this program may read them.
func TestSegmentFormat(t *testing.T) {
	for _, tt := range []struct{ kind, want string }{
		{SpoolSnapshot, "4b45594841554c0a" + "01000000" + "00000000" +
			"30313233343536373839616263646566303132333435363738396162636465663031323334353637" +
			"0700000000000000" + "3930000000000000" + "917e1682"},
		{SpoolStream, "4b45594841554c0a" + "01000000" + "01000000" +
			"30313233343536373839616263646566303132333435363738396162636465663031323334353637" +
			"0700000000000000" + "3930000000000000" + "cadaadf7"},
	} {
		dir := t.TempDir()
		g, err := createSegment(dir, tt.kind, Lineage{replID, 7}, 12345)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.appendBlock([]byte("hello"), 12345, time.UnixMilli(1_700_000_000_000)); err != nil {
			t.Fatal(err)
		}
		if err := g.file.Close(); err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("%s-7-%s-00000000000000012345.seg", tt.kind, replID)
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want := tt.want + "133007c9" + "05000000" + "3930000000000000" + "0068e5cf8b010000" + "68656c6c6f"
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.kind, got, want)
		}
	}
}

func TestSpoolSegmentsAreNamedByTheirFirstOffset(t *testing.T) {
	dir := t.TempDir()
	s := startSpool(t, SpoolConfig{Dir: dir, Budget: &Budget{Max: 16 * blockBytes}}, 50)
	if err := s.Write(t.Context(), testData(3*blockBytes)); err != nil {
		t.Fatal(err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 3 {
		want = append(want, fmt.Sprintf("stream-7-%s-%020d.seg", replID, 50+i*blockBytes))
	}
	if got := segmentFiles(t, dir); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("segments %v, want %v", got, want)
	}
	size := int64(3 * (blockBytes + blockHeader + segmentHeader))
	if used := s.budget.Used(); used != size {
		t.Errorf("%d bytes are used, want %d", used, size)
	}
}

func TestOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSpool(SpoolConfig{Budget: &Budget{Max: 1 << 20}}, Lineage{}, 100)
		began := time.Now()
		if !s.Oldest(100).IsZero() {
			t.Error("an empty spool has a byte")
		}
		for range 10 { // ten bytes in each half second
			_ = s.Write(t.Context(), make([]byte, 5))
			time.Sleep(50 * time.Millisecond)
			_ = s.Write(t.Context(), make([]byte, 5))
			time.Sleep(450 * time.Millisecond)
		}
		for _, tt := range []struct {
			off  int64
			want time.Duration
		}{{100, 0}, {105, 0}, {110, 500 * time.Millisecond}, {139, 1500 * time.Millisecond}, {199, 4500 * time.Millisecond}} {
			if got := s.Oldest(tt.off).Sub(began); got != tt.want {
				t.Errorf("Oldest(%d) is from %v, want %v", tt.off, got, tt.want)
			}
		}
		if !s.Oldest(200).IsZero() {
			t.Error("all is applied, but there is an oldest byte")
		}
		_ = s.Write(t.Context(), make([]byte, 5))
		s.Trim(205)
		if len(s.samples) > 0 {
			t.Error("Trim leaves samples of what is gone")
		}
	})
}

func TestRemoveStaleOfNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b*c")
	if err := RemoveStale(dir); err != nil {
		t.Errorf("no directory: %v", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stream-x-1.seg", "snapshot-x-2.seg", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveStale(dir); err != nil {
		t.Fatal(err)
	}
	if left := segmentFiles(t, dir); fmt.Sprint(left) != "[other]" {
		t.Errorf("left are %v", left)
	}
}

func BenchmarkSpool(b *testing.B) {
	for name, dir := range map[string]string{"memory": "", "disk": b.TempDir()} {
		b.Run(name, func(b *testing.B) {
			s := NewSpool(SpoolConfig{Dir: dir, Kind: SpoolStream, Window: 8 << 20, Budget: &Budget{Max: 1 << 40}}, Lineage{replID, 1}, 0)
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- s.Run(ctx) }()
			r := s.Reader()
			in, out := testData(64<<10), make([]byte, 64<<10)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Write(b.Context(), in); err != nil {
					b.Fatal(err)
				}
				for left := len(in); left > 0; {
					n, err := r.Read(b.Context(), out)
					if err != nil {
						b.Fatal(err)
					}
					left -= n
				}
				s.Trim(s.End())
			}
			cancel()
			<-done
			s.Remove()
		})
	}
}

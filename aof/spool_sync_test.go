package aof

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func otherID(i int) string { return strings.Repeat(fmt.Sprintf("%x", i%16), 40) }

// TestSetReplID: after a crash the spool still knows under which id the history goes on, also without a byte of it.
func TestSetReplID(t *testing.T) {
	type step struct {
		write int
		id    string
	}
	for name, tt := range map[string]struct {
		steps []step
		want  []SegmentInfo
	}{
		"same id":              {[]step{{10, ""}, {0, replID}, {10, ""}}, []SegmentInfo{{First: 0, Lineage: Lineage{replID, 7}}}},
		"in the middle":        {[]step{{10, ""}, {20, "b"}}, []SegmentInfo{{First: 0, Lineage: Lineage{replID, 7}}, {First: 10, Lineage: Lineage{"b", 7}}}},
		"without a byte":       {[]step{{10, ""}, {0, "b"}}, []SegmentInfo{{First: 0, Lineage: Lineage{replID, 7}}, {First: 10, Lineage: Lineage{"b", 7}}}},
		"twice without a byte": {[]step{{10, ""}, {0, "b"}, {0, "c"}}, []SegmentInfo{{First: 0, Lineage: Lineage{replID, 7}}, {First: 10, Lineage: Lineage{"c", 7}}}},
		"there and back":       {[]step{{10, ""}, {0, "b"}, {0, replID}, {5, ""}}, []SegmentInfo{{First: 0, Lineage: Lineage{replID, 7}}, {First: 10, Lineage: Lineage{replID, 7}}}},
		"before the first":     {[]step{{0, "b"}, {10, ""}}, []SegmentInfo{{First: 0, Lineage: Lineage{"b", 7}}}},
		"only":                 {[]step{{0, "b"}}, []SegmentInfo{{First: 0, Lineage: Lineage{"b", 7}}}},
		"often": {
			[]step{{10, ""}, {200_000, "b"}, {300_000, "c"}, {1, "d"}},
			[]SegmentInfo{
				{First: 0, Lineage: Lineage{replID, 7}},
				{First: 10, Lineage: Lineage{"b", 7}},
				{First: 200_010, Lineage: Lineage{"c", 7}},
				{First: 500_010, Lineage: Lineage{"d", 7}},
			},
		},
	} {
		for _, how := range []string{"at once", "synced between", "slowly"} {
			t.Run(name+", "+how, func(t *testing.T) {
				dir := t.TempDir()
				s := startSpool(t, SpoolConfig{Dir: dir, Window: 1 << 20}, 0)
				data := testData(600_000)
				at, id := 0, replID
				for _, step := range tt.steps {
					if step.id != "" {
						id = step.id
						s.SetReplID(id)
					}
					if got := s.Lineage(); got != (Lineage{id, 7}) {
						t.Errorf("Lineage is %v, want %s", got, id)
					}
					s.write(rand.New(rand.NewPCG(1, 1)), data[at:at+step.write])
					at += step.write
					switch how {
					case "synced between":
						if err := s.Sync(); err != nil {
							t.Fatal(err)
						}
					case "slowly":
						time.Sleep(flushEvery + flushEvery/2)
					}
				}
				if err := s.stop(); err != nil {
					t.Fatal(err)
				}
				infos, err := Segments(dir)
				if err != nil {
					t.Fatal(err)
				}
				s.Close()
				o := reopen(t, dir, 0)
				if o.End() != int64(at) || o.Lineage() != (Lineage{id, 7}) {
					t.Errorf("reopened: it ends at %d, %v; want %d, %s", o.End(), o.Lineage(), at, id)
				}
				check(t, o, 0, data)
				found := map[int64]SegmentInfo{}
				for _, g := range infos {
					found[g.First] = g
					if !strings.Contains(g.Path, g.Lineage.ReplID) {
						t.Errorf("%s has the id %s", g.Path, g.Lineage.ReplID)
					}
				}
				if len(infos) != len(tt.want) {
					t.Errorf("segments %v, want %v", infos, tt.want)
				}
				for _, w := range tt.want {
					if found[w.First].Lineage != w.Lineage {
						t.Errorf("the segment at %d has %v, want %v", w.First, found[w.First].Lineage, w.Lineage)
					}
				}
				// once more, behind what may be an empty segment
				o.SetReplID("e")
				goOn(t, o, data[at:at+100])
				check(t, o, 0, data)
				o.Close()
				o = reopen(t, dir, int64(at))
				if o.End() != int64(at)+100 || o.Lineage().ReplID != "e" {
					t.Errorf("reopened again: it ends at %d, %v", o.End(), o.Lineage())
				}
				o.Trim(o.End())
				if o.cfg.Budget.Used() != 0 || len(segmentFiles(t, dir)) != 0 {
					t.Errorf("after Trim %d bytes are used, left are %v", o.cfg.Budget.Used(), segmentFiles(t, dir))
				}
			})
		}
	}
}

// TestOpenSpoolEmptyLast: a spool that was reopened at an empty segment, and again without a byte, goes on there.
func TestOpenSpoolEmptyLast(t *testing.T) {
	dir := t.TempDir()
	s := startSpool(t, SpoolConfig{Dir: dir}, 0)
	data := testData(300)
	s.write(rand.New(rand.NewPCG(1, 1)), data[:100])
	s.SetReplID("b")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		o := reopen(t, dir, 100)
		if o.Start() > 100 || o.End() != 100 || o.Lineage().ReplID != "b" {
			t.Fatalf("it holds %d to %d of %v", o.Start(), o.End(), o.Lineage())
		}
		goOn(t, o, nil)
		check(t, o, 0, data)
		o.Close()
	}
	o := reopen(t, dir, 100)
	o.SetReplID("c")
	if err := o.Sync(); err != nil { // without Run
		t.Fatal(err)
	}
	goOn(t, o, data[100:200])
	check(t, o, 0, data)
	o.Close()
	o = reopen(t, dir, 150)
	if o.End() != 200 || o.Lineage().ReplID != "c" {
		t.Errorf("it ends at %d of %v", o.End(), o.Lineage())
	}
	o.Remove()
	if left := segmentFiles(t, dir); len(left) > 0 || o.cfg.Budget.Used() != 0 {
		t.Errorf("left are %v, %d bytes are used", left, o.cfg.Budget.Used())
	}
}

// TestNewSpoolSupersedes: a spool that is begun anew does not mix with what an earlier process left in its place.
func TestNewSpoolSupersedes(t *testing.T) {
	l := layOut(t)
	for _, other := range []struct {
		kind string
		l    Lineage
	}{{SpoolStream, Lineage{replID, 6}}, {SpoolSnapshot, Lineage{replID, 7}}} {
		g, err := createSegment(l.dir, other.kind, other.l, laidStart)
		if err = errors.Join(err, g.file.Close()); err != nil {
			t.Fatal(err)
		}
	}
	s := startSpool(t, SpoolConfig{Dir: l.dir}, laidStart-50)
	if got := segmentFiles(t, l.dir); len(got) != laidSegments+2 {
		t.Errorf("before a byte of it came, left are %v", got)
	}
	data := testData(1000)
	s.write(rand.New(rand.NewPCG(1, 1)), data)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if got := segmentFiles(t, l.dir); len(got) != 3 {
		t.Errorf("left are %v", got)
	}
	s.Close()
	o := reopen(t, l.dir, laidStart-50)
	if o.End() != laidStart+950 {
		t.Errorf("it ends at %d", o.End())
	}
	got := make([]byte, 1000)
	if _, err := o.ReadAt(got, laidStart-50); err != nil || string(got) != string(data) {
		t.Errorf("other bytes, %v", err)
	}
}

// TestSync: what was received before is on disk after it, while bytes come, ids change and segments go.
func TestSync(t *testing.T) {
	for _, kind := range []string{SpoolStream, SpoolSnapshot} {
		dir := t.TempDir()
		s := startSpool(t, SpoolConfig{Dir: dir, Kind: kind, Window: 512 << 10, Budget: &Budget{Max: 8 << 20}}, 0)
		data := testData(4 << 20)
		var wg sync.WaitGroup
		received := make(chan struct{})
		wg.Go(func() {
			defer close(received)
			rng := rand.New(rand.NewPCG(1, 1))
			for i, at := 0, 0; at < len(data); i, at = i+1, at+256<<10 {
				s.write(rng, data[at:at+256<<10])
				s.SetReplID(otherID(i))
				s.Trim(int64(at) - 1<<20)
			}
		})
		for range 2 {
			wg.Go(func() {
				for {
					before := s.End()
					if err := s.Sync(); err != nil {
						t.Error(err)
						return
					}
					if s.flushedTo() < before {
						t.Errorf("%d is on disk, %d was received before", s.flushedTo(), before)
					}
					select {
					case <-received:
						return
					default:
					}
				}
			})
		}
		wg.Wait()
		if err := s.Sync(); err != nil {
			t.Fatal(err)
		}
		s.mu.Lock()
		for _, g := range s.segments {
			if g.synced != g.size {
				t.Errorf("%s: %d of %d bytes are synced", g.path, g.synced, g.size)
			}
		}
		s.mu.Unlock()
		end := int64(len(data))
		if s.Start() > end-1<<20 || s.Start() < end-2<<20 {
			t.Errorf("Start is %d", s.Start())
		}
		check(t, s.Spool, 0, data)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if used := s.budget.Used(); used != 0 {
			t.Errorf("after Close %d bytes are used", used)
		}
	}
}

// TestStreamIsSynced: a stream's segments are synced as they are closed.
func TestStreamIsSynced(t *testing.T) {
	s := startSpool(t, SpoolConfig{Dir: t.TempDir(), Budget: &Budget{Max: 16 * blockBytes}}, 0)
	s.write(rand.New(rand.NewPCG(1, 1)), testData(5*blockBytes))
	synced := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, g := range s.segments {
			if g.synced == g.size {
				n++
			}
		}
		return n
	}
	eventually(t, "the closed ones are synced", func() bool { return synced() >= 4 })
	if err := s.stop(); err != nil || synced() != 5 {
		t.Errorf("%d are synced, %v", synced(), err)
	}
}

func TestMemoryOnly(t *testing.T) {
	budget := &Budget{Max: 1 << 20}
	s := NewSpool(SpoolConfig{Kind: SpoolStream, Budget: budget, Log: zerolog.Nop()}, Lineage{replID, 7}, 10)
	if err := s.Write(t.Context(), testData(300_000)); err != nil {
		t.Fatal(err)
	}
	s.SetReplID("b")
	if err := s.Sync(); err != nil || s.Lineage() != (Lineage{"b", 7}) || s.Start() != 10 || s.End() != 300_010 {
		t.Errorf("%v, %v, %d to %d", err, s.Lineage(), s.Start(), s.End())
	}
	s.Trim(200_000)
	if s.Start() != 10+blockBytes {
		t.Errorf("Start is %d", s.Start())
	}
	s.Close()
	if budget.Used() != 0 {
		t.Errorf("%d bytes are used", budget.Used())
	}
}

// TestReopenedDiskFails: a reopened spool whose disk takes nothing reads on as memory allows and says so, a change of id
// included.
func TestReopenedDiskFails(t *testing.T) {
	l := layOut(t)
	o := reopen(t, l.dir, laidStart)
	o.cfg.Window = 256 << 10
	moved := filepath.Join(t.TempDir(), "moved")
	if err := errors.Join(os.Rename(l.dir, moved), os.WriteFile(l.dir, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	o.SetReplID("b")
	eventually(t, "it is said", func() bool { return o.DiskError() != nil })
	if err := o.Sync(); err == nil {
		t.Error("Sync succeeds")
	}
	data := testData(200_000)
	if err := o.Write(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(l.dir), os.Rename(moved, l.dir)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the disk is tried again", func() bool { return o.DiskError() == nil })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	check(t, o, laidStart, append(l.data, data...))
	o.Close()
	o = reopen(t, l.dir, laidStart)
	if o.Lineage().ReplID != "b" || o.End() != laidEnd+int64(len(data)) {
		t.Errorf("reopened: %v, it ends at %d", o.Lineage(), o.End())
	}
}

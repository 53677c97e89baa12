package aof

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestOpenSpoolDamaged(t *testing.T) {
	cut := func(at int) func([]byte) []byte { return func(b []byte) []byte { return b[:at] } }
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x40; return b }
	}
	type row struct {
		name    string
		segment int
		change  func([]byte) []byte
		good    int // blocks of the segment that are good; -1: the file counts as missing
	}
	var rows []row
	for segment := range laidSegments {
		for _, at := range []int{0, 7, 8, 11, 12, segmentHeader - 1} {
			rows = append(rows, row{fmt.Sprint("header cut at ", at), segment, cut(at), -1})
		}
		for _, at := range []int{0, 12, 15, 16, 55, 56, 63, 64, 71, 72, 75} {
			rows = append(rows, row{fmt.Sprint("header flipped at ", at), segment, flip(at), -1})
		}
		for k := range laidBlocks {
			at := segmentHeader + k*(blockHeader+laidBlock)
			for _, i := range []int{0, 1, blockHeader - 1, blockHeader, blockHeader + 1, blockHeader + laidBlock - 1} {
				rows = append(rows, row{fmt.Sprintf("block %d cut at %d", k, i), segment, cut(at + i), k})
			}
			for _, i := range []int{0, 4, 7, 8, 15, 16, blockHeader, blockHeader + laidBlock/2, blockHeader + laidBlock - 1} {
				rows = append(rows, row{fmt.Sprintf("block %d flipped at %d", k, i), segment, flip(at + i), k})
			}
		}
		rows = append(
			rows,
			row{"whole", segment, cut(laidFile), laidBlocks},
			row{"zeros behind", segment, func(b []byte) []byte { return append(b, make([]byte, 500)...) }, laidBlocks},
			row{"version 0", segment, func(b []byte) []byte { b[8] = 0; return b }, -1},
			row{"a block twice", segment, func(b []byte) []byte { return append(b, b[len(b)-blockHeader-laidBlock:]...) }, laidBlocks},
			row{"blocks exchanged", segment, func(b []byte) []byte {
				const one = blockHeader + laidBlock
				return append(append(b[:segmentHeader:segmentHeader], b[segmentHeader+one:]...), b[segmentHeader:segmentHeader+one]...)
			}, 0},
		)
	}
	for _, tt := range rows {
		t.Run(fmt.Sprintf("segment %d/%s", tt.segment, tt.name), func(t *testing.T) {
			l := layOut(t)
			edit(t, l.segments[tt.segment], tt.change)
			end := laidStart + int64(tt.segment)*laidSegment + int64(max(tt.good, 0))*laidBlock
			if tt.name == "whole" {
				end = laidEnd
			}
			if tt.good < 0 && tt.segment == 0 {
				before := snapshotDir(t, l.dir)
				if s, err := OpenSpool(openConfig(l.dir), 7, laidStart); s != nil || err != nil || snapshotDir(t, l.dir) != before {
					t.Fatalf("OpenSpool without the first segment: %v, %v", s, err)
				}
				return
			}
			survives(t, l, laidStart, end)
		})
	}
	for segment := range laidSegments {
		t.Run(fmt.Sprint("missing segment ", segment), func(t *testing.T) {
			l := layOut(t)
			if err := os.Remove(l.segments[segment]); err != nil {
				t.Fatal(err)
			}
			if segment == 0 {
				survives(t, l, laidStart+laidSegment, laidEnd)
			} else {
				survives(t, l, laidStart, laidStart+int64(segment)*laidSegment)
			}
		})
	}
}

// TestOpenSpoolFrom opens from everywhere.
func TestOpenSpoolFrom(t *testing.T) {
	for _, from := range []int64{laidStart, laidStart + 1, laidStart + 199, laidStart + laidSegment - 1, laidStart + laidSegment, laidStart + laidSegment + 1, laidEnd - 1, laidEnd} {
		survives(t, layOut(t), from, laidEnd)
	}
	for name, tt := range map[string]struct {
		kind       string
		generation uint64
		from       int64
	}{
		"before":           {SpoolStream, 7, laidStart - 1},
		"behind":           {SpoolStream, 7, laidEnd + 1},
		"below zero":       {SpoolStream, 7, -1},
		"older generation": {SpoolStream, 6, laidStart},
		"later generation": {SpoolStream, 8, laidStart},
		"other kind":       {SpoolSnapshot, 7, laidStart},
	} {
		l := layOut(t)
		before := snapshotDir(t, l.dir)
		cfg := openConfig(l.dir)
		cfg.Kind = tt.kind
		if s, err := OpenSpool(cfg, tt.generation, tt.from); s != nil || err != nil {
			t.Errorf("%s: %v, %v", name, s, err)
		}
		if cfg.Budget.Used() != 0 || snapshotDir(t, l.dir) != before {
			t.Errorf("%s: %d bytes are used, or files are changed", name, cfg.Budget.Used())
		}
	}
	for _, dir := range []string{"", filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		if s, err := OpenSpool(openConfig(dir), 7, 0); s != nil || err != nil {
			t.Errorf("nothing in %q: %v, %v", dir, s, err)
		}
	}
}

// TestOpenSpoolNewer: what a later program wrote is refused, and all is left as it is.
func TestOpenSpoolNewer(t *testing.T) {
	for segment := range laidSegments {
		for _, short := range []bool{false, true} {
			l := layOut(t)
			edit(t, l.segments[segment], func(b []byte) []byte {
				order.PutUint32(b[8:], segmentVersion+1)
				if short {
					b = b[:12]
				}
				return b
			})
			before := snapshotDir(t, l.dir)
			if s, err := OpenSpool(openConfig(l.dir), 7, laidStart); s != nil || !errors.Is(err, ErrNewer) {
				t.Errorf("OpenSpool: %v, %v", s, err)
			}
			if _, err := Segments(l.dir); !errors.Is(err, ErrNewer) {
				t.Errorf("Segments: %v", err)
			}
			if err := RemoveStale(l.dir); !errors.Is(err, ErrNewer) {
				t.Errorf("RemoveStale: %v", err)
			}
			if snapshotDir(t, l.dir) != before {
				t.Error("files are changed")
			}
		}
	}
}

// TestOpenSpoolStray: files that do not fit are never served. They are removed if they are this generation's.
func TestOpenSpoolStray(t *testing.T) {
	for name, tt := range map[string]struct {
		kind  string
		l     Lineage
		first int64
		stays bool
		end   int64
	}{
		"other generation":       {SpoolStream, Lineage{replID, 6}, laidStart, true, laidEnd},
		"other kind":             {SpoolSnapshot, Lineage{replID, 7}, laidStart, true, laidEnd},
		"before the start":       {SpoolStream, Lineage{replID, 7}, laidStart - 100, false, laidEnd},
		"within a segment":       {SpoolStream, Lineage{replID, 7}, laidStart + laidSegment + 50, false, laidStart + 2*laidSegment},
		"behind a gap":           {SpoolStream, Lineage{replID, 7}, laidEnd + 1, false, laidEnd},
		"another id, same place": {SpoolStream, Lineage{"other", 7}, laidStart + laidSegment, false, laidStart + laidSegment},
	} {
		t.Run(name, func(t *testing.T) {
			l := layOut(t)
			g, err := createSegment(l.dir, tt.kind, tt.l, tt.first)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(g.appendBlock([]byte("stray"), tt.first, time.Now()), g.file.Close()); err != nil {
				t.Fatal(err)
			}
			s := reopen(t, l.dir, laidStart)
			if name == "another id, same place" { // nobody can tell which is right, unless the next one follows
				got := make([]byte, s.End()-laidStart)
				if _, err := s.ReadAt(got, laidStart); err != nil || s.End() != tt.end+int64(len("stray")) {
					t.Errorf("it ends at %d, %v", s.End(), err)
				}
				return
			}
			_, err = os.Stat(g.path)
			if s.End() != tt.end || (err == nil) != tt.stays {
				t.Errorf("it ends at %d, want %d; the stray file: %v", s.End(), tt.end, err)
			}
			if !tt.stays {
				check(t, s, laidStart, l.data)
			}
		})
	}
}

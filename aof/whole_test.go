package aof

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhole(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "spool")
	if w, err := ReadWhole(dir, 7); w != nil || err != nil {
		t.Errorf("without a directory: %v, %v", w, err)
	}
	for _, w := range []Whole{{7, replID, 12345, 999}, {7, replID, 0, 0}, {8, "x", 1 << 62, 1 << 61}} {
		if err := WriteWhole(dir, w); err != nil {
			t.Fatal(err)
		}
		got, err := ReadWhole(dir, w.Generation)
		if err != nil || got == nil || *got != w {
			t.Errorf("got %v, %v, want %v", got, err, w)
		}
	}
	if w, err := ReadWhole(dir, 9); w != nil || err != nil {
		t.Errorf("other generation: %v, %v", w, err)
	}
	if got := segmentFiles(t, dir); fmt.Sprint(got) != "[snapshot-7.whole snapshot-8.whole]" {
		t.Errorf("files %v", got)
	}
	checkModes(t, dir)
}

// TestWholeFormat pins the bytes on disk.
func TestWholeFormat(t *testing.T) {
	w := Whole{7, replID, 12345, 999}
	want := "keyhaul-whole 1\ngeneration 7\nreplid " + replID + "\nstream 12345\nbytes 999\ncrc 550b624b\n"
	if got := w.encode(); got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
}

// TestWholeDamaged: torn and flipped files count as absent; a later format is refused.
func TestWholeDamaged(t *testing.T) {
	dir := t.TempDir()
	w := Whole{7, replID, 12345, 999}
	good := w.encode()
	read := func(content string) (*Whole, error) {
		if err := os.WriteFile(wholePath(dir, 7), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadWhole(dir, 7)
	}
	for i := range len(good) {
		for _, bad := range []string{good[:i], good[:i] + string(good[i]^1) + good[i+1:], good[:i] + "\n" + good[i:]} {
			if got, err := read(bad); got != nil || err != nil {
				t.Fatalf("%q: %v, %v", bad, got, err)
			}
		}
	}
	valid := func(text string) string { return text + wholeCRC(text) }
	other := w
	other.Generation = 8
	for name, bad := range map[string]string{
		"twice":      good + good,
		"behind":     good + "x",
		"no fields":  valid("keyhaul-whole 1\n"),
		"version 0":  valid(strings.Replace(good[:len(good)-13], "whole 1", "whole 0", 1)),
		"leading 0":  valid(strings.Replace(good[:len(good)-13], "bytes 999", "bytes 0999", 1)),
		"generation": other.encode(),
	} {
		if got, err := read(bad); got != nil || err != nil {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	newer := valid("keyhaul-whole 2\nwho knows\n")
	if got, err := read(newer); got != nil || !errors.Is(err, ErrNewer) {
		t.Errorf("newer: %v, %v", got, err)
	}
	if err := RemoveStale(dir); !errors.Is(err, ErrNewer) {
		t.Errorf("RemoveStale: %v", err)
	}
	if b, err := os.ReadFile(wholePath(dir, 7)); err != nil || string(b) != newer {
		t.Errorf("the newer file: %q, %v", b, err)
	}
}

// TestWholeSnapshot: a snapshot that was received to its end is found again, and goes with its segments.
func TestWholeSnapshot(t *testing.T) {
	dir := t.TempDir()
	data := testData(1 << 20)
	cfg := SpoolConfig{Dir: dir, Kind: SpoolSnapshot, Window: 256 << 10}
	s := startSpool(t, cfg, 0)
	if err := s.Write(t.Context(), data); err != nil {
		t.Fatal(err)
	}
	s.Finish()
	if err := errors.Join(s.Sync(), WriteWhole(dir, Whole{7, replID, 500, s.End()}), s.stop()); err != nil {
		t.Fatal(err)
	}
	s.Close()

	cfg = openConfig(dir)
	cfg.Kind = SpoolSnapshot
	o, err := OpenSpool(cfg, 7, 0)
	if err != nil || o == nil || o.End() != int64(len(data)) {
		t.Fatal(o, err)
	}
	o.Finish()
	got, err := readAll(t.Context(), o.Reader(), 10_000)
	if !bytes.Equal(got, data) || err == nil {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	o.Remove()
	if left := segmentFiles(t, dir); len(left) > 0 || cfg.Budget.Used() != 0 {
		t.Errorf("left are %v, %d bytes are used", left, cfg.Budget.Used())
	}

	// begun anew, an earlier mark does not count for it
	if err := WriteWhole(dir, Whole{7, replID, 500, 4}); err != nil {
		t.Fatal(err)
	}
	s = startSpool(t, SpoolConfig{Dir: dir, Kind: SpoolSnapshot}, 0)
	if err := errors.Join(s.Write(t.Context(), []byte("half")), s.stop()); err != nil {
		t.Fatal(err)
	}
	if w, err := ReadWhole(dir, 7); w != nil || err != nil {
		t.Errorf("an earlier mark: %v, %v", w, err)
	}
}

func TestRemoveStale(t *testing.T) {
	if err := RemoveStale(filepath.Join(t.TempDir(), "none")); err != nil {
		t.Errorf("no directory: %v", err)
	}
	for _, tt := range []struct {
		keep []Lineage
		want string
	}{
		{nil, "[other]"},
		{[]Lineage{{"whatever", 8}}, "[other snapshot-8-b-00000000000000000000.seg snapshot-8.whole stream-8-b-00000000000000000009.seg]"},
		{[]Lineage{{"", 9}, {"", 6}}, "[other stream-6-c-00000000000000000001.seg]"},
	} {
		l := layOut(t)
		for _, g := range []struct {
			kind  string
			l     Lineage
			first int64
		}{{SpoolSnapshot, Lineage{"b", 8}, 0}, {SpoolStream, Lineage{"b", 8}, 9}, {SpoolStream, Lineage{"c", 6}, 1}} {
			s, err := createSegment(l.dir, g.kind, g.l, g.first)
			if err = errors.Join(err, s.file.Close()); err != nil {
				t.Fatal(err)
			}
		}
		for name, content := range map[string]string{
			"other": "", "stream-8-b-7.seg": "damaged", "empty.seg": "", "snapshot-3.whole": "torn",
		} {
			if err := os.WriteFile(filepath.Join(l.dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(WriteWhole(l.dir, Whole{8, "b", 9, 0}), WriteWhole(l.dir, Whole{7, replID, 9, 0})); err != nil {
			t.Fatal(err)
		}
		if infos, err := Segments(l.dir); err != nil || len(infos) != laidSegments+3 {
			t.Errorf("Segments: %v, %v", infos, err)
		}
		// a crash in the middle of WriteWhole
		if err := os.WriteFile(wholePath(l.dir, 8)+tempSuffix, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := RemoveStale(l.dir, tt.keep...); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(segmentFiles(t, l.dir)); got != tt.want {
			t.Errorf("keeping %v, left are %v, want %v", tt.keep, got, tt.want)
		}
		if err := RemoveStale(l.dir); err != nil || fmt.Sprint(segmentFiles(t, l.dir)) != "[other]" {
			t.Errorf("RemoveStale: %v, left are %v", err, segmentFiles(t, l.dir))
		}
	}
}

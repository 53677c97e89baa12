package aof

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// OpenSpool continues the spool that an earlier process left in cfg.Dir for cfg.Kind and this generation. It trusts what
// passes its checks from the segment with offset from on, up to the first block that is damaged, missing or not where
// the last one ended. That is the new spool's End: what lies behind is removed and must be fetched again, as are segments
// before the one with from. A segment whose header is damaged counts as missing.
//
// It returns nil (and no error) and changes nothing if from is not within what is trusted, its end included. It fails
// with ErrNewer, and changes nothing, if there is a segment of a later format.
func OpenSpool(cfg SpoolConfig, generation uint64, from int64) (*Spool, error) {
	if cfg.Dir == "" {
		return nil, nil
	}
	left, err := Segments(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	left = slices.DeleteFunc(left, func(g SegmentInfo) bool {
		return g.Kind != cfg.Kind || g.Lineage.Generation != generation
	})
	slices.SortFunc(left, func(a, b SegmentInfo) int { // an empty one stands before the one that goes on from it
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Size, b.Size), cmp.Compare(a.Path, b.Path))
	})
	first := -1
	for i, g := range left {
		if g.First <= from && (first < 0 || g.First > left[first].First) {
			first = i
		}
	}
	if first < 0 {
		return nil, nil
	}
	r, err := readRun(left[first:])
	if err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	if r.end < from {
		return nil, nil
	}
	gone := append(left[:first:first], left[first+len(r.segments):]...)
	s := NewSpool(cfg, Lineage{r.last().replID, generation}, left[first].First)
	if err := s.take(r, gone); err != nil {
		return nil, fmt.Errorf("opening the spool: %w", err)
	}
	return s, nil
}

// run is a sequence of good blocks without a gap, through one segment or more.
type run struct {
	segments []*segment
	samples  []sample
	end      int64
	torn     bool // the last segment holds more than its good blocks
}

func (r *run) last() *segment { return r.segments[len(r.segments)-1] }

// readRun reads files as far as they are good.
func readRun(files []SegmentInfo) (*run, error) {
	r := &run{end: files[0].First}
	buf := make([]byte, 1<<20)
	for _, f := range files {
		if f.First != r.end || r.torn {
			break
		}
		if err := r.read(f, buf); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// read appends the segment f. Reads are large: a restart waits for them.
func (r *run) read(f SegmentInfo, buf []byte) error {
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // read only
	g := &segment{path: f.Path, from: f.First, replID: f.Lineage.ReplID, size: segmentHeader, closed: true, listed: true}
	r.segments = append(r.segments, g)
	for held := 0; ; {
		n, err := file.ReadAt(buf[held:], g.size+int64(held))
		rest := buf[:held+n]
		for len(rest) >= blockHeader {
			size := int64(order.Uint32(rest[4:]))
			if size < 1 || size > blockBytes {
				r.torn = true
				return nil
			}
			if int64(len(rest)) < blockHeader+size {
				break
			}
			b := rest[:blockHeader+size]
			if !goodBlock(b, r.end) {
				r.torn = true
				return nil
			}
			g.blocks = append(g.blocks, blockRef{r.end, g.size, int32(size)})
			g.size += int64(len(b))
			r.end += size
			r.samples = append(r.samples, sample{r.end, time.UnixMilli(int64(order.Uint64(b[16:])))})
			rest = rest[len(b):]
		}
		if err != nil { // a sector that cannot be read is one that is damaged
			r.torn = len(rest) > 0 || !errors.Is(err, io.EOF)
			return nil
		}
		held = copy(buf, rest)
	}
}

// take makes the run the spool's own and removes what is gone.
func (s *Spool) take(r *run, gone []SegmentInfo) error {
	for _, g := range gone {
		if err := removeFile(g.Path); err != nil {
			return err
		}
	}
	last := r.last()
	if r.torn { // else a later start would stop here again, in front of what will be written now
		if err := os.Truncate(last.path, last.size); err != nil {
			return err
		}
		if err := syncFile(last.path); err != nil {
			return err
		}
	}
	for _, g := range r.segments {
		if len(g.blocks) > 0 || g == last { // an empty last one says the id; the next one takes its place
			s.segments = append(s.segments, g)
		} else if err := removeFile(g.path); err != nil {
			return err
		}
	}
	if err := syncFile(s.cfg.Dir); err != nil {
		return err
	}
	for _, g := range s.segments {
		s.cfg.Budget.used.Add(g.size)
	}
	for _, a := range r.samples {
		s.addSample(a)
	}
	s.end, s.flushed, s.joined = r.end, r.end, true
	return nil
}

package aof

import (
	"context"
	"errors"
	"os"
	"time"
)

// Run writes what is received to disk until ctx ends, and then what is left. It does nothing without a directory.
func (s *Spool) Run(ctx context.Context) error {
	if s.cfg.Dir == "" {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for ctx.Err() == nil {
		n, full := s.unflushed()
		switch {
		case n == 0 && full && s.current != nil:
			if err := s.closeSegment(); err != nil {
				return err
			}
			continue
		case n == 0:
			select {
			case <-s.flushable:
			case <-s.urgent:
			case <-ctx.Done():
			}
			continue
		case !full:
			timer.Reset(flushEvery)
			select {
			case <-timer.C:
			case <-s.urgent:
			case <-ctx.Done():
			}
		}
		if err := s.flush(); err != nil && s.wait(ctx, err) {
			continue
		}
	}
	return errors.Join(s.flushAll(), s.closeSegment())
}

func (s *Spool) flushAll() error {
	for {
		if n, _ := s.unflushed(); n == 0 {
			return nil
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}

// wait notes a failed write and waits before the next try.
func (s *Spool) wait(ctx context.Context, err error) bool {
	s.mu.Lock()
	first := s.diskErr == nil
	s.diskErr = err
	s.mu.Unlock()
	signal(s.writable)
	if first {
		s.cfg.Log.Error().Err(err).Str("dir", s.cfg.Dir).
			Msg("the spool cannot write to its disk; the source is read on as long as memory allows, free some space")
	}
	select {
	case <-time.After(time.Second):
		return true
	case <-ctx.Done():
		return false
	}
}

// unflushed returns how many bytes of the oldest block are not on disk, and whether it will get no more.
func (s *Spool) unflushed() (n int64, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.unflushedBlock()
	if b == nil {
		return 0, s.ended
	}
	return b.end() - s.flushed, b.full() || s.ended
}

func (s *Spool) unflushedBlock() *block {
	for i := len(s.blocks) - 1; i >= 0; i-- {
		if b := s.blocks[i]; b.off <= s.flushed {
			if b.end() > s.flushed {
				return b
			}
			if i+1 < len(s.blocks) && s.blocks[i+1].end() > s.flushed {
				return s.blocks[i+1]
			}
			return nil
		}
	}
	return nil
}

// flush writes the bytes of the oldest block that are not on disk yet.
func (s *Spool) flush() error {
	s.mu.Lock()
	b := s.unflushedBlock()
	if b == nil {
		s.mu.Unlock()
		return nil
	}
	from, to, at := s.flushed, b.end(), b.at
	p := b.data[from-b.off : to-b.off]
	s.mu.Unlock() // the bytes stay: an unflushed block is never reused
	g, err := s.segment(from)
	if err != nil {
		return err
	}
	if err := g.appendBlock(p, from, at); err != nil {
		return err
	}
	s.mu.Lock()
	size := int64(blockHeader + len(p))
	g.blocks = append(g.blocks, blockRef{from, g.size, int32(len(p))})
	g.size += size
	if len(g.blocks) == 1 {
		s.segments = append(s.segments, g)
		size += segmentHeader
	}
	s.flushed = to
	s.diskErr = nil
	s.mu.Unlock()
	s.cfg.Budget.used.Add(size)
	signal(s.writable)
	return nil
}

// segment returns the segment to write to, a new one if the last is full or old.
func (s *Spool) segment(from int64) (*segment, error) {
	limit := min(segmentBytes, s.cfg.Budget.Max/segmentShare)
	if g := s.current; g != nil && (len(g.blocks) == 0 || g.size < limit && time.Since(g.born) < segmentAge) {
		return g, nil
	}
	if err := s.closeSegment(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	g, err := createSegment(s.cfg.Dir, s.cfg.Kind, s.lineage, from)
	s.current = g
	return g, err
}

func (s *Spool) closeSegment() error {
	g := s.current
	if g == nil {
		return nil
	}
	s.current = nil
	err := g.file.Close()
	if len(g.blocks) == 0 {
		return errors.Join(err, os.Remove(g.path))
	}
	s.mu.Lock()
	g.closed = true
	s.mu.Unlock()
	s.removeTrimmed()
	return err
}

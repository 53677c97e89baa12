package aof

import (
	"context"
	"errors"
	"os"
	"time"
)

// SetReplID says that bytes received from now on belong to replication id id: the source was failed over. The segment
// being written ends there and the next one carries the id, begun at once, so that a crash before the next byte does not
// lose it. It may be called while Run runs.
func (s *Spool) SetReplID(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch n := len(s.ids); {
	case s.latestID() == id:
		return
	case s.cfg.Dir == "":
		s.lineage.ReplID = id
		return
	case n > 0 && s.ids[n-1].off == s.end:
		s.ids[n-1].id = id
	default:
		s.ids = append(s.ids, idChange{s.end, id})
	}
	signal(s.urgent)
}

func (s *Spool) latestID() string {
	if n := len(s.ids); n > 0 {
		return s.ids[n-1].id
	}
	return s.lineage.ReplID
}

// Lineage returns the history that bytes received from now on belong to.
func (s *Spool) Lineage() Lineage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Lineage{ReplID: s.latestID(), Generation: s.lineage.Generation}
}

// Run writes what is received to disk until ctx ends, and then what is left. The segments stay. It does nothing
// without a directory.
func (s *Spool) Run(ctx context.Context) error {
	if s.cfg.Dir == "" {
		<-ctx.Done()
		return nil
	}
	stopSync := s.syncClosed()
	err := s.write(ctx)
	stopSync()
	err = errors.Join(err, s.flushAll(), s.closeSegment())
	if s.cfg.Kind == SpoolStream {
		err = errors.Join(err, s.syncSegments(true))
	}
	return err
}

func (s *Spool) write(ctx context.Context) error {
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for ctx.Err() == nil {
		todo, now := s.unflushed()
		switch {
		case !todo && now:
			if err := s.closeSegment(); err != nil {
				return err
			}
			s.removeTrimmed()
			fallthrough
		case !todo:
			select {
			case <-s.flushable:
			case <-s.urgent:
			case <-ctx.Done():
			}
			continue
		case !now:
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
	return nil
}

func (s *Spool) flushAll() error {
	for {
		if todo, _ := s.unflushed(); !todo {
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

// unflushed reports whether anything is not on disk, and whether it should not wait for more.
func (s *Spool) unflushed() (todo, now bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ids) > 0 {
		return true, true
	}
	b := s.unflushedBlock()
	if b == nil {
		return false, s.ended
	}
	return true, b.full() || s.ended
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

// flush writes the bytes of the oldest block that are not on disk yet, or begins the segment of the next id.
func (s *Spool) flush() error {
	s.io.Lock()
	defer s.io.Unlock()
	s.mu.Lock()
	if len(s.ids) > 0 && s.ids[0].off == s.flushed {
		change := s.ids[0]
		s.mu.Unlock()
		return s.changeID(change)
	}
	b := s.unflushedBlock()
	if b == nil {
		s.mu.Unlock()
		return nil
	}
	from, to, at := s.flushed, b.end(), b.at
	if len(s.ids) > 0 {
		to = min(to, s.ids[0].off)
	}
	if s.since.After(at) {
		at = s.since
	}
	captured := time.Now()
	p := b.data[from-b.off : to-b.off]
	s.mu.Unlock() // the bytes stay: an unflushed block is never reused
	g, err := s.segment(from)
	if err != nil {
		return err
	}
	if err := g.appendBlock(p, from, at); err != nil {
		return err
	}
	s.list(g)
	size := int64(blockHeader + len(p))
	s.mu.Lock()
	g.blocks = append(g.blocks, blockRef{from, g.size, int32(len(p))})
	g.size += size
	s.flushed = to
	if s.end > to {
		s.since = captured
	}
	s.diskErr = nil
	s.mu.Unlock()
	s.cfg.Budget.used.Add(size)
	signal(s.writable)
	return nil
}

// changeID begins a segment of the new id behind all that is on disk.
func (s *Spool) changeID(c idChange) error {
	if err := s.closeCurrent(); err != nil {
		return err
	}
	s.dropMarker(c.off)
	g, err := s.create(Lineage{ReplID: c.id, Generation: s.lineage.Generation}, c.off)
	if err != nil {
		return err
	}
	g.marker = true
	s.list(g)
	s.mu.Lock()
	s.lineage.ReplID = c.id
	if s.ids[0] == c { // else there was yet another since
		s.ids = s.ids[1:]
	}
	s.diskErr = nil
	s.mu.Unlock()
	s.removeTrimmed()
	return nil
}

// dropMarker removes an empty segment at off: the next one takes its place.
func (s *Spool) dropMarker(off int64) {
	s.mu.Lock()
	var g *segment
	if n := len(s.segments); n > 0 && len(s.segments[n-1].blocks) == 0 && s.segments[n-1].from == off {
		g = s.segments[n-1]
		s.segments = s.segments[:n-1]
	}
	s.mu.Unlock()
	if g != nil {
		s.remove(g)
		s.release([]*segment{g})
	}
}

// list adds g to the spool's segments, unless it is among them.
func (s *Spool) list(g *segment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !g.listed {
		g.listed = true
		s.segments = append(s.segments, g)
		s.cfg.Budget.used.Add(g.size)
	}
}

// segment returns the segment to write to, a new one if the last is full or old.
func (s *Spool) segment(from int64) (*segment, error) {
	limit := min(SegmentBytes, s.cfg.Budget.Max/segmentShare)
	if g := s.current; g != nil && (len(g.blocks) == 0 || g.size < limit && time.Since(g.born) < segmentAge) {
		return g, nil
	}
	if err := s.closeCurrent(); err != nil {
		return nil, err
	}
	s.removeTrimmed()
	s.dropMarker(from)
	return s.create(s.lineage, from)
}

func (s *Spool) create(l Lineage, from int64) (*segment, error) {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if !s.joined {
		if err := removeEarlier(s.cfg.Dir, s.cfg.Kind, l.Generation); err != nil {
			return nil, err
		}
		s.joined = true
	}
	g, err := createSegment(s.cfg.Dir, s.cfg.Kind, l, from)
	s.current = g
	return g, err
}

func (s *Spool) closeSegment() error {
	s.io.Lock()
	defer s.io.Unlock()
	return s.closeCurrent()
}

// closeCurrent ends the segment being written; one that is of no use is removed. It is called with io held.
func (s *Spool) closeCurrent() error {
	g := s.current
	if g == nil {
		return nil
	}
	s.current = nil
	err := g.file.Close()
	if len(g.blocks) == 0 && !g.marker {
		return errors.Join(err, os.Remove(g.path))
	}
	s.mu.Lock()
	g.closed = true
	s.mu.Unlock()
	signal(s.syncable)
	return err
}

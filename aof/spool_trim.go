package aof

import (
	"os"
	"slices"
)

// Trim says that bytes before off are not needed any more: their segments are removed, and without a directory their
// memory is given up.
func (s *Spool) Trim(off int64) {
	s.mu.Lock()
	s.trimmed = max(s.trimmed, min(off, s.end))
	s.forget(s.trimmed)
	if s.cfg.Dir == "" {
		n := 0
		for n < len(s.blocks) && s.blocks[n].full() && s.blocks[n].end() <= s.trimmed {
			n++
		}
		s.cfg.Budget.used.Add(int64(-n) * blockBytes)
		clear(s.blocks[:n])
		s.blocks = s.blocks[n:]
	}
	s.mu.Unlock()
	s.removeTrimmed()
	signal(s.writable)
}

// removeTrimmed removes the segments of which nothing is needed any more and to which nothing more is written.
func (s *Spool) removeTrimmed() {
	s.mu.Lock()
	n := 0
	for n < len(s.segments) && s.segments[n].closed && s.segments[n].end() <= s.trimmed {
		n++
	}
	gone := slices.Clone(s.segments[:n])
	s.segments = slices.Delete(s.segments, 0, n)
	s.release(gone) // not when the files are gone: who trims at the same time is to see the room
	s.mu.Unlock()
	for _, g := range gone {
		s.remove(g)
	}
}

// release gives back what segments take of the budget.
func (s *Spool) release(segments []*segment) {
	for _, g := range segments {
		s.cfg.Budget.used.Add(-g.size)
	}
}

func (s *Spool) remove(g *segment) {
	if err := os.Remove(g.path); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("a segment of the spool could not be removed")
	}
}

// Remove deletes every segment, and what says that a snapshot is whole. Run must have returned.
func (s *Spool) Remove() {
	if s.cfg.Dir != "" && s.cfg.Kind == SpoolSnapshot {
		if err := removeFile(wholePath(s.cfg.Dir, s.Lineage().Generation)); err != nil {
			s.cfg.Log.Warn().Err(err).Msg("the mark of a whole snapshot could not be removed")
		}
	}
	gone := s.forgetAll()
	for _, g := range gone {
		s.remove(g)
	}
	s.release(gone)
}

// Close forgets the spool and gives its budget back. Its segments stay on disk for OpenSpool. Run must have returned.
func (s *Spool) Close() {
	s.release(s.forgetAll())
}

// forgetAll returns the segments, which the spool does not know any more.
func (s *Spool) forgetAll() []*segment {
	s.io.Lock()
	defer s.io.Unlock()
	if err := s.closeCurrent(); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("a segment of the spool could not be closed")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := s.segments
	s.segments = nil
	if s.cfg.Dir == "" {
		s.cfg.Budget.used.Add(-blockBytes * int64(len(s.blocks)))
	}
	s.blocks = nil
	return gone
}

package aof

import (
	"errors"
	"io/fs"
	"os"
	"sync"
)

// Sync writes what was received before the call to disk and asks the disk to keep it through a power cut, all segments
// that are not known to be kept. It may be called while Run runs.
func (s *Spool) Sync() error {
	if s.cfg.Dir == "" {
		return nil
	}
	end := s.End()
	for {
		s.mu.Lock()
		done := s.flushed >= end && (len(s.ids) == 0 || s.ids[0].off > end)
		s.mu.Unlock()
		if done {
			break
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
	return s.syncSegments(false)
}

// syncClosed starts a goroutine that syncs each segment of a stream when it is closed, and returns what ends it. Run
// itself must not wait for the disk's cache: the source would feel it.
func (s *Spool) syncClosed() (stop func()) {
	if s.cfg.Kind != SpoolStream {
		return func() {}
	}
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-s.syncable:
			case <-done:
				return
			}
			if err := s.syncSegments(true); err != nil {
				s.cfg.Log.Warn().Err(err).Msg("the spool could not be synced: a power cut may cost what is in it")
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// syncSegments syncs the segments, or those to which nothing more is written. A file is opened anew for that: fsync
// means the file, whoever wrote to it, and the segment may be closed or trimmed meanwhile.
func (s *Spool) syncSegments(closed bool) error {
	type part struct {
		g    *segment
		size int64
	}
	var parts []part
	s.mu.Lock()
	for _, g := range s.segments {
		if g.size > g.synced && (g.closed || !closed) {
			parts = append(parts, part{g, g.size})
		}
	}
	s.mu.Unlock()
	if len(parts) == 0 {
		return nil
	}
	for _, p := range parts {
		if err := syncFile(p.g.path); err != nil {
			return err
		}
	}
	if err := syncFile(s.cfg.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	for _, p := range parts {
		p.g.synced = max(p.g.synced, p.size)
	}
	s.mu.Unlock()
	return nil
}

// syncFile syncs a file, or the names in a directory. One that is gone was not needed any more.
func syncFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// removeFile removes a file that may be gone.
func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

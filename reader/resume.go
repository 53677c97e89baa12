package reader

import (
	"context"
	"errors"
	"time"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
)

// idFrom says that offsets behind `offset` belong to replication id `id`.
type idFrom struct {
	offset int64
	id     string
}

// idAt returns the replication id under which the source continues behind offset. A newer id of a lineage names all of
// its history, an older one only what is before the failover.
func (p *PSYNC) idAt(offset int64) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := len(p.ids) - 1; i > 0; i-- {
		if p.ids[i].offset < offset {
			return p.ids[i].id
		}
	}
	return p.ids[0].id
}

func (p *PSYNC) spoolConfig(kind string) aof.SpoolConfig {
	return aof.SpoolConfig{Dir: p.cfg.Dir, Kind: kind, Window: p.cfg.SpoolWindow, Budget: p.budget, Log: p.cfg.Log}
}

// removeSegments deletes what earlier runs have left of generations other than this one.
func (p *PSYNC) removeSegments(generation uint64) error {
	if p.cfg.Dir == "" {
		return nil
	}
	if err := aof.RemoveStale(p.cfg.Dir, aof.Lineage{Generation: generation}); err != nil {
		return haul.Errorf(haul.ExitUsage, "give keyhaul a state directory that it may write to, or one of its own", "spool: %w", err)
	}
	return nil
}

// restore takes up what an earlier run has left on the target and in the spool. It returns nil if only a full sync
// helps, and the number of the last generation.
func (p *PSYNC) restore() (*fullSync, uint64, error) {
	r := p.cfg.Resume
	if r == nil {
		return nil, 0, nil
	}
	if r.Again {
		return nil, r.Generation, nil
	}
	if err := p.removeSegments(r.Generation); err != nil {
		return nil, 0, err
	}
	s := &fullSync{generation: r.Generation, start: r.Start, base: r.Base, whole: make(chan struct{})}
	close(s.whole)
	var err error
	if !r.Streaming {
		s.base = r.Start
		if s.snapshot, err = p.wholeSnapshot(r); err != nil || s.snapshot == nil {
			return nil, r.Generation, err
		}
	}
	s.applied.Store(r.Streaming)
	if p.cfg.Dir != "" {
		s.stream, err = aof.OpenSpool(p.spoolConfig(aof.SpoolStream), r.Generation, s.base.Offset)
	}
	if err != nil {
		return nil, 0, haul.Errorf(haul.ExitUsage, "look at the disk of the state directory", "spool: %w", err)
	}
	if s.stream == nil {
		if p.cfg.Dir != "" {
			p.cfg.Log.Info().Int64("offset", s.base.Offset).Msg("the spool has nothing behind what the target has: the source is asked for what follows")
		}
		l := aof.Lineage{ReplID: s.base.ReplID, Generation: r.Generation}
		s.stream = aof.NewSpool(p.spoolConfig(aof.SpoolStream), l, s.base.Offset)
	}
	p.highest = max(r.Highest, s.stream.End())
	p.adopt(s, s.stream.Lineage())
	p.useful = true
	p.cfg.Log.Info().Uint64("generation", r.Generation).Int64("applied_offset", s.base.Offset).
		Int64("spooled_offset", s.stream.End()).Bool("snapshot_again", s.snapshot != nil).Msg("an earlier run is continued")
	return s, r.Generation, nil
}

// wholeSnapshot returns the snapshot that an earlier run has received to its end but not written to its end; nil if
// there is none.
func (p *PSYNC) wholeSnapshot(r *Resume) (*aof.Spool, error) {
	if p.cfg.Dir == "" {
		return nil, nil
	}
	w, err := aof.ReadWhole(p.cfg.Dir, r.Generation)
	if err != nil || w == nil || w.StreamStart != r.Start.Offset {
		return nil, err
	}
	snapshot, err := aof.OpenSpool(p.spoolConfig(aof.SpoolSnapshot), r.Generation, 0)
	if err != nil || snapshot == nil {
		return nil, err
	}
	if snapshot.End() != w.Bytes {
		snapshot.Close()
		return nil, nil
	}
	snapshot.Finish()
	return snapshot, nil
}

// keepWhole makes a snapshot that was received to its end survive a crash.
func (p *PSYNC) keepWhole(ctx context.Context, s *fullSync) error {
	if p.cfg.Dir == "" || !s.fresh {
		return nil
	}
	select {
	case <-s.whole:
	case <-ctx.Done():
		return nil
	}
	err := s.snapshot.Sync()
	if err == nil && !s.applied.Load() {
		err = aof.WriteWhole(p.cfg.Dir, aof.Whole{
			Generation: s.generation, ReplID: s.start.ReplID, StreamStart: s.start.Offset, Bytes: s.snapshot.End(),
		})
	}
	if err != nil && !s.applied.Load() {
		p.cfg.Log.Warn().Err(err).Msg("the snapshot could not be kept on disk: after a crash the source is asked for another one")
	}
	return nil
}

// again decides whether a new generation follows one that has ended with err, and how the target is made ready for it.
func (p *PSYNC) again(ctx context.Context, err error) (Clean, error) {
	var broken *snapshotLost
	switch {
	case errors.As(err, &broken):
		if p.cfg.RepeatSnapshot != RepeatFlush {
			p.cfg.Log.Warn().Msg("keys that the source deletes before the next snapshot stay on the target")
			return CleanNone, p.mayRepeat(ctx, broken)
		}
		return CleanFlush, p.mayRepeat(ctx, broken)
	case haul.ExitOf(err) != haul.ExitHistoryLost || ctx.Err() != nil:
		return CleanNone, err
	case p.cfg.OnLostHistory == LostFlush:
		return CleanFlush, p.mayRepeat(ctx, err)
	case p.cfg.OnLostHistory == LostResync:
		return CleanPrune, p.mayRepeat(ctx, err)
	}
	return CleanNone, err
}

// mayRepeat decides whether a full sync may be asked for again: each costs the source a fork.
func (p *PSYNC) mayRepeat(ctx context.Context, lost error) error {
	recent := 0
	for _, t := range p.started {
		if time.Since(t) < time.Hour {
			recent++
		}
	}
	if recent >= 2 {
		return haul.Errorf(haul.ExitFailed,
			"see the source's log; raise its repl-backlog-size, its client-output-buffer-limit for replicas and its repl-timeout, then start again in an hour",
			"two full syncs were begun within an hour, a third is not asked for: %w", lost)
	}
	p.cfg.Log.Warn().Err(lost).Msg("a new full sync is asked for")
	p.superseded.Store(true) // nobody waits for keys of the old history
	// what was read before is written first, so that the next snapshot comes after it
	if err := p.out.Watermark.Drain(ctx); err != nil {
		return err
	}
	p.out.Watermark.Restart()
	return nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/reader"
)

// ledger keeps a haul's record on the target as its generations begin and their snapshots arrive. It is the reader's
// Checkpoint.
type ledger struct {
	store  *checkpoint.Store
	lease  *checkpoint.Lease
	first  checkpoint.Record  // what a generation begins with
	keep   *checkpoint.KeySet // keys of the snapshot, where the target is cleaned by them; else nil
	dir    string             // for keep
	putOff *checkpoint.PutOff
	dbs    haul.DBMap
	told   bool // the operator wants the target emptied
	wait   int  // for so many replicas of each node before the stream begins
	waits  *haul.Waits
	log    zerolog.Logger

	// Of one link of several: its slots, and who is told when its snapshot is on the target. Else nil.
	slots     func() *topology.SlotSet
	streaming func(ctx context.Context) error
}

// Begin implements reader.Checkpoint.
func (l *ledger) Begin(ctx context.Context, start haul.Position, clean reader.Clean, syncs []time.Time) error {
	r := l.first
	r.Generation, r.Phase, r.Start = start.Generation, checkpoint.PhaseSnapshot, start
	r.Prune, r.Flush = clean == reader.CleanPrune, clean == reader.CleanFlush
	r.Syncs, r.Settled = nil, nil
	for _, t := range syncs {
		r.Syncs = append(r.Syncs, t.Unix())
	}
	if err := l.save(ctx, func(now *checkpoint.Record) { *now = r }); err != nil {
		return err
	}
	if r.Grace > 0 {
		l.putOff.Begin()
	}
	l.close()
	switch clean {
	case reader.CleanFlush:
		if err := l.mayEmpty(ctx); err != nil {
			return err
		}
		l.log.Info().Msg("the target is emptied")
		if err := l.store.Flush(ctx, l.lease.Text()); err != nil {
			return err
		}
		return l.save(ctx, func(now *checkpoint.Record) { now.Flush = false })
	case reader.CleanPrune:
		l.keep = checkpoint.NewKeySet(l.dir)
	}
	return nil
}

// mayEmpty refuses to empty a target that other hauls write to, unless the operator has just asked for it.
func (l *ledger) mayEmpty(ctx context.Context) error {
	if l.told {
		l.told = false
		return nil
	}
	others, err := l.store.Others(ctx)
	if err == nil && len(others) > 0 {
		return haul.Errorf(haul.ExitRefused, "begin under another --name, or end those hauls and run keyhaul cleanup for them",
			"the copy was broken off, and the target cannot be emptied for another one, because the hauls %v write to it as well", others)
	}
	return err
}

// Seen implements reader.Checkpoint.
func (l *ledger) Seen(db int32, name []byte) error {
	if l.keep == nil || l.dbs.Of(db) == haul.DropDB {
		return nil
	}
	return l.keep.Add(l.dbs.Of(db), name)
}

// Streaming implements reader.Checkpoint.
func (l *ledger) Streaming(ctx context.Context, at haul.Position) error {
	if l.keep != nil {
		if err := l.keep.Seal(); err != nil {
			return err
		}
		removed, err := l.store.Prune(ctx, l.keep, nil)
		if err != nil {
			return err
		}
		l.log.Info().Int64("removed", removed).Msg("keys that the source no longer has were removed from the target")
		l.close()
	}
	if err := l.store.Spread(ctx, checkpoint.Fence{Generation: at.Generation, At: at}); err != nil {
		return err
	}
	err := l.save(ctx, func(now *checkpoint.Record) {
		now.Phase, now.Start, now.Prune = checkpoint.PhaseStreaming, at, false
	})
	if err == nil && l.wait > 0 {
		err = l.replicated(ctx)
	}
	if err == nil && l.streaming != nil {
		err = l.streaming(ctx)
	}
	return err
}

// replicated waits until the replicas have what says where the stream begins: a promoted one would have to be given the
// whole copy again.
func (l *ledger) replicated(ctx context.Context) error {
	const who = "replicas of the target"
	defer l.waits.Clear(who)
	return l.store.Replicated(ctx, l.wait, func(addr string, has int64) {
		l.waits.Set(who, fmt.Sprintf("%d of %d replicas of %s have acknowledged", has, l.wait, addr),
			"bring them back, or start keyhaul with a lower --wait-replicas")
	})
}

// save changes the record, with the slots that are the link's at that time.
func (l *ledger) save(ctx context.Context, change func(r *checkpoint.Record)) error {
	return l.store.Update(ctx, func(r *checkpoint.Record) {
		change(r)
		if l.slots != nil {
			r.Slots = l.slots()
		}
	})
}

func (l *ledger) close() {
	if l.keep != nil {
		_ = l.keep.Close()
		l.keep = nil
	}
}

// resume is what the reader has to know of a state that was found on the target; nil if there is none.
func resume(st *checkpoint.State) *reader.Resume {
	if !st.Found {
		return nil
	}
	r := &reader.Resume{
		Generation: st.Record.Generation,
		Streaming:  st.Record.Phase == checkpoint.PhaseStreaming,
		Again:      st.Lost != nil || st.Record.Flush,
		Start:      st.Record.Start,
		Base:       st.Base,
		Highest:    st.Highest,
	}
	for _, t := range st.Record.Syncs {
		r.Syncs = append(r.Syncs, time.Unix(t, 0))
	}
	return r
}

// firstClean says how the target is made ready if this run begins with a full sync.
func firstClean(cfg config, st *checkpoint.State, keys int64) reader.Clean {
	switch {
	case st.Found && st.Lost != nil && cfg.OnLostHistory == string(reader.LostResync):
		return reader.CleanPrune
	case st.Found && (st.Lost != nil || ownTarget(st.Record.Began) || st.Record.Flush):
		return reader.CleanFlush // of what the unfinished copy has written
	case !st.Found && cfg.Existing == existingFlush && keys > 0:
		return reader.CleanFlush
	}
	return reader.CleanNone
}

// ownTarget reports whether a target held nothing when a haul began.
func ownTarget(b checkpoint.Began) bool {
	return b == checkpoint.BeganEmpty || b == checkpoint.BeganFlushed
}

// began says what the target holds when a haul begins.
func began(cfg config, keys int64) checkpoint.Began {
	switch {
	case keys == 0:
		return checkpoint.BeganEmpty
	case cfg.Existing == existingFlush:
		return checkpoint.BeganFlushed
	case cfg.Existing == existingSkip:
		return checkpoint.BeganSkip
	}
	return checkpoint.BeganReplace
}

// mayResume refuses what the state on the target does not allow.
func mayResume(cfg config, st *checkpoint.State) error {
	switch {
	case st.Tombstone:
		return haul.Errorf(haul.ExitRefused, "use another --name", "the haul %q was ended and cleaned up on this target", cfg.Name)
	case !st.Found:
		return nil
	case st.Record.Databases != cfg.DBs.String():
		return haul.Errorf(haul.ExitRefused, "go on with the --db-map that the haul began with, or begin under another --name",
			"the haul %q was begun with databases mapped as %q, not %q", cfg.Name, st.Record.Databases, cfg.DBs)
	case len(st.Refusals) > 0 && cfg.OnError != onErrorSkip:
		x := st.Refusals[0]
		return haul.Errorf(haul.ExitFailed,
			"mend these keys on the target, then start once with --on-error skip: that lists them in errors.log and goes on",
			"the target has refused %d commands within transactions that it applied otherwise; the first is %s of %q in database %d at offset %d: %s",
			len(st.Refusals), x.Command, x.Keys, x.DB, x.Offset, x.Error)
	}
	if policy := cfg.OnLostHistory; policy == string(reader.LostResync) || policy == string(reader.LostFlush) {
		if err := mayStartOver(cfg, st); err != nil {
			return err
		}
	} else if st.Lost != nil {
		return haul.Errorf(haul.ExitHistoryLost,
			"find out what has emptied or rolled back the target; then copy anew with --on-lost-history flush",
			"it is not known what the target has: %w", st.Lost)
	}
	return nil
}

// mayStartOver refuses to remove keys from a target that holds others than this haul's.
func mayStartOver(cfg config, st *checkpoint.State) error {
	shared := len(st.Others) > 0
	if !ownTarget(st.Record.Began) && cfg.OnLostHistory == string(reader.LostResync) || shared {
		return haul.Errorf(haul.ExitRefused, "use --on-lost-history fail",
			"--on-lost-history %s would remove keys that are not this haul's: the target held keys when it began, or other hauls write to it (%v)",
			cfg.OnLostHistory, st.Others)
	}
	return nil
}

// load reads what the target knows of the haul. It tries until ctx ends.
func (a *app) load(ctx context.Context, store *checkpoint.Store) (*checkpoint.State, error) {
	who := "checkpoint on the target"
	defer a.waits.Clear(who)
	for began := time.Now(); ; {
		st, err := store.Load(ctx)
		if err == nil {
			return st, nil
		}
		if errors.Is(err, checkpoint.ErrNewer) {
			return nil, haul.Errorf(haul.ExitRefused, "use that version, or another --name", "%w", err)
		}
		if errors.As(err, new(*haul.Error)) {
			return nil, err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if limit := a.cfg.ConnectDeadline; limit > 0 && time.Since(began) > limit {
			return nil, haul.Errorf(haul.ExitUnreachable, "look at the target and at its user's permissions; --connect-deadline is how long keyhaul waits",
				"the state of the haul cannot be read from the target: %w", err)
		}
		a.waits.Set(who, err.Error(), "none needed if the target is restarting or failing over; keyhaul keeps trying")
		a.log.Warn().Err(err).Msg("the state of the haul cannot be read from the target yet")
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

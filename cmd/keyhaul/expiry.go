package main

import (
	"context"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/reader"
)

// expiry decides how deadlines are held back. A haul keeps to what it began with, since its finish must know.
func (a *app) expiry(ctx context.Context, e *ends, st *checkpoint.State, l *ledger) error {
	if st.Lost != nil {
		l.first.Grace, l.first.Import, l.first.Finished, l.first.Finishing = 0, false, 0, ""
	}
	if e.input != nil {
		return a.expiryOfFiles(ctx, e.input, st, l)
	}
	found := st.Found && st.Lost == nil
	holdBack := !found && a.cfg.ExpiryMode == expirySource
	// In import mode a key whose deadline has passed cannot be moved to another node (MIGRATE answers NOKEY, but the slot
	// counts it): a slot of a cluster would stay open until the source deletes the key.
	importing := e.target.Product == "valkey" && e.target.AtLeast(8, 1) && !(e.target.Cluster && ownTarget(l.first.Began))
	switch {
	case found && st.Record.Finished > 0:
		a.log.Warn().Time("since", time.Unix(st.Record.Finished, 0).UTC()).
			Msg("the target has true deadlines since this haul was finished: a key that has expired there since, and that the source has renewed, may be missing")
	case found && st.Record.Import, holdBack && importing:
		ok, err := a.store.ImportMode(ctx, true)
		if err != nil {
			return err
		}
		if ok || found {
			l.first.Import = true
			if !ok { // what is there has true deadlines, and what comes must not have others
				a.log.Warn().Msg("the target may not be put into import mode any more: keys may expire there by its own clock")
			}
			return nil
		}
		a.log.Info().Msg("the target may not be put into import mode")
	}
	switch {
	case !holdBack:
	case !ownTarget(l.first.Began):
		a.log.Warn().Msg("the target holds keys that are not this haul's, whose deadlines cannot be told from put-off ones: so all deadlines are true at once, and the target's clock decides")
	case l.first.Grace == 0:
		l.first.Grace = a.cfg.ExpiryGrace.Milliseconds()
	}
	return nil
}

// expiryOfFiles decides how deadlines of files are treated. Those of snapshots are true at once: nobody renews them any
// more. An append-only file does, in what follows, and what it sets has mostly passed by now: so nothing expires before
// all of it is on the target, as servers do when they load one.
func (a *app) expiryOfFiles(ctx context.Context, in *reader.Input, st *checkpoint.State, l *ledger) error {
	found := st.Found && st.Lost == nil
	switch {
	case !in.AOF() || a.cfg.ExpiryMode != expirySource && !found:
		return nil
	case !found:
		l.first.Grace = checkpoint.GraceFar
	case st.Record.Finished > 0 && st.Record.Grace == 0:
		if st.Base.Offset < in.End() {
			a.log.Warn().Time("since", time.Unix(st.Record.Finished, 0).UTC()).
				Msg("the target has true deadlines since this haul was finished: a key that has expired there since, and that the file renews in what follows, may be missing")
		}
		l.first.Grace = checkpoint.GraceFar
		return a.store.Update(ctx, func(r *checkpoint.Record) { r.Grace = checkpoint.GraceFar })
	}
	return nil
}

// finish sets the true deadlines.
func (a *app) finish(ctx context.Context, putOff *checkpoint.PutOff) error {
	r := a.store.Record()
	if r.Grace == 0 && !r.Import {
		return nil
	}
	a.log.Info().Msg("setting the true deadlines on the target")
	return a.store.Finish(ctx, putOff, nil)
}

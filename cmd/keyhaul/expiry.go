package main

import (
	"context"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
)

// expiry decides how deadlines are held back. A haul keeps to what it began with, since its finish must know.
func (a *app) expiry(ctx context.Context, e *ends, st *checkpoint.State, l *ledger) error {
	if st.Lost != nil {
		l.first.Grace, l.first.Import, l.first.Finished, l.first.Finishing = 0, false, 0, ""
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

// finish sets the true deadlines.
func (a *app) finish(ctx context.Context, putOff *checkpoint.PutOff) error {
	r := a.store.Record()
	if r.Grace == 0 && !r.Import {
		return nil
	}
	a.log.Info().Msg("setting the true deadlines on the target")
	return a.store.Finish(ctx, putOff, nil)
}

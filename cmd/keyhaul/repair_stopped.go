package main

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/reader"
)

// stoppedSync goes on with a haul whose sync is stopped, so that keys are repaired in order with its stream. It takes the
// lease, and leaves a state that resumes like any other stop.
type stoppedSync struct {
	app  *app
	stop context.CancelCauseFunc
	life context.Context //nolint:containedctx // is done when it has ended; the cause says why
}

// beginStopped begins to go on with the haul.
func beginStopped(ctx context.Context, cfg config) (*stoppedSync, error) {
	const patience = time.Minute
	if err := cfg.needsServer("verify --repair"); err != nil {
		return nil, err
	}
	cfg.Until, cfg.HTTP, cfg.SummaryFile, cfg.DryRun, cfg.Progress = "", "", "", false, "off"
	cfg.OnLostHistory = string(reader.LostFail) // no copy is made
	if cfg.ConnectDeadline == 0 {
		cfg.ConnectDeadline = patience
	}
	ctx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	life, ended := context.WithCancelCause(context.Background())
	s := &stoppedSync{app: newApp(cfg), stop: stop, life: life}
	s.app.repairing = true
	go func() {
		err := s.app.sync(ctx)
		ended(cmp.Or(err, errSyncEnded))
	}()
	return s, nil
}

// repair is a repairOnce.
func (s *stoppedSync) repair(ctx context.Context, keys []haul.KeyName, prune bool) (repairAnswer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(s.life, func() { cancel(context.Cause(s.life)) })
	defer stop()
	a, err := s.app.monitor.repair(ctx, keys, prune)
	if s.life.Err() != nil {
		return a, context.Cause(s.life)
	}
	return a, err
}

var errSyncEnded = errors.New("the haul that is gone on with to repair keys has ended")

// close stops it, and returns when the target has what was read.
func (s *stoppedSync) close() error {
	s.stop(haul.ErrInterrupted)
	<-s.life.Done()
	if err := context.Cause(s.life); !errors.Is(err, errSyncEnded) {
		return err
	}
	return nil
}

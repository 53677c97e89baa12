package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/verify"
)

func newVerify(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove that source and target hold the same, while clients write",
		Long: `verify compares every key of source and target, while clients write to the source and a sync takes their writes to
the target. Give it the settings of the sync. A key counts as different only if that cannot be a write which is on its
way. Nothing is written without --repair, and values appear nowhere. An interrupted run is gone on with.

It exits with 0 if both hold the same, with 3 if keys differ, or changed whenever they were looked at.`,
		Example: `  keyhaul verify --source redis://old:6379 --target redis://new:6379
  keyhaul verify --config orders.toml --report differences.jsonl
  keyhaul verify --config orders.toml --mode sample=1% --max-keys-per-second 20000
  keyhaul verify --config orders.toml --watch`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, environ)
			if err != nil {
				return err
			}
			if err := cfg.needsServer("verify"); err != nil {
				return err
			}
			if cfg.Source.Files != nil {
				return usageError{errors.New("verify needs a source that is a server or a cluster")}
			}
			cfg.endWith(untilCaughtUp)
			if cfg.ConnectDeadline == 0 {
				cfg.ConnectDeadline = time.Minute
			}
			return newApp(cfg).verify(cmd.Context(), cmd.OutOrStdout())
		},
	}
	addSettings(cmd, "source.url", "target.url")
	return cmd
}

// verifyDir is the folder of a comparison in that of its haul.
const verifyDir = "verify"

// verify compares both ends.
func (a *app) verify(ctx context.Context, out io.Writer) (err error) {
	if a.log, err = newLogger(os.Stderr, a.terminal, a.cfg.LogLevel, a.cfg.LogFormat); err != nil {
		return usageError{err}
	}
	limitVerifyMemory()
	dir := ""
	if a.cfg.StateDir != "" {
		dir = filepath.Join(a.cfg.StateDir, a.cfg.Name)
	}
	if a.state, err = openState(dir, verifyDir); err != nil {
		return err
	}
	defer a.state.close()
	e := &ends{}
	if err := e.greet(ctx, a.cfg, a.source, a.target, a.waits, a.log); err != nil {
		return err
	}
	cfg, err := a.verifyConfig(ctx, e)
	if err != nil {
		return err
	}
	defer cfg.Store.Close()
	if a.cfg.Verify.Repair && !a.cfg.DryRun {
		r, refused := newRepairer(ctx, a.cfg, a.log)
		if refused != nil {
			return refused
		}
		defer func() { err = cmp.Or(err, r.Close()) }()
		cfg.Repair = r
	}
	if a.cfg.Verify.Watch {
		cfg.Dir = "" // the next watch begins anew
		return a.watch(ctx, verify.New(cfg))
	}
	v := verify.New(cfg)
	var result verify.Result
	done := errors.New("done")
	pctx, stop := context.WithCancelCause(ctx)
	defer stop(done)
	group := errgroup.Group{}
	group.Go(func() error {
		a.showVerifying(pctx, v)
		return nil
	})
	result, err = v.Run(ctx)
	stop(done)
	_ = group.Wait()
	if err != nil {
		return err
	}
	return a.conclude(out, result)
}

// verifyConfig is how both ends are compared.
func (a *app) verifyConfig(ctx context.Context, e *ends) (verify.Config, error) {
	store := checkpoint.New(checkpoint.Config{Dialer: a.target, Name: a.cfg.Name, Cluster: e.target.Cluster, Log: a.log})
	c := a.cfg.Verify
	cfg := verify.Config{
		Source: a.source, Target: a.target, SourceCluster: e.source.Cluster, TargetCluster: e.target.Cluster,
		Name: a.cfg.Name, Store: store, DBs: a.cfg.DBs,
		KeysOnly: c.KeysOnly, Sample: c.Sample, BigValue: c.BigValue, Tolerance: c.Tolerance, Settle: c.Settle,
		Passes: c.Passes, MaxRate: c.MaxRate, Unsupported: a.cfg.Unsupported != unsupportedFail,
		Dir: a.state.path, Prune: c.Prune, Log: a.log,
	}
	r, found, err := store.Look(ctx, "")
	switch {
	case err != nil:
		return cfg, err
	case !found:
		a.log.Warn().Str("name", a.cfg.Name).Msg("the target knows of no haul of this --name: what differs must do so for a while to count")
	case r.Databases != a.cfg.DBs.String():
		return cfg, haul.Errorf(haul.ExitRefused, "give the --db-map that the haul began with",
			"the haul %q was begun with databases mapped as %q, not %q", a.cfg.Name, r.Databases, a.cfg.DBs)
	}
	return cfg, nil
}

// conclude tells what was found.
func (a *app) conclude(out io.Writer, r verify.Result) error {
	if err := a.writeReport(r); err != nil {
		return err
	}
	if err := a.summarizeVerify(out, r); err != nil {
		return err
	}
	if r.Equal() {
		return nil
	}
	return haul.Errorf(haul.ExitRefused, "look into the report (--report FILE) for the keys; keyhaul verify --repair writes them anew",
		"source and target are not the same: %s", kindsText(r.ByKind, r.Uncounted))
}

// progressEvery is how often a line of progress is logged.
const progressEvery = 5 * time.Second

// showVerifying logs how far the comparison is until ctx ends.
func (a *app) showVerifying(ctx context.Context, v *verify.Verifier) {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	last, at := v.Progress(), time.Now()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		now := v.Progress()
		rate := float64(now.Keys-last.Keys) / time.Since(at).Seconds()
		last, at = now, time.Now()
		event := a.log.Info().Int("pass", now.Pass).Int64("keys", now.Keys).Int64("of_about", now.Total).
			Int64("keys_per_second", int64(rate)).Int64("looked_at_again", now.Suspects)
		if rate > 0 && now.Total > now.Keys {
			event = event.Str("eta", (time.Duration(float64(now.Total-now.Keys)/rate) * time.Second).String())
		}
		if now.Paused > 0 {
			event = event.Str("slowed", "a server answers more slowly than before")
		}
		event.Str("differences", kindsText(now.ByKind, 0)).Msg("comparing")
	}
}

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/keyhaul/keyhaul/haul"
)

func newFinish(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "finish",
		Short: "End a haul: write what is left, and set the true deadlines on the target",
		Long: `finish takes to the target what the source still has for it, sets the deadlines there that were held back while
the haul ran (--expiry-mode source), and ends import mode. Run it when the writers of the source have stopped, before
clients write to the target, with the settings that sync had. Stop the sync first: finish ends with exit code 7 as long
as it runs. It may be repeated.`,
		Example: `  keyhaul finish --source redis://old:6379 --target redis://new:6379
  keyhaul finish --config orders.toml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, environ)
			if err != nil {
				return err
			}
			if err := cfg.needsServer("finish"); err != nil {
				return err
			}
			cfg.endWith(untilCaughtUp)
			a := newApp(cfg)
			a.finishing = true
			return a.sync(cmd.Context())
		},
	}
	addSettings(cmd, "source.url", "target.url")
	return cmd
}

// endWith makes the run a one-shot.
func (c *config) endWith(until string) {
	c.Until = until
	if !c.OnErrorExplicit {
		c.OnError = onErrorStop
	}
}

func newCleanup(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cleanup",
		Short: "Remove a finished haul's own keys from the target",
		Long: `cleanup removes every key that the haul of this --name keeps for itself on the target (keyhaul:NAME:…). It cannot be
resumed then; a tombstone is left, which a later sync under that name refuses. It refuses while another keyhaul runs the
haul, and while deadlines are still held back: see keyhaul finish.`,
		Example: `  keyhaul cleanup --target redis://new:6379
  keyhaul cleanup --config orders.toml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, environ)
			if err != nil {
				return err
			}
			if err := cfg.needsServer("cleanup"); err != nil {
				return err
			}
			cfg.endWith(untilCaughtUp)
			return newApp(cfg).cleanup(cmd.Context())
		},
	}
	addSettings(cmd, "target.url")
	return cmd
}

func (a *app) cleanup(ctx context.Context) (err error) {
	if a.log, err = newLogger(a.monitor.logWriter(a.terminal), a.terminal, a.cfg.LogLevel, a.cfg.LogFormat); err != nil {
		return usageError{err}
	}
	e := &ends{}
	if err := meetOne(ctx, a.cfg, "target", a.target, &e.target, a.waits, a.log); err != nil {
		return err
	}
	a.openStore(e.target.Cluster, nil)
	defer a.store.Close()
	st, err := a.load(ctx, a.store)
	switch {
	case err != nil:
		return err
	case !st.Found:
		return haul.Errorf(haul.ExitRefused, "look at --name and --target", "the target knows of no haul %q", a.cfg.Name)
	case st.Record.Grace > 0 || st.Record.Import:
		return haul.Errorf(haul.ExitRefused, "run keyhaul finish first", "deadlines on the target are still held back")
	}
	if err := a.acquire(ctx); err != nil {
		return err
	}
	err = a.hold(ctx, func(ctx context.Context) error {
		removed, err := a.store.Cleanup(ctx)
		if err == nil {
			fmt.Printf("removed %d keys of haul %q\n", removed, a.cfg.Name)
		}
		return err
	})
	return err
}

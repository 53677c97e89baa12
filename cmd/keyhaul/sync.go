package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/keyhaul/keyhaul/filter"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/reader"
	"github.com/keyhaul/keyhaul/writer"
)

func newSync(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Copy a live data set to another server or cluster, then follow its writes",
		Long: `sync reads a snapshot of the source and then its stream of writes, as a replica does, and writes both to the
target. Without --until it follows the source until it is stopped; with --until caught-up it ends once the target has
everything that the source had when its snapshot was complete.`,
		Example: `  keyhaul sync --source redis://old:6379 --target redis://new:6379 --until caught-up
  keyhaul sync --source rediss://user:pw@old:6380 --source-tls-ca ca.pem --target redis://node1:7000,node2:7001
  KEYHAUL_SOURCE_PASSWORD=… keyhaul sync --config one-shot.toml
  keyhaul sync --source unix:///run/redis.sock --target redis://new:6379 --dry-run`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, environ)
			if err != nil {
				return err
			}
			return newApp(cfg).sync(cmd.Context())
		},
	}
	addSettings(cmd, "source.url", "target.url")
	return cmd
}

// app is one run of sync.
type app struct {
	cfg      config
	log      zerolog.Logger
	terminal bool
	state    stateDir
	waits    *haul.Waits
	source   *topology.Dialer
	target   *topology.Dialer
	monitor  *monitor
}

func newApp(cfg config) *app {
	a := &app{cfg: cfg, waits: &haul.Waits{}, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	a.source, a.target = topology.NewDialer(cfg.Source), topology.NewDialer(cfg.Target)
	a.source.ClientName, a.target.ClientName = "keyhaul:"+cfg.Name, "keyhaul:"+cfg.Name
	a.monitor = newMonitor(cfg, a.waits)
	return a
}

// headroom is what keyhaul may use beside the bounded channel before Go collects more eagerly: the spool's window,
// sockets, the program itself.
const headroom = 36 << 20

func (a *app) sync(ctx context.Context) (err error) {
	if a.log, err = newLogger(a.monitor.logWriter(a.terminal), a.terminal, a.cfg.LogLevel, a.cfg.LogFormat); err != nil {
		return usageError{err}
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(a.cfg.Buffer.MaxBytes + headroom)
	}
	if a.state, err = openState(a.cfg.StateDir, a.cfg.Name); err != nil {
		return err
	}
	defer a.state.close()
	a.state.forgetHTTPAddr() // of a process that was killed
	defer a.state.forgetHTTPAddr()
	server, err := a.serveHTTP(ctx)
	if err != nil {
		return err
	}
	defer server.stop()
	started := time.Now()
	err = a.haul(ctx)
	if link := a.monitor.status().Links[0]; errors.Is(err, haul.ErrInterrupted) && !a.cfg.OneShot() && link.SnapshotDone {
		err = a.stopped(err, link)
	}
	if sumErr := a.summarize(started, err); sumErr != nil && err == nil {
		err = sumErr
	}
	return err
}

// stopped says how a daemon that was told to stop leaves the target.
func (a *app) stopped(err error, link haul.LinkStatus) error {
	var failed *haul.Error
	switch {
	case errors.As(err, &failed):
		return err
	case errors.Is(err, haul.ErrNotDrained):
		a.log.Warn().Int64("lag_bytes", link.LagBytes).Int64("applied_offset", link.Applied).
			Msg("stopped at the drain deadline: the target lacks what the source wrote behind the applied offset")
	default:
		a.log.Info().Msg("stopped; the target holds everything up to the applied offset")
	}
	return nil
}

// haul meets both ends, builds the pipeline and runs it.
func (a *app) haul(ctx context.Context) error {
	e, err := meet(ctx, a.cfg, a.source, a.target, a.waits, a.log)
	if err != nil {
		return err
	}
	if err := e.existing(a.cfg); err != nil {
		return err
	}
	plan := e.plan(a.cfg)
	if a.cfg.DryRun {
		for _, line := range plan {
			fmt.Println(line)
		}
		return nil
	}
	for _, line := range plan {
		a.log.Info().Msg(line)
	}
	if a.cfg.Existing == existingFlush && e.keys > 0 {
		if err := e.flush(ctx, a.target); err != nil {
			return err
		}
	}
	h, err := a.pipeline(e)
	if err != nil {
		return err
	}
	a.monitor.begin(h.Reader, h.Writer, a.log, a.terminal)
	defer a.monitor.end()
	return h.Run(ctx)
}

func (a *app) pipeline(e *ends) (*haul.Haul, error) {
	cfg := a.cfg
	spoolMax := cfg.Spool.MaxBytes
	spoolDir := ""
	if a.state.path != "" {
		spoolDir = reader.SpoolDir(a.state.path)
	}
	if spoolMax == 0 {
		var err error
		if spoolMax, err = spoolLimit(a.state.path, cfg.Buffer.MaxBytes); err != nil {
			return nil, err
		}
	}
	repeat := reader.RepeatOver
	if e.keys == 0 || cfg.Existing == existingFlush {
		repeat = reader.RepeatFlush
	}
	existing := writer.ExistingReplace
	if cfg.Existing == existingSkip {
		existing = writer.ExistingSkip
	}
	const window = 4 << 20
	lanes := cfg.SnapshotLanes
	if lanes == 0 {
		lanes = 2
	}
	return &haul.Haul{
		Reader: reader.NewPSYNC(reader.PSYNCConfig{
			Dialer: a.source, Dir: spoolDir, SpoolMax: spoolMax, SpoolWindow: window,
			Retain: cfg.Spool.Retain, RetainBytes: cfg.Spool.RetainBytes,
			ReplyTimeout: cfg.ReplyTimeout, Until: reader.Until(cfg.Until), Patience: cfg.ConnectDeadline, AckReceived: cfg.Ack == ackReceived,
			RepeatSnapshot: repeat, Waits: a.waits, Log: a.log,
		}),
		Writer: writer.New(writer.Config{
			Dialer: a.target, Node: e.target, Filters: []haul.Filter{filter.NewHousekeeping()},
			Existing: existing, OnError: writer.OnError(cfg.OnError), MaxSkipped: int64(cfg.MaxSkipped),
			ErrorsLog: a.state.file("errors.log"), SnapshotLanes: lanes,
			ReplyTimeout: cfg.ReplyTimeout, Keepalive: cfg.Keepalive.Enabled, PingInterval: cfg.Keepalive.Interval,
			Waits: a.waits, Log: a.log,
		}),
		Channel:       haul.NewChannel(cfg.Buffer.MaxBytes),
		DrainDeadline: cfg.DrainDeadline,
	}, nil
}

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"github.com/keyhaul/keyhaul/checkpoint"
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
	store    *checkpoint.Store
	lease    *checkpoint.Lease
	began    checkpoint.Record // what the target knew of the haul when the last pipeline ended
	received int64             // the highest offset that was read
	putOff   *checkpoint.PutOff
	ran      bool // a pipeline has run: what it has sent may still be carried out
	monitor  *monitor

	finishing bool // this is keyhaul finish
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
const headroom = 42 << 20

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
	a.putOff = checkpoint.NewPutOff(a.state.path)
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
	if r := a.began; r.Grace > 0 || r.Import {
		a.log.Info().Msg("deadlines on the target are still held back; the same command goes on where it stopped, keyhaul finish ends the haul")
	}
	return nil
}

// haul meets both ends and takes the source to the target, for as long as this process may write there.
func (a *app) haul(ctx context.Context) error {
	e, err := meet(ctx, a.cfg, a.source, a.target, a.waits, a.log)
	if err != nil {
		return err
	}
	a.openStore(e)
	defer a.store.Close()
	st, err := a.load(ctx)
	if err != nil {
		return err
	}
	if err := e.mayBegin(ctx, a.cfg, a.target, st); err != nil {
		return err
	}
	if a.finishing && (!st.Found || st.Record.Phase != checkpoint.PhaseStreaming) {
		return haul.Errorf(haul.ExitRefused, "look at --name and --target; keyhaul sync makes the copy",
			"the target has no complete copy of a haul %q", a.cfg.Name)
	}
	plan := e.plan(a.cfg, st)
	if a.cfg.DryRun {
		for _, line := range plan {
			fmt.Println(line)
		}
		return nil
	}
	for _, line := range plan {
		a.log.Info().Msg(line)
	}
	if e.noTransactions != nil {
		a.log.Warn().Err(e.noTransactions).Msg("the target has no transactions over several keys: those of the source are not atomic there, and two keyhauls of this name must not be started at the same moment")
	}
	for {
		if err := a.acquire(ctx); err != nil {
			return err
		}
		a.putOff.Forget() // another worker may have written since
		err := a.hold(ctx, func(ctx context.Context) error { return a.follow(ctx, e) })
		if errors.Is(err, checkpoint.ErrGone) {
			a.log.Error().Msg("the target has lost the lease: it was emptied, or lost its data")
			continue // what else it has lost is seen then
		}
		if !errors.Is(err, checkpoint.ErrTaken) {
			return err
		}
		if a.cfg.OneShot() {
			return haul.Errorf(haul.ExitHeld, "stop one of the two", "another keyhaul has taken this haul over: %w", err)
		}
		a.log.Warn().Msg("another keyhaul has taken this haul over; this one stands by")
	}
}

// openStore gives this process a name on the target, by which the next one finds its connections.
func (a *app) openStore(e *ends) {
	worker := rand.Text()[:12]
	a.target.ClientName = checkpoint.Prefix + a.cfg.Name + ":" + worker
	a.store = checkpoint.New(checkpoint.Config{Dialer: a.target, Name: a.cfg.Name, Cluster: e.target.Cluster, NoTransactions: e.noTransactions != nil, Log: a.log})
	a.lease = checkpoint.NewLease(checkpoint.LeaseConfig{Store: a.store, Worker: worker, Log: a.log})
}

// acquire takes the lease. A daemon stands by as long as another one has it.
func (a *app) acquire(ctx context.Context) error {
	const who = "lease"
	defer a.waits.Clear(who)
	defer a.monitor.standby(false)
	return a.lease.Acquire(ctx, !a.cfg.OneShot(), func(worker string) {
		a.monitor.standby(true)
		a.waits.Set(who, "another keyhaul (worker "+worker+") runs this haul", "none needed: this one takes over when that one ends")
		a.log.Info().Str("worker", worker).Msg("another keyhaul runs this haul; this one stands by")
	})
}

// hold runs fn for as long as the lease is ours, and gives it back behind it.
func (a *app) hold(ctx context.Context, fn func(context.Context) error) error {
	errDone := errors.New("done")
	leaseCtx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	runCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var lost error
	var g errgroup.Group
	g.Go(func() error {
		if err := a.lease.Run(leaseCtx); errors.Is(err, checkpoint.ErrTaken) || errors.Is(err, checkpoint.ErrGone) {
			lost = err
			cancel(err)
		}
		return nil
	})
	err := fn(runCtx)
	stop(errDone)
	_ = g.Wait()
	if lost != nil && ctx.Err() == nil {
		return lost
	}
	release, done := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer done()
	if relErr := a.lease.Release(release); relErr != nil && !errors.Is(relErr, checkpoint.ErrTaken) {
		a.log.Warn().Err(relErr).Msg("the lease could not be given back; the next keyhaul takes it over all the same")
	}
	return err
}

// follow runs pipelines, each from what the target has.
func (a *app) follow(ctx context.Context, e *ends) error {
	for {
		if a.ran {
			if err := a.store.EvictSelf(ctx); err != nil {
				return err
			}
		}
		st, err := a.load(ctx)
		if err != nil {
			return err
		}
		if !st.Found && a.began.Generation > 0 { // it was there before
			st.Lost = fmt.Errorf("%w: the target has no record of it any more", checkpoint.ErrLost)
			st.Found, st.Record = true, a.began
		}
		if err := mayResume(a.cfg, st); err != nil {
			return err
		}
		if err := a.store.Complete(ctx, st); err != nil {
			return err
		}
		if len(st.Refusals) > 0 {
			if err := a.listRefusals(ctx, st); err != nil {
				return err
			}
		}
		if st.Record.Finishing != "" && st.Lost == nil { // a finish was interrupted: deadlines are of two kinds
			if err := a.finish(ctx); err != nil {
				return err
			}
			st.Record = a.store.Record()
		}
		h, l, err := a.pipeline(ctx, e, st)
		if err != nil {
			return err
		}
		a.ran = true
		a.monitor.begin(h.Reader, h.Writer, a.log, a.terminal)
		err = h.Run(ctx)
		l.close()
		a.monitor.end()
		a.began = a.store.Record()
		a.received = max(a.received, h.Reader.Status().Received)
		switch {
		case (errors.Is(err, writer.ErrRewind) || errors.Is(err, checkpoint.ErrRestarted)) && ctx.Err() == nil:
			a.log.Warn().Msg("the target was restarted or failed over: what it has is read from its fences, and the stream goes on from there")
		case err == nil && a.cfg.Until == untilCaughtUp:
			return a.finish(ctx)
		default:
			return err
		}
	}
}

// listRefusals moves the journal of refused commands to errors.log.
func (a *app) listRefusals(ctx context.Context, st *checkpoint.State) error {
	for _, x := range st.Refusals {
		a.log.Warn().Str("command", x.Command).Strs("keys", x.Keys).Str("error", x.Error).Int64("position", x.Offset).
			Msg("an entry was skipped")
		if err := writer.ListSkipped(a.state.file("errors.log"), x.Time, x.Offset, x.DB, x.Command, x.Keys, x.Error); err != nil {
			return fmt.Errorf("a skipped entry could not be listed: %w", err)
		}
	}
	return a.store.Forget(ctx)
}

func (a *app) pipeline(ctx context.Context, e *ends, st *checkpoint.State) (*haul.Haul, *ledger, error) {
	cfg := a.cfg
	spoolMax := cfg.Spool.MaxBytes
	spoolDir := ""
	if a.state.path != "" {
		spoolDir = reader.SpoolDir(a.state.path)
	}
	if spoolMax == 0 {
		var err error
		if spoolMax, err = spoolLimit(a.state.path, cfg.Buffer.MaxBytes); err != nil {
			return nil, nil, err
		}
	}
	if !st.Found {
		st.Record.Began = began(cfg, e.keys)
	}
	var putOff *checkpoint.PutOff
	if cfg.Until == untilCaughtUp { // otherwise the finish is another process
		putOff = a.putOff
	}
	l := &ledger{store: a.store, lease: a.lease, dir: a.state.path, putOff: putOff, log: a.log, first: st.Record}
	if err := a.expiry(ctx, e, st, l); err != nil {
		return nil, nil, err
	}
	if !st.Found {
		l.told = cfg.Existing == existingFlush
	} else if st.Record.Prune {
		l.keep = checkpoint.NewKeySet(l.dir)
	}
	repeat := reader.RepeatOver
	if ownTarget(l.first.Began) {
		repeat = reader.RepeatFlush
	}
	existing := writer.ExistingReplace
	if l.first.Began == checkpoint.BeganSkip {
		existing = writer.ExistingSkip
	}
	const window = 4 << 20
	lanes := cfg.SnapshotLanes
	if lanes == 0 {
		lanes = 2
	}
	var applied []int64
	var replayUntil int64
	if st.Found && st.Lost == nil && st.Record.Phase == checkpoint.PhaseStreaming {
		applied, replayUntil = st.Applied, max(e.source.MasterReplOffset, st.Highest, a.received)
	}
	var runIDs []string
	for _, n := range st.Nodes {
		if n.RunID != "" {
			runIDs = append(runIDs, n.RunID)
		}
	}
	return &haul.Haul{
		Reader: reader.NewPSYNC(reader.PSYNCConfig{
			Dialer: a.source, PreferReplica: cfg.PreferReplica, Dir: spoolDir, SpoolMax: spoolMax, SpoolWindow: window,
			Retain: cfg.Spool.Retain, RetainBytes: cfg.Spool.RetainBytes,
			ReplyTimeout: cfg.ReplyTimeout, Until: reader.Until(cfg.Until), Patience: cfg.ConnectDeadline, AckReceived: cfg.Ack == ackReceived,
			RepeatSnapshot: repeat, OnLostHistory: reader.LostHistory(cfg.OnLostHistory),
			Resume: resume(st), First: firstClean(cfg, st, e.keys), Checkpoint: l, Waits: a.waits, Log: a.log,
		}),
		Writer: writer.New(writer.Config{
			Dialer: a.target, Node: e.target, Filters: filter.All(),
			Existing: existing, OnError: writer.OnError(cfg.OnError), MaxSkipped: int64(cfg.MaxSkipped),
			ErrorsLog: a.state.file("errors.log"), SnapshotLanes: lanes,
			NoTransactions: e.noTransactions != nil,
			Exact:          cfg.Delivery == exactlyOnce, Store: a.store, Lease: a.lease, Applied: applied, RunIDs: runIDs, ReplayUntil: replayUntil,
			Grace: time.Duration(l.first.Grace) * time.Millisecond, PutOff: putOff, ImportSource: l.first.Import,
			ReplyTimeout: cfg.ReplyTimeout, Keepalive: cfg.Keepalive.Enabled, PingInterval: cfg.Keepalive.Interval,
			Waits: a.waits, Log: a.log,
		}),
		Channel:       haul.NewChannel(cfg.Buffer.MaxBytes),
		DrainDeadline: cfg.DrainDeadline,
	}, l, nil
}

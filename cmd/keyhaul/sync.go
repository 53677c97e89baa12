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

	"github.com/keyhaul/keyhaul/check"
	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

func newSync(environ []string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Copy a live data set to another server or cluster, then follow its writes",
		Long: `sync reads a snapshot of the source and then its stream of writes, as a replica does, and writes both to the
target. Without --until it follows the source until it is stopped; with --until caught-up it ends once the target has
everything that the source had when its snapshot was complete. Either end may be one server, a group that sentinels look
after, or a cluster: name its nodes.`,
		Example: `  keyhaul sync --source redis://old:6379 --target redis://new:6379 --until caught-up
  keyhaul sync --source rediss://user:pw@old:6380 --source-tls-ca ca.pem --target redis://node1:7000,node2:7001
  keyhaul sync --source redis+sentinel://s1:26379,s2:26379/orders --target redis://node1:7000,node2:7001
  KEYHAUL_SOURCE_PASSWORD=… keyhaul sync --config one-shot.toml
  keyhaul sync --source rdb:///backup/dump.rdb.zst --target redis://new:6379
  keyhaul sync --source aof:///var/lib/redis/appendonlydir --target redis://new:6379
  keyhaul sync --source redis://old:6379 --target rdb:///backup/old.rdb.zst
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
	source   *topology.Dialer // nil if it is no server
	target   *topology.Dialer // nil if it is no server
	store    *checkpoint.Store
	lease    *checkpoint.Lease
	worker   string
	only     *link // of a standalone source
	sharded  bool  // links to a cluster source have run: what they have sent may still be carried out
	monitor  *monitor

	finishing bool // this is keyhaul finish
	repairing bool // a stopped haul is gone on with, for the time that keys are repaired
}

func newApp(cfg config) *app {
	a := &app{cfg: cfg, waits: &haul.Waits{}, terminal: term.IsTerminal(int(os.Stderr.Fd()))}
	a.source, a.target = a.dialer(cfg.Source), a.dialer(cfg.Target)
	a.monitor = newMonitor(cfg, a.waits)
	return a
}

// dialer returns how the server of an end is connected to; nil if it is none.
func (a *app) dialer(e end) *topology.Dialer {
	if e.Files != nil || e.Output != nil {
		return nil
	}
	d := topology.NewDialer(e.Endpoint)
	d.ClientName = "keyhaul:" + a.cfg.Name
	return d
}

// headroom is what keyhaul may use beside the bounded channel before Go collects more eagerly: the spool's window,
// sockets, the program itself.
const headroom = 42 << 20

// linkRoom is what each link more uses beside the channel: windows of its spools, connections, what it knows of slots.
const linkRoom = 5 << 20

// limitMemory has Go collect more eagerly above what so many links need, unless the operator has said when.
func (a *app) limitMemory(links int) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(a.cfg.Buffer.MaxBytes + headroom + int64(links-1)*linkRoom)
	}
}

func (a *app) sync(ctx context.Context) (err error) {
	if a.log, err = newLogger(a.monitor.logWriter(a.terminal), a.terminal, a.cfg.LogLevel, a.cfg.LogFormat); err != nil {
		return usageError{err}
	}
	a.limitMemory(1)
	if err := a.cfg.maySummarize(); err != nil {
		return err
	}
	if a.state, err = openState(a.cfg.StateDir, a.cfg.Name); err != nil {
		return err
	}
	defer a.state.close()
	a.state.forgetHTTPAddr() // of a process that was killed
	defer a.state.forgetHTTPAddr()
	defer a.state.forgetToken()
	server, err := a.serveHTTP(ctx)
	if err != nil {
		return err
	}
	defer server.stop()
	started := time.Now()
	err = a.haul(ctx)
	if all := a.monitor.status().overall(); errors.Is(err, haul.ErrInterrupted) && !a.cfg.OneShot() && all.SnapshotDone {
		err = a.stopped(err, all)
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
	if r := a.store.Record(); r.Grace > 0 || r.Import {
		a.log.Info().Msg("deadlines on the target are still held back; the same command goes on where it stopped, keyhaul finish ends the haul")
	}
	return nil
}

// haul meets both ends and takes the source to the target, for as long as this process may write there.
func (a *app) haul(ctx context.Context) error {
	e, err := openEnds(ctx, a.cfg)
	if err != nil {
		return err
	}
	defer e.close()
	if err := e.meet(ctx, a.cfg, a.source, a.target, a.waits, a.log); err != nil {
		return err
	}
	pair, err := a.lookAtBoth(ctx)
	if err != nil {
		return err
	}
	if err := refusal(pair.Findings(check.State{Known: true}), true); err != nil { // whatever the target knows
		return err
	}
	if a.target == nil {
		a.tell(pair.Findings(check.State{}))
		return a.toFile(ctx, e)
	}
	e.noTransactions = pair.NoTransactions()
	a.openStore(e.target.Cluster, e.noTransactions)
	defer a.store.Close()
	st, err := a.load(ctx, a.store)
	if err != nil {
		return err
	}
	if err := e.mayBegin(a, pair, st); err != nil {
		return err
	}
	if (a.finishing || a.repairing) && (!st.Found || st.Record.Phase != checkpoint.PhaseStreaming) {
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
	for {
		if err := a.acquire(ctx); err != nil {
			return err
		}
		err := a.hold(ctx, func(ctx context.Context) error { return a.follow(ctx, e) })
		if errors.Is(err, checkpoint.ErrGone) {
			a.log.Error().Msg("the target has lost the lease: it was emptied, or lost its data")
			continue // what else it has lost is seen then
		}
		if !errors.Is(err, checkpoint.ErrTaken) {
			return err
		}
		if !a.standsBy() {
			return haul.Errorf(haul.ExitHeld, "stop one of the two", "another keyhaul has taken this haul over: %w", err)
		}
		a.log.Warn().Msg("another keyhaul has taken this haul over; this one stands by")
	}
}

// openStore gives this process a name on the target, by which the next one finds its connections.
func (a *app) openStore(cluster bool, noTransactions error) {
	a.worker = rand.Text()[:12]
	a.target.ClientName = checkpoint.Prefix + a.cfg.Name + ":" + a.worker
	a.store = checkpoint.New(checkpoint.Config{
		Dialer: a.target, Name: a.cfg.Name, Cluster: cluster, NoTransactions: noTransactions != nil, Log: a.log,
	})
	a.lease = checkpoint.NewLease(checkpoint.LeaseConfig{Store: a.store, Worker: a.worker, Log: a.log})
}

// standsBy reports whether this process waits for its turn while another one runs the haul.
func (a *app) standsBy() bool { return !a.cfg.OneShot() && !a.repairing }

// acquire takes the lease. A daemon stands by as long as another one has it.
func (a *app) acquire(ctx context.Context) error {
	const who = "lease"
	defer a.waits.Clear(who)
	defer a.monitor.standby(false)
	return a.lease.Acquire(ctx, a.standsBy(), func(worker string) {
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

// follow takes the source to the target, once this process may write there.
func (a *app) follow(ctx context.Context, e *ends) error {
	if e.survey != nil {
		a.monitor.begin(a.log, a.terminal)
		defer a.monitor.end()
		return a.followShards(ctx, e)
	}
	if a.only == nil {
		a.only = &link{
			app: a, ends: e, source: a.source, target: a.target, store: a.store, log: a.log, waits: a.waits, dir: a.state.path,
			channel: func() *haul.Channel { return haul.NewChannel(a.cfg.Buffer.MaxBytes) }, window: spoolWindow,
			putOff: checkpoint.NewPutOff(a.state.path),
		}
	}
	a.only.putOff.Forget() // another worker may have written since
	a.monitor.begin(a.log, a.terminal)
	defer a.monitor.end()
	if err := a.only.follow(ctx); err != nil || a.cfg.Until != untilCaughtUp {
		return err
	}
	return a.finish(ctx, a.only.putOff)
}

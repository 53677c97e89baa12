package reader

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
)

// Until is the goal of a one-shot.
type Until string

// Goals. UntilStopped is that of a daemon.
const (
	UntilStopped  Until = ""
	UntilSnapshot Until = "snapshot"
	UntilCaughtUp Until = "caught-up"
)

// PSYNCConfig describes a link to a source.
type PSYNCConfig struct {
	Dialer         *topology.Dialer
	Dir            string // of the spool; empty: memory only
	SpoolMax       int64  // bytes
	SpoolWindow    int64  // bytes in memory for a decoder that keeps up
	Retain         time.Duration
	RetainBytes    int64
	ReplyTimeout   time.Duration // a source that is silent for so long is dialled again
	Until          Until
	Patience       time.Duration // how long a missing permission to run PSYNC is waited for at first; 0: for ever
	AckReceived    bool          // acknowledge what was received instead of what is applied
	RepeatSnapshot Repeat
	Waits          *haul.Waits
	Log            zerolog.Logger
}

// Repeat says what a second full sync does with the keys that the first one wrote.
type Repeat string

// RepeatFlush empties the target first: it held nothing but this haul's keys. RepeatOver writes over them.
const (
	RepeatFlush Repeat = "flush"
	RepeatOver  Repeat = "over"
)

// PSYNC is the link to one source primary (or a replica of one): it reads the snapshot and then the stream, as a
// replica would. It never writes to the source's data.
type PSYNC struct {
	cfg    PSYNCConfig
	who    string
	budget *aof.Budget
	out    *haul.Channel             // written once, under mu
	spool  atomic.Pointer[aof.Spool] // of the stream

	useful     bool          // the connection brought something; of the receiving goroutine
	stuckAfter time.Duration // a full spool that nothing leaves is given up

	mu       sync.Mutex
	conn     *resp.Conn
	addr     string // of conn
	node     topology.Node
	lineage  aof.Lineage
	status   haul.LinkStatus
	started  []time.Time // of full syncs; of the goroutine of Run
	getacks  []question
	polled   []poll
	ackNow   chan struct{}
	awaiting atomic.Bool // the source waits for an ACK before it begins the stream
	backoff  keepalive.Backoff
}

// NewPSYNC returns a reader of the source that the dialer's endpoint names.
func NewPSYNC(cfg PSYNCConfig) *PSYNC {
	return &PSYNC{
		cfg:        cfg,
		who:        "source " + cfg.Dialer.Endpoint.String(),
		budget:     &aof.Budget{Max: cfg.SpoolMax},
		ackNow:     make(chan struct{}, 1),
		stuckAfter: 30 * time.Second,
		status: haul.LinkStatus{
			Source: cfg.Dialer.Endpoint.String(), Phase: haul.PhaseConnecting,
			SourceOffset: -1, Received: -1, Applied: -1, RunwaySeconds: -1,
		},
	}
}

// errGoal ends the group of goroutines when the goal is reached.
var errGoal = errors.New("goal reached")

// Run implements haul.Reader.
func (p *PSYNC) Run(ctx context.Context, out *haul.Channel) error {
	p.mu.Lock()
	p.out = out
	p.mu.Unlock()
	if p.cfg.Dir != "" {
		if err := aof.RemoveSegments(p.cfg.Dir); err != nil {
			return haul.Errorf(haul.ExitUsage, "give keyhaul a state directory that it may write to",
				"spool: %w", err)
		}
	}
	for generation := uint64(1); ; generation++ {
		err := p.generation(ctx, generation)
		if errors.Is(err, errGoal) {
			return nil
		}
		var again *snapshotLost
		if !errors.As(err, &again) {
			return err
		}
		if err := p.mayRepeat(ctx, again); err != nil {
			return err
		}
	}
}

// generation does one full sync and follows its stream.
func (p *PSYNC) generation(ctx context.Context, n uint64) error {
	sync, err := p.begin(ctx, n)
	if err != nil {
		return err
	}
	defer p.setConn(nil)
	defer sync.stream.Remove()
	// Spools write what they hold until all who receive have ended.
	spoolCtx, stopSpools := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSpools()
	snapshotCtx, closeSnapshot := context.WithCancel(spoolCtx)
	sync.closeSnapshot = closeSnapshot
	var spools errgroup.Group
	spools.Go(func() error {
		defer sync.snapshot.Remove()
		return sync.snapshot.Run(snapshotCtx)
	})
	spools.Go(func() error { return sync.stream.Run(spoolCtx) })

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.receive(gctx, sync) })
	g.Go(func() error { return p.decode(gctx, sync) })
	g.Go(func() error { return p.acknowledge(gctx, sync) })
	g.Go(func() error { return p.watch(gctx) })
	err = g.Wait()
	stopSpools()
	if spoolErr := spools.Wait(); spoolErr != nil {
		p.cfg.Log.Warn().Err(spoolErr).Msg("the spool could not be closed")
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// fullSync is what one generation shares.
type fullSync struct {
	header   payload
	start    haul.Position
	snapshot *aof.Spool
	stream   *aof.Spool
	whole    chan struct{} // closed when the snapshot was received to its end
	applied  atomic.Bool   // the snapshot is on the target

	closeSnapshot func() // gives up what the snapshot's spool holds
}

// begin asks for a full sync until the source begins to send one.
func (p *PSYNC) begin(ctx context.Context, generation uint64) (*fullSync, error) {
	p.setPhase(haul.PhaseConnecting)
	for began := time.Now(); ; {
		conn, err := p.connect(ctx)
		if err != nil {
			return nil, err
		}
		p.cfg.Log.Info().Msg("asking the source for a snapshot; it may take some seconds to begin (repl-diskless-sync-delay)")
		var header payload
		reply, err := p.psync(ctx, conn, "?", -1)
		if err == nil { // from here on it costs the source a snapshot
			p.started = append(p.started, time.Now())
			if header, err = p.payload(ctx, conn); err == nil {
				p.cfg.Waits.Clear(p.who)
				return p.newFullSync(conn, reply, header, generation), nil
			}
			err = &snapshotLost{err}
		}
		_ = conn.Close()
		if errors.As(err, new(*snapshotLost)) && ctx.Err() == nil {
			if err := p.mayRepeat(ctx, err); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, errDenied) && p.cfg.Patience > 0 && time.Since(began) > p.cfg.Patience {
			return nil, haul.Errorf(haul.ExitUnreachable, permissionRemedy, "%w", err)
		}
		if err := p.retry(ctx, err, "the full sync"); err != nil {
			return nil, err
		}
	}
}

func (p *PSYNC) newFullSync(conn *resp.Conn, r psyncReply, header payload, generation uint64) *fullSync {
	lineage := aof.Lineage{ReplID: r.id, Generation: generation}
	spool := func(kind string, start int64) *aof.Spool {
		dir := p.cfg.Dir
		return aof.NewSpool(aof.SpoolConfig{
			Dir: dir, Kind: kind, Window: p.cfg.SpoolWindow, Budget: p.budget, Log: p.cfg.Log,
		}, lineage, start)
	}
	s := &fullSync{
		header:   header,
		start:    haul.Position{ReplID: r.id, Offset: r.offset},
		snapshot: spool(aof.SpoolSnapshot, 0),
		stream:   spool(aof.SpoolStream, r.offset),
		whole:    make(chan struct{}),
	}
	p.spool.Store(s.stream)
	p.mu.Lock()
	p.lineage = lineage
	p.getacks = nil
	p.status.ReplID = r.id
	p.status.FullSyncs++
	p.status.Phase = haul.PhaseSnapshot
	p.status.SnapshotTotal = max(header.length, 0)
	p.status.SnapshotDone = false
	p.mu.Unlock()
	p.awaiting.Store(false)
	p.useful = true
	p.setConn(conn)
	p.cfg.Log.Info().Str("replication_id", r.id).Int64("offset", r.offset).Int64("bytes", header.length).
		Msg("the source sends its snapshot")
	return s
}

// decode sends the snapshot, waits until it is on the target, and sends the stream.
func (p *PSYNC) decode(ctx context.Context, s *fullSync) error {
	began := time.Now()
	db, err := decodeSnapshot(ctx, s.snapshot, p.out, func(keys int64) {
		p.mu.Lock()
		p.status.SnapshotKeysAll = keys
		p.mu.Unlock()
	})
	if err != nil {
		return p.snapshotError(ctx, err)
	}
	if err := p.out.Watermark.Drain(ctx); err != nil {
		return err
	}
	select { // the payload may have an end mark behind the snapshot's own end
	case <-s.whole:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.start.DB = db
	p.out.Watermark.Start(s.start)
	s.applied.Store(true)
	s.closeSnapshot()
	p.ack()
	progress := p.out.Watermark.Progress()
	p.mu.Lock()
	p.status.Phase, p.status.SnapshotDone = haul.PhaseStreaming, true
	p.mu.Unlock()
	p.cfg.Log.Info().Int64("keys", progress.SnapshotKeys).Int64("bytes", progress.SnapshotBytes).
		Str("took", time.Since(began).Round(time.Millisecond).String()).Msg("the snapshot is on the target")
	if p.cfg.Until == UntilSnapshot {
		return errGoal
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return decodeStream(gctx, s.stream, p.out, s.start, p.getack, p.splitTransaction) })
	if p.cfg.Until == UntilCaughtUp {
		g.Go(func() error { return p.untilCaughtUp(gctx) })
	}
	return g.Wait()
}

// untilCaughtUp returns errGoal once the target has acknowledged what the source had when it was asked.
func (p *PSYNC) untilCaughtUp(ctx context.Context) error {
	node, err := p.inspect(ctx)
	if err != nil {
		return err
	}
	p.cfg.Log.Info().Int64("offset", node.MasterReplOffset).Msg("caught up when the target has acknowledged this offset")
	select {
	case <-p.out.Watermark.Reached(node.MasterReplOffset):
		p.setPhase(haul.PhaseCaughtUp)
		p.ack()
		return errGoal
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *PSYNC) splitTransaction() {
	p.cfg.Log.Warn().Msg("a transaction of the source is larger than the buffer allows and goes on command by command")
}

func (p *PSYNC) setPhase(phase haul.Phase) {
	p.mu.Lock()
	p.status.Phase = phase
	p.mu.Unlock()
}

// Status implements haul.Reader.
func (p *PSYNC) Status() haul.LinkStatus {
	p.mu.Lock()
	s, out := p.status, p.out
	p.mu.Unlock()
	if out == nil {
		return s
	}
	at, progress := out.Watermark.Stream(), out.Watermark.Progress()
	s.SnapshotBytes, s.SnapshotKeys, s.Entries = progress.SnapshotBytes, progress.SnapshotKeys, progress.Entries
	s.Applied, s.DB = at.Offset, at.DB
	s.Spooled = p.budget.Used()
	if spool := p.spool.Load(); spool != nil {
		s.Received = spool.End()
		if at.Offset >= 0 {
			s.SourceOffset = max(s.SourceOffset, s.Received)
			s.LagBytes = s.SourceOffset - at.Offset
			if oldest := spool.Oldest(at.Offset); !oldest.IsZero() {
				s.LagSeconds = time.Since(oldest).Seconds()
			}
		}
	}
	if s.Phase == haul.PhaseStreaming && s.LagBytes == 0 {
		s.Phase = haul.PhaseCaughtUp
	}
	if len(p.cfg.Waits.List()) > 0 && s.Phase != haul.PhaseConnecting {
		s.Phase = haul.PhaseWaiting
	}
	return s
}

// SpoolDir is where the segments of the haul with this state directory are.
func SpoolDir(stateDir string) string { return filepath.Join(stateDir, "spool") }

package reader

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
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
	known    int64 // highest when the node was asked what it is
	lineage  aof.Lineage
	status   haul.LinkStatus
	started  []time.Time // of full syncs; of the goroutine of Run
	ids      []idFrom    // replication ids of this lineage
	highest  int64       // nothing behind it is on the target, but for what the spool holds
	warned   time.Time   // of a short runway
	getacks  []question
	polled   []poll
	ackNow   chan struct{}
	awaiting atomic.Bool // the source waits for an ACK before it begins the stream
	backoff  *keepalive.Backoff

	superseded atomic.Bool // history is lost, and another full copy comes
}

// NewPSYNC returns a reader of the source that the dialer's endpoint names.
func NewPSYNC(cfg PSYNCConfig) *PSYNC {
	p := &PSYNC{
		cfg:        cfg,
		who:        "source " + cfg.Dialer.Endpoint.String(),
		budget:     &aof.Budget{Max: cfg.SpoolMax},
		ackNow:     make(chan struct{}, 1),
		stuckAfter: stuckAfter,
		backoff:    topology.NewBackoff(cfg.Dialer.Endpoint),
		status: haul.LinkStatus{
			Source: cfg.Dialer.Endpoint.String(), Phase: haul.PhaseConnecting,
			SourceOffset: -1, Received: -1, Applied: -1, RunwaySeconds: -1,
		},
	}
	if cfg.Find != nil { // a replica may take over at any moment
		p.backoff = &keepalive.Backoff{Max: time.Second}
	}
	if cfg.Resume != nil {
		p.started = cfg.Resume.Syncs
	}
	return p
}

// errGoal ends the group of goroutines when the goal is reached.
var errGoal = errors.New("goal reached")

// Run implements haul.Reader.
func (p *PSYNC) Run(ctx context.Context, out *haul.Channel) error {
	p.mu.Lock()
	p.out = out
	p.mu.Unlock()
	s, generation, err := p.restore()
	if err != nil {
		return err
	}
	for clean := p.cfg.First; ; {
		if s == nil {
			// a time, so that no spool of another haul is ever taken for this one's
			generation = max(generation+1, uint64(time.Now().UnixMilli()))
			if s, err = p.begin(ctx, generation, clean); err != nil {
				return err
			}
		}
		err := p.follow(ctx, s)
		s = nil
		if errors.Is(err, errGoal) {
			return nil
		}
		if clean, err = p.again(ctx, err); err != nil {
			return err
		}
	}
}

// follow takes one generation to the target: its snapshot, unless that is there already, and then its stream.
func (p *PSYNC) follow(ctx context.Context, sync *fullSync) error {
	defer p.setConn(nil)
	// Spools write what they hold until all who receive have ended.
	spoolCtx, stopSpools := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSpools()
	var spools errgroup.Group
	spools.Go(func() error { return sync.stream.Run(spoolCtx) })
	if sync.snapshot != nil {
		snapshotCtx, closeSnapshot := context.WithCancel(spoolCtx)
		sync.closeSnapshot = closeSnapshot
		spools.Go(func() error {
			err := sync.snapshot.Run(snapshotCtx)
			if sync.applied.Load() {
				sync.snapshot.Remove()
			}
			return err
		})
	}

	if sync.received != nil {
		defer sync.received()
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.receive(gctx, sync) })
	g.Go(func() error { return p.decode(gctx, sync) })
	g.Go(func() error { return p.acknowledge(gctx, sync) })
	g.Go(func() error { return p.watch(gctx) })
	g.Go(func() error { return p.keepWhole(gctx, sync) })
	err := g.Wait()
	stopSpools()
	if spoolErr := spools.Wait(); spoolErr != nil {
		p.cfg.Log.Warn().Err(spoolErr).Msg("the spool could not be closed")
	}
	sync.close()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// begin asks for a full sync until the source begins to send one.
func (p *PSYNC) begin(ctx context.Context, generation uint64, clean Clean) (*fullSync, error) {
	p.setPhase(haul.PhaseConnecting)
	for began := time.Now(); ; {
		release, err := p.fork(ctx)
		if err != nil {
			return nil, err
		}
		conn, err := p.connect(ctx, nil)
		if err != nil {
			release()
			return nil, err
		}
		p.cfg.Log.Info().Msg("asking the source for a snapshot; it may take some seconds to begin (repl-diskless-sync-delay)")
		var header payload
		reply, err := p.psync(ctx, conn, "?", -1)
		if err == nil { // from here on it costs the source a snapshot
			p.started = append(p.started, time.Now())
			if header, err = p.payload(ctx, conn); err == nil {
				p.cfg.Waits.Clear(p.who)
				return p.newFullSync(conn, reply, header, generation, clean, release)
			}
			err = &snapshotLost{err}
		}
		_ = conn.Close()
		release()
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

// fork waits until the source may be asked for a snapshot.
func (p *PSYNC) fork(ctx context.Context) (release func(), err error) {
	if p.cfg.Fork == nil {
		return func() {}, nil
	}
	addr, err := p.address(ctx)
	if err != nil { // it is found when it is connected to
		addr = p.cfg.Dialer.Endpoint.String()
	}
	release, err = p.cfg.Fork(ctx, addr)
	return sync.OnceFunc(release), err
}

func (p *PSYNC) newFullSync(conn *resp.Conn, r psyncReply, header payload, generation uint64, clean Clean, release func()) (*fullSync, error) {
	if err := p.removeSegments(generation); err != nil {
		_ = conn.Close()
		release()
		return nil, err
	}
	lineage := aof.Lineage{ReplID: r.id, Generation: generation}
	start := haul.Position{Generation: generation, ReplID: r.id, Offset: r.offset}
	s := &fullSync{
		generation: generation,
		header:     header,
		start:      start,
		base:       start,
		clean:      clean,
		fresh:      true,
		snapshot:   aof.NewSpool(p.spoolConfig(aof.SpoolSnapshot), lineage, 0),
		stream:     aof.NewSpool(p.spoolConfig(aof.SpoolStream), lineage, r.offset),
		whole:      make(chan struct{}),
		received:   release,
	}
	p.adopt(s, lineage)
	p.mu.Lock()
	p.highest = 0
	p.status.FullSyncs++
	p.status.SnapshotTotal = max(header.length, 0)
	p.mu.Unlock()
	p.useful = true
	p.setConn(conn)
	p.cfg.Log.Info().Str("replication_id", r.id).Int64("offset", r.offset).Int64("bytes", header.length).
		Uint64("generation", generation).Msg("the source sends its snapshot")
	return s, nil
}

// adopt makes s the generation that the link works on.
func (p *PSYNC) adopt(s *fullSync, l aof.Lineage) {
	p.spool.Store(s.stream)
	p.awaiting.Store(false)
	p.superseded.Store(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lineage = l
	p.ids = []idFrom{{s.base.Offset, l.ReplID}}
	p.getacks = nil
	p.status.ReplID = l.ReplID
	p.status.Phase = haul.PhaseSnapshot
	p.status.SnapshotDone = false
	p.status.SnapshotTotal = 0
}

// decode sends the snapshot, waits until it is on the target, and sends the stream.
func (p *PSYNC) decode(ctx context.Context, s *fullSync) error {
	if s.snapshot != nil {
		if err := p.decodeSnapshot(ctx, s); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.status.Phase, p.status.SnapshotDone = haul.PhaseStreaming, true
	p.mu.Unlock()
	if p.cfg.Until == UntilSnapshot {
		return errGoal
	}
	p.out.Watermark.Start(s.base)
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return decodeStream(gctx, s.stream, p.out, s.base, streamEvents{getack: p.getack, split: p.splitTransaction, id: p.idAt})
	})
	if p.cfg.Until == UntilCaughtUp {
		g.Go(func() error { return p.untilCaughtUp(gctx) })
	}
	return g.Wait()
}

// decodeSnapshot sends the snapshot and waits until it is on the target, with nothing that it lacks.
func (p *PSYNC) decodeSnapshot(ctx context.Context, s *fullSync) error {
	began := time.Now()
	if s.fresh {
		if err := p.cfg.Checkpoint.Begin(ctx, s.start, s.clean, p.started); err != nil {
			return err
		}
	}
	in := snapshotInput{source: s.snapshot.Reader(), bytes: s.snapshot}
	db, _, err := decodeSnapshot(ctx, in, p.out, func(keys int64) {
		p.mu.Lock()
		p.status.SnapshotKeysAll = keys
		p.mu.Unlock()
	}, p.cfg.Checkpoint.Seen)
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
	s.start.DB, s.base.DB = db, db
	if err := p.cfg.Checkpoint.Streaming(ctx, s.start); err != nil {
		return err
	}
	p.out.Watermark.Start(s.start)
	s.applied.Store(true)
	s.closeSnapshot()
	p.ack()
	progress := p.out.Watermark.Progress()
	p.cfg.Log.Info().Int64("keys", progress.SnapshotKeys).Int64("bytes", progress.SnapshotBytes).
		Str("took", time.Since(began).Round(time.Millisecond).String()).Msg("the snapshot is on the target")
	return nil
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
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if p.cfg.Together != nil {
		if err := p.cfg.Together(ctx); err != nil {
			return err
		}
	}
	p.setPhase(haul.PhaseCaughtUp)
	p.ack()
	return errGoal
}

func (p *PSYNC) splitTransaction() {
	p.mu.Lock()
	p.status.TransactionsCut++
	p.mu.Unlock()
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
	s.Address = p.addr
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

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/filter"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/reader"
	"github.com/keyhaul/keyhaul/writer"
)

// link is one stream from the source to the target: the only one of a standalone source, or that of one shard of a
// cluster.
type link struct {
	*app

	name    string // empty if it is the only one
	ends    *ends
	source  *topology.Dialer
	target  *topology.Dialer
	store   *checkpoint.Store
	log     zerolog.Logger
	waits   *haul.Waits
	dir     string // for its files; empty for none
	window  int64  // bytes of the spool in memory for a decoder that keeps up
	channel func() *haul.Channel
	putOff  *checkpoint.PutOff
	shard   *shard // what is more to it if the source is a cluster; else nil

	began    checkpoint.Record // what the target knew of it when the last pipeline ended
	received int64             // the highest offset that was read
	ran      bool              // a pipeline has run: what it has sent may still be carried out
}

// spoolWindow is how much of the stream the only link keeps in memory for its decoder, in bytes.
const spoolWindow = 4 << 20

// follow runs pipelines, each from what the target has.
func (l *link) follow(ctx context.Context) error {
	for {
		if l.ran {
			if err := l.store.EvictSelf(ctx); err != nil {
				return err
			}
		}
		st, err := l.load(ctx, l.store)
		if err != nil {
			return err
		}
		if !st.Found && l.began.Generation > 0 { // it was there before
			st.Lost = fmt.Errorf("%w: the target has no record of it any more", checkpoint.ErrLost)
			st.Found, st.Record = true, l.began
		}
		if err := mayResume(l.cfg, st); err != nil {
			return err
		}
		if l.shard != nil {
			if err := l.shard.regain(ctx, st); err != nil {
				return err
			}
		}
		if err := l.store.Complete(ctx, st); err != nil {
			return err
		}
		if l.ends.target.Cluster && st.Found && st.Lost == nil && st.Record.Phase == checkpoint.PhaseStreaming {
			l.level(ctx, st)
		}
		if len(st.Refusals) > 0 {
			if err := l.listRefusals(ctx, st); err != nil {
				return err
			}
		}
		if st.Record.Finishing != "" && st.Lost == nil { // a finish was interrupted: deadlines are of two kinds
			if err := l.finish(ctx, l.putOff); err != nil {
				return err
			}
			st.Record = l.store.Record()
		}
		h, book, err := l.pipeline(ctx, st)
		if err != nil {
			return err
		}
		l.ran = true
		l.monitor.watch(l.name, h.Reader, h.Writer)
		err = h.Run(ctx)
		if l.shard != nil {
			l.shard.ended()
		}
		book.close()
		h.Channel.Leave()
		l.began = l.store.Record()
		l.received = max(l.received, h.Reader.Status().Received)
		if (errors.Is(err, writer.ErrRewind) || errors.Is(err, checkpoint.ErrRestarted)) && ctx.Err() == nil {
			l.log.Warn().Msg("the target was restarted or failed over: what it has is read from its fences, and the stream goes on from there")
			continue
		}
		return err
	}
}

// level gives each node of the target the mark that reading goes on from, and removes others, which slots have taken
// along. Where it cannot be written now, in a slot that is being migrated say, the writer does it later.
func (l *link) level(ctx context.Context, st *checkpoint.State) {
	if err := l.store.Mark(ctx, checkpoint.Fence{Generation: st.Record.Generation, At: st.Base}); err != nil {
		l.log.Warn().Err(err).Msg("the marks on the target are written later")
	}
}

// listRefusals moves the journal of refused commands to errors.log.
func (l *link) listRefusals(ctx context.Context, st *checkpoint.State) error {
	for _, x := range st.Refusals {
		l.log.Warn().Str("command", x.Command).Strs("keys", x.Keys).Str("error", x.Error).Int64("position", x.Offset).
			Msg("an entry was skipped")
		if err := writer.ListSkipped(l.state.file("errors.log"), x.Time, x.Offset, x.DB, x.Command, x.Keys, x.Error); err != nil {
			return fmt.Errorf("a skipped entry could not be listed: %w", err)
		}
	}
	return l.store.Forget(ctx)
}

func (l *link) pipeline(ctx context.Context, st *checkpoint.State) (*haul.Haul, *ledger, error) {
	cfg := l.cfg
	spoolMax := cfg.Spool.MaxBytes
	spoolDir := ""
	if l.dir != "" {
		spoolDir = reader.SpoolDir(l.dir)
	}
	if spoolMax == 0 {
		var err error
		if spoolMax, err = spoolLimit(l.state.path, cfg.Buffer.MaxBytes); err != nil {
			return nil, nil, err
		}
	}
	if l.shard != nil {
		spoolMax /= int64(len(l.ends.survey.Shards))
	}
	var putOff *checkpoint.PutOff
	if cfg.Until == untilCaughtUp { // otherwise the finish is another process
		putOff = l.putOff
	}
	book := &ledger{store: l.store, lease: l.lease, dir: l.dir, putOff: putOff, wait: cfg.WaitReplicas, waits: l.waits, log: l.log, first: st.Record, dbs: cfg.DBs}
	if l.shard != nil {
		l.shard.open(book)
	} else if err := l.openOnly(ctx, st, book); err != nil {
		return nil, nil, err
	}
	if st.Found && st.Record.Prune {
		book.keep = checkpoint.NewKeySet(book.dir)
	}
	repeat := reader.RepeatOver
	if ownTarget(book.first.Began) {
		repeat = reader.RepeatFlush
	}
	existing := writer.ExistingReplace
	if book.first.Began == checkpoint.BeganSkip {
		existing = writer.ExistingSkip
	}
	lanes := cfg.SnapshotLanes
	if lanes == 0 {
		lanes = 2
	}
	var applied []int64
	var replayUntil int64
	if st.Found && st.Lost == nil && st.Record.Phase == checkpoint.PhaseStreaming {
		applied, replayUntil = st.Applied, max(l.ends.source.MasterReplOffset, st.Highest, l.received)
	}
	var runIDs []string
	for _, n := range st.Nodes {
		if n.RunID != "" {
			runIDs = append(runIDs, n.RunID)
		}
	}
	from := reader.PSYNCConfig{
		Dialer: l.source, PreferReplica: cfg.PreferReplica, Dir: spoolDir, SpoolMax: spoolMax, SpoolWindow: l.window,
		Retain: cfg.Spool.Retain, RetainBytes: cfg.Spool.RetainBytes,
		ReplyTimeout: cfg.ReplyTimeout, Until: reader.Until(cfg.Until), Patience: cfg.ConnectDeadline, AckReceived: cfg.ackReceived(l.ends.source),
		RepeatSnapshot: repeat, OnLostHistory: reader.LostHistory(cfg.OnLostHistory),
		Resume: resume(st), First: firstClean(cfg, st, l.ends.keys), Checkpoint: book, Waits: l.waits, Log: l.log,
	}
	to := writer.Config{
		Dialer: l.target, Node: l.ends.target, Filters: filter.All(cfg.DBs), DBs: cfg.DBs,
		Existing: existing, OnError: writer.OnError(cfg.OnError), MaxSkipped: int64(cfg.MaxSkipped),
		ErrorsLog: l.state.file("errors.log"), SnapshotLanes: lanes, BigValue: cfg.BigValue,
		Unsupported: writer.Unsupported(cfg.Unsupported), UnsupportedLog: l.state.file("unsupported.log"),
		NoTransactions: l.ends.noTransactions != nil, Exact: cfg.Delivery == exactlyOnce, Store: l.store, Lease: l.lease, Applied: applied, Ahead: st.Ahead, RunIDs: runIDs, ReplayUntil: replayUntil,
		Grace: time.Duration(book.first.Grace) * time.Millisecond, PutOff: putOff, ImportSource: book.first.Import,
		ReplyTimeout: cfg.ReplyTimeout, WaitReplicas: cfg.WaitReplicas, Keepalive: cfg.Keepalive.Enabled, PingInterval: cfg.Keepalive.Interval,
		OpenSlots: cfg.OpenSlotTimeout,
		Waits:     l.waits, Log: l.log,
	}
	if l.shard != nil {
		if !st.Found && l.shard.all.prune {
			from.First = reader.CleanPrune
		}
		from.Find, from.Together, from.Fork = l.shard.find, l.shard.together, l.shard.all.forks.acquire
		to.Shard = l.shard
	}
	psync := reader.NewPSYNC(from)
	to.Source = psync.Keys()
	h := &haul.Haul{
		Reader: psync, Writer: writer.New(to), Channel: l.channel(), DrainDeadline: cfg.DrainDeadline,
	}
	if l.shard != nil {
		l.shard.begins(h)
	}
	return h, book, nil
}

// openOnly decides what the generations of the only link begin with.
func (l *link) openOnly(ctx context.Context, st *checkpoint.State, book *ledger) error {
	if !st.Found {
		book.first.Began, book.first.Databases = began(l.cfg, l.ends.keys), l.cfg.DBs.String()
		book.told = l.cfg.Existing == existingFlush
	}
	return l.expiry(ctx, l.ends, st, book)
}

package main

import (
	"context"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/filter"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/reader"
	"github.com/keyhaul/keyhaul/writer"
)

// pipeline makes what goes on from the state st of the target.
func (l *link) pipeline(ctx context.Context, st *checkpoint.State) (*haul.Haul, *ledger, error) {
	book := &ledger{
		store: l.store, lease: l.lease, dir: l.dir, wait: l.cfg.WaitReplicas, waits: l.waits, log: l.log, first: st.Record, dbs: l.cfg.DBs,
	}
	if l.cfg.Until == untilCaughtUp && l.ends.input == nil { // else the finish is another process, or looks for far deadlines
		book.putOff = l.putOff
	}
	if l.shard != nil {
		l.shard.open(book)
	} else if err := l.openOnly(ctx, st, book); err != nil {
		return nil, nil, err
	}
	if st.Found && st.Record.Prune {
		book.keep = checkpoint.NewKeySet(book.dir)
	}
	to := l.writes(st, book)
	h := &haul.Haul{Channel: l.channel(), DrainDeadline: l.cfg.DrainDeadline}
	if l.ends.input != nil {
		from, err := l.readsFiles(st, book)
		if err != nil {
			return nil, nil, err
		}
		h.Reader = reader.NewFile(from)
	} else {
		from, err := l.reads(st, book)
		if err != nil {
			return nil, nil, err
		}
		psync := reader.NewPSYNC(from)
		h.Reader, to.Source, to.Values = psync, psync.Keys(), psync.Keys()
	}
	h.Writer = writer.New(to)
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

// spool says where what is read may be kept, and how much of it.
func (l *link) spool() (dir string, most int64, err error) {
	if l.dir != "" {
		dir = reader.SpoolDir(l.dir)
	}
	if most = l.cfg.Spool.MaxBytes; most == 0 {
		most, err = spoolLimit(l.state.path, l.cfg.Buffer.MaxBytes)
	}
	if l.shard != nil {
		most /= int64(len(l.ends.survey.Shards))
	}
	return dir, most, err
}

// reads is how the link reads from its server.
func (l *link) reads(st *checkpoint.State, book *ledger) (reader.PSYNCConfig, error) {
	cfg := l.cfg
	dir, most, err := l.spool()
	from := reader.PSYNCConfig{
		Dialer: l.source, PreferReplica: cfg.PreferReplica, Dir: dir, SpoolMax: most, SpoolWindow: l.window,
		Retain: cfg.Spool.Retain, RetainBytes: cfg.Spool.RetainBytes,
		ReplyTimeout: cfg.ReplyTimeout, Until: reader.Until(cfg.Until), Patience: cfg.ConnectDeadline, AckReceived: cfg.ackReceived(l.ends.source),
		RepeatSnapshot: reader.RepeatOver, OnLostHistory: reader.LostHistory(cfg.OnLostHistory),
		Resume: resume(st), First: firstClean(cfg, st, l.ends.keys), Checkpoint: book, Waits: l.waits, Log: l.log,
	}
	if ownTarget(book.first.Began) {
		from.RepeatSnapshot = reader.RepeatFlush
	}
	if l.shard != nil {
		if !st.Found && l.shard.all.prune {
			from.First = reader.CleanPrune
		}
		from.Find, from.Together, from.Fork = l.shard.find, l.shard.together, l.shard.all.forks.acquire
	}
	return from, err
}

// readsFiles is how the link reads from files.
func (l *link) readsFiles(st *checkpoint.State, book *ledger) (reader.FileConfig, error) {
	dir, most, err := l.spool()
	return reader.FileConfig{
		Input: l.ends.input, Dir: dir, SpoolMax: most, SpoolWindow: l.window,
		Until: reader.Until(l.cfg.Until), OnLostHistory: reader.LostHistory(l.cfg.OnLostHistory),
		Resume: resume(st), First: firstClean(l.cfg, st, l.ends.keys), Checkpoint: book, Waits: l.waits, Log: l.log,
	}, err
}

// defaultLanes are the connections that carry the snapshot to a standalone target, unless another number is set.
const defaultLanes = 2

// writes is how the link writes to the target.
func (l *link) writes(st *checkpoint.State, book *ledger) writer.Config {
	cfg := l.cfg
	to := writer.Config{
		Dialer: l.target, Node: l.ends.target, Modules: l.ends.modules, MaxBulk: l.ends.bulk, Filters: filter.All(cfg.DBs), DBs: cfg.DBs,
		Existing: writer.ExistingReplace, OnError: writer.OnError(cfg.OnError), MaxSkipped: int64(cfg.MaxSkipped),
		Dir: l.state.path, ErrorsLog: l.state.file("errors.log"), SnapshotLanes: cfg.SnapshotLanes, BigValue: cfg.BigValue,
		Unsupported: writer.Unsupported(cfg.Unsupported), UnsupportedLog: l.state.file("unsupported.log"),
		NoTransactions: l.ends.noTransactions != nil, Exact: cfg.Delivery == exactlyOnce, Store: l.store, Lease: l.lease, Ahead: st.Ahead,
		Grace: book.first.Grace, PutOff: book.putOff, ImportSource: book.first.Import,
		ReplyTimeout: cfg.ReplyTimeout, WaitReplicas: cfg.WaitReplicas, Keepalive: cfg.Keepalive.Enabled, PingInterval: cfg.Keepalive.Interval,
		OpenSlots: cfg.OpenSlotTimeout,
		Waits:     l.waits, Log: l.log,
	}
	if to.SnapshotLanes == 0 {
		to.SnapshotLanes = defaultLanes
	}
	if book.first.Began == checkpoint.BeganSkip {
		to.Existing = writer.ExistingSkip
	}
	if st.Found && st.Lost == nil && st.Record.Phase == checkpoint.PhaseStreaming {
		to.Applied, to.ReplayUntil = st.Applied, max(l.ends.sourceOffset(), st.Highest, l.received)
	}
	for _, n := range st.Nodes {
		if n.RunID != "" {
			to.RunIDs = append(to.RunIDs, n.RunID)
		}
	}
	if l.shard != nil {
		to.Shard = l.shard
	}
	return to
}

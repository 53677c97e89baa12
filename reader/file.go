package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/rdbfile"
	"github.com/keyhaul/keyhaul/rdb"
)

// FileConfig describes a reader of files. What it shares with PSYNCConfig means the same.
type FileConfig struct {
	Input         *Input
	Dir           string // of the spool, for snapshots that can only be read once and in order; empty: memory only
	SpoolMax      int64
	SpoolWindow   int64
	Until         Until
	OnLostHistory LostHistory
	Resume        *Resume
	First         Clean
	Checkpoint    Checkpoint

	Waits *haul.Waits
	Log   zerolog.Logger
}

// File reads snapshots, or an append-only file, instead of a server. Its history is the content of the files: a position
// is a byte offset in all of them, so that a later run goes on from what the target has. A snapshot that was not
// written to its end is repeated.
type File struct {
	cfg    FileConfig
	in     *Input
	budget *aof.Budget
	end    int64 // position at which reading ends

	mu     sync.Mutex
	out    *haul.Channel // written once
	status haul.LinkStatus
	now    progress
}

// progress is where in the files a snapshot is read.
type progress struct {
	before int64     // bytes of the files before this one
	part   *part     // nil before the first
	from   int64     // position of its first byte, decompressed
	feeder *feeder   // of what must be read in order; else nil
	keys   int64     // that the files before this one have announced
	began  time.Time // when the first was begun
}

// NewFile returns a reader of the files that cfg.Input has opened.
func NewFile(cfg FileConfig) *File {
	f := &File{cfg: cfg, in: cfg.Input, end: cfg.Input.End(), budget: &aof.Budget{Max: cfg.SpoolMax}}
	if cfg.Until == UntilSnapshot && f.in.AOF() {
		f.end = min(f.end, f.in.baseEnd())
	}
	f.status = haul.LinkStatus{
		Source: f.in.files.String(), Phase: haul.PhaseSnapshot, SnapshotTotal: f.in.snapshotSize(),
		SourceOffset: f.end, Received: -1, Applied: -1, RunwaySeconds: -1, Connected: true,
	}
	return f
}

// Run implements haul.Reader.
func (f *File) Run(ctx context.Context, out *haul.Channel) error {
	f.mu.Lock()
	f.out = out
	f.mu.Unlock()
	at, snapshot, err := f.begin(ctx)
	if err == nil && snapshot {
		at, err = f.snapshot(ctx, at)
	}
	if err != nil {
		return f.fault(ctx, err)
	}
	out.Watermark.Start(at)
	f.mu.Lock()
	f.status.Phase, f.status.SnapshotDone, f.status.Received = haul.PhaseStreaming, true, f.end
	f.mu.Unlock()
	if f.in.AOF() {
		err = f.commands(ctx, at)
	}
	if err != nil {
		return f.fault(ctx, err)
	}
	f.mu.Lock()
	f.status.Phase = haul.PhaseCaughtUp
	f.mu.Unlock()
	return nil
}

// begin decides where to go on. snapshot says that the snapshot is to be written first.
func (f *File) begin(ctx context.Context) (at haul.Position, snapshot bool, err error) {
	r, clean := f.cfg.Resume, f.cfg.First
	known := ""
	if r != nil {
		known = r.Start.ReplID
	}
	id, err := f.in.identify(known)
	if err != nil {
		return at, false, err
	}
	f.mu.Lock()
	f.status.ReplID = id
	f.mu.Unlock()
	if r != nil && !r.Again {
		lost := f.lost(id)
		switch {
		case lost == nil && f.end < r.Base.Offset:
			return at, false, haul.Errorf(haul.ExitRefused, "leave --aof-until out, or begin under another --name on an empty target",
				"the target has the commands of %s up to byte %d already, which is behind byte %d", f.in.files, r.Base.Offset, f.end)
		case lost == nil && r.Streaming:
			f.cfg.Log.Info().Int64("applied_offset", r.Base.Offset).Msg("an earlier run is continued")
			return r.Base, false, nil
		case lost == nil: // what it has written may be of a file that was damaged, and mended since
			f.cfg.Log.Warn().Msg("an earlier run has not written the snapshot to its end: it is written again")
			return f.copy(ctx, id, clean)
		case f.cfg.OnLostHistory == LostFlush:
			clean = CleanFlush
		case f.cfg.OnLostHistory == LostResync:
			clean = CleanPrune
		default:
			return at, false, lost
		}
		f.cfg.Log.Warn().Err(lost).Msg("a new copy is made")
	}
	return f.copy(ctx, id, clean)
}

// copy begins a generation: its snapshot is to be written.
func (f *File) copy(ctx context.Context, id string, clean Clean) (at haul.Position, snapshot bool, err error) {
	at = haul.Position{Generation: uint64(time.Now().UnixMilli()), ReplID: id}
	syncs := []time.Time{time.Now()}
	if r := f.cfg.Resume; r != nil {
		at.Generation, syncs = max(at.Generation, r.Generation+1), append(r.Syncs, syncs...)
	}
	return at, true, f.cfg.Checkpoint.Begin(ctx, at, clean, syncs)
}

// lost tells why the files are not what an earlier run has read, if they are not.
func (f *File) lost(id string) error {
	const remedy = "give the files that the haul began with, or another --name; or start again with --on-lost-history resync for a new copy over the old one, or flush for one from nothing"
	r := f.cfg.Resume
	switch highest := max(r.Highest, r.Base.Offset); {
	case r.Start.ReplID != id:
		return haul.Errorf(haul.ExitHistoryLost, remedy,
			"%s is not what this haul has read before: that was %s, this is %s", f.in.files, r.Start.ReplID, id)
	case highest > f.in.size() && f.in.AOF():
		return haul.Errorf(haul.ExitHistoryLost, remedy,
			"%s has %d bytes, and the target has its commands up to byte %d", f.in.files, f.in.size(), highest)
	}
	return nil
}

// snapshot writes the snapshots, and returns where the stream begins.
func (f *File) snapshot(ctx context.Context, start haul.Position) (haul.Position, error) {
	f.mu.Lock()
	f.now = progress{began: time.Now()}
	f.mu.Unlock()
	for from := int64(0); ; {
		p := f.nextSnapshot()
		if p == nil {
			break
		}
		event := f.cfg.Log.Info().Str("file", p.path)
		if p.size >= 0 {
			event = event.Int64("bytes", p.size)
		}
		event.Msg("reading a snapshot")
		db, end, err := f.snapshotOf(ctx, p, from)
		if err != nil {
			return start, err
		}
		from = end
		if f.in.AOF() {
			start.DB, start.Offset = db, end
		}
	}
	if err := f.in.unchanged(); err != nil {
		return start, err
	}
	if err := f.cfg.Checkpoint.Streaming(ctx, start); err != nil {
		return start, err
	}
	progress := f.out.Watermark.Progress()
	f.cfg.Log.Info().Int64("keys", progress.SnapshotKeys).Int64("bytes", progress.SnapshotBytes).
		Str("took", time.Since(f.now.began).Round(time.Millisecond).String()).Msg("the snapshot is on the target")
	return start, nil
}

// nextSnapshot returns the file that is read next; nil if no snapshot is left.
func (f *File) nextSnapshot() *part {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := 1 + slices.Index(f.in.parts, f.now.part)
	if i == len(f.in.parts) || f.in.AOF() && (i > 0 || !f.in.parts[0].snapshot()) {
		return nil
	}
	if f.now.part != nil {
		f.now.before += max(f.now.part.size, 0)
		f.now.keys = f.status.SnapshotKeysAll
	}
	f.now.part = f.in.parts[i]
	return f.now.part
}

// snapshotOf writes the snapshot of one file, whose first byte has the position from. It returns when that is
// acknowledged: of keys that two files have, the later one counts.
func (f *File) snapshotOf(ctx context.Context, p *part, from int64) (db int32, end int64, err error) {
	in := snapshotInput{from: from}
	if !f.in.AOF() { // as servers do; the commands of an append-only file need the keys as they were
		in.whole, in.expired = true, time.Now().UnixMilli()
	}
	decode := func(ctx context.Context) error {
		db, end, err = decodeSnapshot(ctx, in, f.out, f.announced, f.cfg.Checkpoint.Seen)
		if err == nil {
			err = f.out.Watermark.Drain(ctx)
		}
		return err
	}
	f.mu.Lock()
	f.now.from, f.now.feeder = from, nil
	f.mu.Unlock()
	if !p.streamed() {
		in.source, in.bytes = &section{part: p, to: p.size}, &shifted{p, from}
		err = decode(ctx)
	} else {
		feeder := newFeeder(f, p, from)
		f.mu.Lock()
		f.now.feeder = feeder
		f.mu.Unlock()
		in.source, in.bytes = feeder.spool.Reader(), feeder.spool
		err = feeder.run(ctx, decode)
	}
	var at *rdb.PositionError
	if errors.As(err, &at) {
		own := *at
		own.Offset -= from
		err = &fileError{p.path, &own}
	}
	return db, end, err
}

// shifted reads a file by positions that begin at from.
type shifted struct {
	part *part
	from int64
}

// ReadAt implements io.ReaderAt.
func (s *shifted) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.part.file.ReadAt(b, off-s.from)
	if err != nil {
		err = s.part.failed(err)
	}
	return n, err
}

// announced hears how many keys the snapshot in hand has.
func (f *File) announced(keys int64) {
	f.mu.Lock()
	f.status.SnapshotKeysAll = f.now.keys + keys
	f.mu.Unlock()
}

// commands writes the commands of an append-only file.
func (f *File) commands(ctx context.Context, at haul.Position) error {
	behind, err := decodeFiles(ctx, f.in, f.end, f.out, at, f.splitTransaction)
	if err == nil {
		err = f.out.Watermark.Drain(ctx)
	}
	if err == nil {
		err = f.in.unchanged()
	}
	if file := (*fileError)(nil); errors.As(err, &file) && !errors.Is(err, errChanged) {
		return haul.Errorf(haul.ExitFailed, fmt.Sprintf("check the file with redis-check-aof (on a copy: it can mend it), or take what is before that place, and the true deadlines, by --aof-until offset:%d",
			behind.Offset), "%w", err)
	}
	if err != nil {
		return err
	}
	if behind.Offset < f.end && f.end == f.in.size() {
		f.cfg.Log.Warn().Int64("applied_offset", behind.Offset).Int64("bytes", f.end-behind.Offset).
			Msg("the append-only file ends within a command or transaction: what is behind the applied offset was not written, as a server would have it (aof-load-truncated)")
	}
	return nil
}

func (f *File) splitTransaction() {
	f.mu.Lock()
	f.status.TransactionsCut++
	f.mu.Unlock()
	f.cfg.Log.Warn().Msg("a transaction of the source is larger than the buffer allows and goes on command by command")
}

// newer is what to do about a snapshot that is not understood.
const newer = "use a keyhaul that knows the release which made the file"

// fault makes an error of the files' content one that says what to do.
func (f *File) fault(ctx context.Context, err error) error {
	var file *fileError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, new(*haul.Error)):
		return err
	case errors.Is(err, errChanged):
		return haul.Errorf(haul.ExitFailed, "start again when nobody writes to the file any more, or with a copy of it; the target holds a part of the data", "%w", err)
	case errors.Is(err, rdb.ErrFollowed):
		return haul.Errorf(haul.ExitFailed, "if commands follow, for it is an append-only file, name it as aof://…; else begin anew with a copy without these bytes (head -c)", "%w", err)
	case errors.Is(err, rdb.ErrUnsupported):
		return haul.Errorf(haul.ExitFailed, newer+"; the target may hold a part of the data", "%w", err)
	case errors.As(err, &file):
		return haul.Errorf(haul.ExitFailed, "check the file with redis-check-rdb, and start again with a whole one; the target may hold a part of the data", "%w", err)
	}
	return err
}

// Status implements haul.Reader.
func (f *File) Status() haul.LinkStatus {
	f.mu.Lock()
	s, out, now := f.status, f.out, f.now
	f.mu.Unlock()
	if out == nil {
		return s
	}
	at, done := out.Watermark.Stream(), out.Watermark.Progress()
	s.SnapshotKeys, s.Entries, s.Spooled = done.SnapshotKeys, done.Entries, f.budget.Used()
	s.SnapshotBytes = now.bytes(done.SnapshotBytes)
	s.Applied, s.DB = at.Offset, at.DB
	if at.Offset >= 0 {
		s.LagBytes = max(s.SourceOffset-at.Offset, 0)
	}
	if len(f.cfg.Waits.List()) > 0 {
		s.Phase = haul.PhaseWaiting
	}
	return s
}

// bytes is how much of the files is written, where applied is that position in what they hold decompressed.
func (p *progress) bytes(applied int64) int64 {
	of := max(applied-p.from, 0)
	if p.feeder != nil {
		of = p.feeder.packed(of)
	}
	return p.before + of
}

// snapshotSize is the size of all files with snapshots; 0 if it is not known.
func (in *Input) snapshotSize() (n int64) {
	if in.AOF() && len(in.parts) == 1 { // commands follow in the same file
		return 0
	}
	for _, p := range in.parts {
		if p.size < 0 {
			return 0
		}
		if p.snapshot() || p.pack != rdbfile.PackNone {
			n += p.size
		}
	}
	return n
}

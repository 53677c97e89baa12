package writer

import (
	"context"
	"maps"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// FileConfig describes a target that is a file.
type FileConfig struct {
	FileTarget
	Replace bool // a file that has this name is replaced at the end
	Filters []haul.Filter
	DBs     haul.DBMap
	Source  topology.Node // what is known of the source; zero if that is a file
	// Release is what commands are written for instead of the source's own: then values are plain commands. Zero: RESTORE
	// with the source's own bytes.
	Release        rdb.Release
	Unsupported    Unsupported // what becomes of values that the release has no form for
	UnsupportedLog string      // path; empty: what is lost is only logged
	Log            zerolog.Logger
}

// File writes entries to a file, which has its name only from Commit on.
type File struct {
	cfg  FileConfig
	out  *output
	form fileForm

	lacked *listFile // unsupported.log

	mu     sync.Mutex
	counts map[string]int64 // guarded by mu
}

// fileForm writes what a format consists of.
type fileForm interface {
	// write appends entries of b, n from first on. No filter has taken one of them out.
	write(b *haul.Batch, first, n uint32) error
	// finish appends what stands at the end.
	finish() error
}

// OpenFile prepares a file beside the one that is to be written. The caller ends with Commit or Abort.
func OpenFile(cfg FileConfig) (*File, error) {
	out, err := openOutput(cfg)
	if err != nil {
		return nil, err
	}
	f := &File{cfg: cfg, out: out, counts: make(map[string]int64), lacked: &listFile{path: cfg.UnsupportedLog}}
	f.begin()
	return f, nil
}

func (f *File) begin() {
	switch f.cfg.Format {
	case FileRDB:
		f.form = newRDBFile(f.out, f.cfg)
	case FileRESP:
		if f.cfg.Release != (rdb.Release{}) {
			f.form = newPlainFile(f)
			return
		}
		f.form = newRESPFile(f.out, f.cfg)
	case FileJSONL:
		f.form = newJSONLFile(f.out, f.cfg)
	}
}

// Restart begins the file anew. It may be called while nothing that was sent to the writer is outstanding.
func (f *File) Restart() error {
	if err := f.out.restart(); err != nil {
		return err
	}
	f.begin()
	return nil
}

// Run implements haul.Writer. What it has acknowledged is in the file once that is committed.
func (f *File) Run(ctx context.Context, in *haul.Channel) error {
	for {
		select {
		case b, ok := <-in.Batches():
			if !ok {
				return nil
			}
			if err := f.accept(b); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// accept filters a batch and writes what is left of it.
func (f *File) accept(b *haul.Batch) error {
	for _, filter := range f.cfg.Filters {
		filter.Apply(b)
	}
	for i := range b.Entries {
		why := b.Entries[i].Drop
		if why == haul.DropNone {
			continue
		}
		if e := refusedDrop(why); e != nil {
			return haul.Errorf(haul.ExitFailed, "name each database in --db-map, or leave keys of that kind out on the source",
				"an entry at byte %d of the source, in database %d: %s", b.Entries[i].Start, b.Entries[i].DB, e.Text)
		}
		f.count("dropped_"+why.String(), 1)
	}
	var err error
	eachRun(b, 0, len(b.Entries), func(first, n uint32) {
		if err == nil {
			err = f.form.write(b, first, n)
		}
	})
	if err != nil {
		return err
	}
	b.Done(len(b.Entries))
	return nil
}

// lacks decides on a key of which the release cannot hold everything, and lists what is lost.
func (f *File) lacks(it item, what string, rest bool) (treatment, error) {
	e := it.entry()
	how, done := leaveOut, "dropped"
	if f.cfg.Unsupported == UnsupportedDegrade && rest {
		how, done = degrade, "degraded"
	}
	command, keys := keysOf(it)
	if f.cfg.Unsupported == UnsupportedFail {
		return how, haul.Errorf(haul.ExitFailed,
			"write for a release that has them, or use --unsupported degrade (done without) or drop (left out), which list each key in unsupported.log",
			"%s has no %s: %s in database %d", f.cfg.Release, what, quoted(keys), e.DB)
	}
	f.count("unsupported_"+done, 1)
	f.cfg.Log.Warn().Strs("keys", keys).Str("lacks", what).Str("done", done).Msg("the release has no form for a part of the data")
	return how, f.lacked.add(unsupported{
		Time: time.Now().UTC(), Snapshot: true, Position: e.Start, DB: e.DB, Command: command, Keys: keys, Lacks: what, Done: done,
	})
}

func (f *File) count(what string, n int64) {
	f.mu.Lock()
	f.counts[what] += n
	f.mu.Unlock()
}

// Commit ends the file and gives it its name. It is on the disk then.
func (f *File) Commit() error {
	if err := f.form.finish(); err != nil {
		return err
	}
	return f.out.commit()
}

// Abort removes what was written, unless it was committed.
func (f *File) Abort() {
	f.out.abort()
	f.lacked.close()
}

// Status implements haul.Writer.
func (f *File) Status() haul.WriterStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return haul.WriterStatus{
		Target: f.cfg.String(), Mode: "file", Ready: true, Counts: maps.Clone(f.counts),
		Lanes: []haul.LaneStatus{{Address: f.cfg.Path, State: "writing", Written: f.out.written.Load()}},
	}
}

package writer

import (
	"context"
	"maps"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// FileConfig describes a target that is a file.
type FileConfig struct {
	FileTarget
	Replace bool // a file that has this name is replaced at the end
	// Plain says that values become plain commands, as Node takes them. Else they are RESTORE with the source's own bytes.
	Plain bool

	Node           topology.Node // that commands are for, or that a snapshot comes from; zero if that is not known
	Filters        []haul.Filter
	DBs            haul.DBMap
	Unsupported    Unsupported // what becomes of what Node has no form for
	UnsupportedLog string      // path; empty: what is lost is only logged
	Log            zerolog.Logger
}

// File writes entries to a file, which has its name only from Commit on.
type File struct {
	cfg  FileConfig
	out  *output
	form fileForm
	d    *dispatcher // gives commands their form, counts and lists, as for a server; nothing is dispatched
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
	f := &File{cfg: cfg, out: out, d: newDispatcher(Config{
		Node: cfg.Node, DBs: cfg.DBs, Existing: ExistingReplace, OnError: OnErrorStop,
		Unsupported: cfg.Unsupported, UnsupportedLog: cfg.UnsupportedLog, Log: cfg.Log,
	})}
	f.d.enc.strings = false // a command for each key
	f.begin()
	return f, nil
}

func (f *File) begin() {
	switch f.cfg.Format {
	case FileRDB:
		f.form = newRDBFile(f.out, f.cfg)
	case FileRESP:
		f.form = newRESPFile(f.out, f.d, f.cfg.Plain)
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
	if f.cfg.Stream() {
		if err := f.d.rewriter.apply(b); err != nil {
			return err
		}
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
		f.d.count("dropped_"+why.String(), 1)
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
	f.d.lacked.close()
}

// Status implements haul.Writer.
func (f *File) Status() haul.WriterStatus {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return haul.WriterStatus{
		Target: f.cfg.String(), Mode: "file", Ready: true, Counts: maps.Clone(f.d.counts),
		Lanes: []haul.LaneStatus{{Address: f.cfg.Path, State: "writing", Written: f.out.written.Load()}},
	}
}

package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/filter"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
	"github.com/keyhaul/keyhaul/reader"
	"github.com/keyhaul/keyhaul/writer"
)

// toFile takes the source to a file. There is no checkpoint: whatever breaks it off, the next run begins anew.
func (a *app) toFile(ctx context.Context, e *ends) error {
	if e.survey != nil {
		return haul.Errorf(haul.ExitRefused, "write a file of each shard: redis-cli --rdb, or BGSAVE on each primary, and keyhaul sync --source rdb://…",
			"the source is a cluster, whose shards cannot be written to one file")
	}
	if e.input != nil && e.input.Several() && a.cfg.Target.Output.Format == writer.FileRDB {
		return haul.Errorf(haul.ExitRefused, "name one, or write a resp:// file: its later keys replace earlier ones of the same name",
			"several snapshots cannot be written to one: a key that two of them have would be there twice, and no server would load it")
	}
	to := writer.FileConfig{
		FileTarget: *a.cfg.Target.Output, Replace: a.cfg.Existing == existingReplace,
		Node: e.source, Filters: filter.All(a.cfg.DBs), DBs: a.cfg.DBs,
		Unsupported: writer.Unsupported(a.cfg.Unsupported), UnsupportedLog: a.state.file("unsupported.log"), Log: a.log,
	}
	if r := a.cfg.TargetRelease; r != (rdb.Release{}) {
		to.Plain, to.Node = true, topology.NodeOf(r)
	}
	if err := to.MayBegin(); err != nil {
		return err
	}
	if e.input != nil && e.input.Reads(to.Path) {
		return haul.Errorf(haul.ExitRefused, "name another file as the target", "the target %s is a file that is read", to.Path)
	}
	for _, line := range e.filePlan(a.cfg) {
		if a.cfg.DryRun {
			fmt.Println(line)
		} else {
			a.log.Info().Msg(line)
		}
	}
	if a.cfg.DryRun {
		return nil
	}
	file, err := writer.OpenFile(to)
	if err != nil {
		return err
	}
	defer file.Abort()
	l := &link{app: a, ends: e, source: a.source, log: a.log, waits: a.waits, window: spoolWindow}
	if a.state.path != "" { // beside the spool of a haul to a server
		l.dir = a.state.file("output")
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return haul.Errorf(haul.ExitUsage, "choose another --state-dir", "state directory: %w", err)
		}
		defer os.RemoveAll(l.dir) //nolint:errcheck // the next run empties it
	}
	h := &haul.Haul{Writer: file, Channel: haul.NewChannel(a.cfg.Buffer.MaxBytes), DrainDeadline: a.cfg.DrainDeadline}
	if h.Reader, err = l.readsForFile(file); err != nil {
		return err
	}
	a.monitor.watch("", h.Reader, file)
	a.monitor.begin(a.log, a.terminal)
	defer a.monitor.end()
	if err := h.Run(ctx); err != nil {
		return err
	}
	if err := file.Commit(); err != nil {
		return err
	}
	a.log.Info().Str("file", to.Path).Msg("the file is whole")
	return nil
}

// readsForFile makes the reader of a haul to a file.
func (l *link) readsForFile(file *writer.File) (haul.Reader, error) {
	nothing, book := &checkpoint.State{}, &ledger{}
	if l.ends.input != nil {
		from, err := l.readsFiles(nothing, book)
		from.Checkpoint = fileBook{file}
		return reader.NewFile(from), err
	}
	from, err := l.reads(nothing, book)
	from.Checkpoint, from.RepeatSnapshot = fileBook{file}, reader.RepeatFlush
	return reader.NewPSYNC(from), err
}

// fileBook is the reader's Checkpoint where the target is a file: a snapshot that is sent again begins the file anew.
type fileBook struct{ file *writer.File }

// Begin implements reader.Checkpoint.
func (b fileBook) Begin(context.Context, haul.Position, reader.Clean, []time.Time) error {
	return b.file.Restart()
}

// Seen implements reader.Checkpoint.
func (fileBook) Seen(int32, []byte) error { return nil }

// Streaming implements reader.Checkpoint.
func (fileBook) Streaming(context.Context, haul.Position) error { return nil }

// filePlan says what is going to happen where the target is a file.
func (e *ends) filePlan(cfg config) []string {
	existing := "a new file"
	if cfg.Existing == existingReplace {
		existing = "in place of what has this name, once it is whole"
	}
	return append([]string{
		fmt.Sprintf("source  %s: %s", cfg.Source, e.origin()),
		fmt.Sprintf("target  %s: %s", cfg.Target, existing),
		fmt.Sprintf("haul    %q: full copy, until %s; nothing of it is kept if it breaks off", cfg.Name, cfg.Until),
	}, mapped(cfg.DBs)...)
}

// needsServer refuses what can be done to a server only.
func (c config) needsServer(command string) error {
	if c.Target.Output == nil {
		return nil
	}
	return usageError{fmt.Errorf("%s needs a target that is a server or a cluster; a file is finished when sync ends", command)}
}

package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/rdbfile"
)

// feeder takes a snapshot that can only be read once and in order, since it is compressed or no file, into a spool: so
// that large values of it can be read again when they are written. The spool holds what is not written yet, and the file
// is read no faster than the target takes it.
type feeder struct {
	file  *File
	part  *part
	from  int64 // position of the first byte
	spool *aof.Spool
	read  atomic.Int64 // bytes of the file, as it is
}

func newFeeder(f *File, p *part, from int64) *feeder {
	lineage := aof.Lineage{ReplID: f.status.ReplID, Generation: uint64(time.Now().UnixMilli())}
	return &feeder{file: f, part: p, from: from, spool: aof.NewSpool(aof.SpoolConfig{
		Dir: f.cfg.Dir, Kind: aof.SpoolSnapshot, Window: f.cfg.SpoolWindow, Budget: f.budget, Log: f.cfg.Log,
	}, lineage, from)}
}

// run feeds the spool while decode reads from it.
func (r *feeder) run(ctx context.Context, decode func(context.Context) error) error {
	if r.file.cfg.Dir != "" { // what a process that was killed has left
		if err := aof.RemoveStale(r.file.cfg.Dir, r.spool.Lineage()); err != nil {
			return haul.Errorf(haul.ExitUsage, "give keyhaul a state directory that it may write to, or one of its own", "spool: %w", err)
		}
	}
	spoolCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var spooling errgroup.Group
	spooling.Go(func() error { return r.spool.Run(spoolCtx) })
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.feed(gctx) })
	g.Go(func() error { return decode(gctx) })
	err := g.Wait()
	stop()
	if spoolErr := spooling.Wait(); spoolErr != nil {
		r.file.cfg.Log.Warn().Err(spoolErr).Msg("the spool could not be closed")
	}
	r.spool.Remove()
	return err
}

// feed takes the file into the spool.
func (r *feeder) feed(ctx context.Context) error {
	if r.part.size < 0 {
		if r.part.used { // the target was lost meanwhile, and has less than was read
			return haul.Errorf(haul.ExitFailed, "start again, with the snapshot from its beginning", "%s cannot be read a second time", r.part.path)
		}
		r.part.used = true
		stop := context.AfterFunc(ctx, func() { _ = r.part.file.SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
	}
	bytes, err := r.unpack()
	if err != nil {
		return r.failed(err)
	}
	defer bytes.Close() //nolint:errcheck // only read
	for {
		room, err := r.room(ctx)
		if err != nil {
			return err
		}
		n, err := bytes.Read(room)
		if n > 0 {
			r.spool.Commit(n)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			r.spool.Finish()
			return nil
		case err != nil:
			return r.failed(err)
		}
	}
}

// failed says where in the file its content cannot be read.
func (r *feeder) failed(err error) error {
	if r.part.pack != rdbfile.PackNone {
		err = fmt.Errorf("%s data near byte %d cannot be decompressed: %w", r.part.pack, r.read.Load(), err)
	}
	return &fileError{r.part.path, err}
}

// unpack returns what is in the file.
func (r *feeder) unpack() (io.ReadCloser, error) {
	in := io.Reader(io.NewSectionReader(r.part.file, 0, r.part.size))
	if r.part.size < 0 {
		in = r.part.in
	}
	return r.part.pack.Unpack(&counted{in, &r.read})
}

// counted counts what is read.
type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// room returns room in the spool, and waits for the target if there is none.
func (r *feeder) room(ctx context.Context) ([]byte, error) {
	const poll = 20 * time.Millisecond
	var stuck stuckness
	for {
		r.spool.Trim(r.file.out.Watermark.Progress().SnapshotBytes)
		room, err := r.spool.Buffer(ctx)
		if !errors.Is(err, aof.ErrFull) {
			return room, err
		}
		if stuck.time(r.file.out.Watermark) > stuckAfter {
			return nil, errors.Join(tooLarge(r.file.budget), r.spool.DiskError())
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// packed turns a number of bytes of what is in the file into one of the file's own bytes, about.
func (r *feeder) packed(n int64) int64 {
	if all := r.spool.End() - r.from; all > 0 {
		return int64(float64(r.read.Load()) * float64(n) / float64(all))
	}
	return 0
}

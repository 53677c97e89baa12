package haul

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Reader brings entries. Run sends batches until ctx ends or its goal is reached (then it returns nil). It does not
// close the channel.
type Reader interface {
	Run(ctx context.Context, out *Channel) error
	Status() LinkStatus
}

// Filter decides which entries pass; it sets Entry.Drop on those that do not. It is called for every batch by one
// goroutine.
type Filter interface {
	Apply(b *Batch)
}

// Writer takes entries to the target. Run receives batches until the channel is closed and every entry is
// acknowledged, or ctx ends.
type Writer interface {
	Run(ctx context.Context, in *Channel) error
	Status() WriterStatus
}

// Haul is one pipeline from a reader to a writer.
type Haul struct {
	Reader        Reader
	Writer        Writer
	Channel       *Channel
	DrainDeadline time.Duration // how long a stopped haul may go on writing what it has read
}

// ErrInterrupted is the cause of a context that a signal has ended.
var ErrInterrupted = errors.New("interrupted")

// ErrNotDrained says that a stopped haul had to leave some of what it had read unwritten.
var ErrNotDrained = errors.New("what was read could not be written")

// Run hauls until the reader's goal is reached, something fails, or ctx ends: then it reads no more, and what was read
// is written and acknowledged until the drain deadline.
func (h *Haul) Run(ctx context.Context) error {
	readCtx, stopReading := context.WithCancelCause(ctx)
	defer stopReading(nil)
	writeCtx, stopWriting := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWriting(nil)

	var readErr error
	var g errgroup.Group
	g.Go(func() error {
		readErr = h.Reader.Run(readCtx, h.Channel)
		if readCtx.Err() != nil { // it was stopped, whatever it says
			readErr = context.Cause(readCtx)
		}
		h.Channel.Close()
		timer := time.AfterFunc(h.DrainDeadline, func() {
			stopWriting(fmt.Errorf("%w within %v", ErrNotDrained, h.DrainDeadline))
		})
		context.AfterFunc(writeCtx, func() { timer.Stop() })
		return nil
	})
	g.Go(func() error {
		defer stopWriting(nil)
		err := h.Writer.Run(writeCtx, h.Channel)
		if err != nil {
			stopReading(err)
		}
		return err
	})
	writeErr := g.Wait()
	switch {
	case readErr == nil:
		return writeErr
	case writeErr == nil || errors.Is(readErr, writeErr): // what stopped the reader may be the writer's error
		return readErr
	}
	return fmt.Errorf("%w; %w", readErr, writeErr)
}

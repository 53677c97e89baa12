package haul

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a reader that sends n batches of one entry, one each second, and then returns err, or waits for ctx.
type scripted struct {
	n    int
	wait bool
	err  error
}

func (r scripted) Run(ctx context.Context, out *Channel) error {
	for i := range r.n {
		b, err := out.New(ctx)
		if err != nil {
			return err
		}
		b.Entries = append(b.Entries, Entry{})
		b.End.Offset = int64(i + 1)
		if err := out.Send(ctx, b); err != nil {
			return err
		}
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	if r.wait {
		<-ctx.Done()
		return fmt.Errorf("read: %w", ctx.Err())
	}
	return r.err
}

func (scripted) Status() LinkStatus { return LinkStatus{} }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// slow is a writer that takes a while for each entry, and fails at entry failAt.
type slow struct {
	each   time.Duration
	failAt int
	err    error
}

func (w slow) Run(ctx context.Context, in *Channel) error {
	for n := 1; ; n++ {
		select {
		case b, ok := <-in.Batches():
			if !ok {
				return nil
			}
			if n == w.failAt {
				return w.err
			}
			if err := pause(ctx, w.each); err != nil {
				return err
			}
			b.Done(1)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (slow) Status() WriterStatus { return WriterStatus{} }

func TestRun(t *testing.T) {
	lost := Errorf(ExitHistoryLost, "", "history lost")
	refused := Errorf(ExitFailed, "", "refused")
	const late = "could not be written within 8s"
	for _, tt := range []struct {
		name    string
		reader  scripted
		writer  slow
		stop    time.Duration // when ctx ends; 0: never
		applied int64
		took    time.Duration
		is      error
		not     error
		text    string
		exit    Exit
	}{
		{"goal reached", scripted{n: 3}, slow{each: time.Millisecond}, 0, 3, 3 * time.Second, nil, nil, "", ExitDone},
		{"goal reached, target slow", scripted{n: 3}, slow{each: 2 * time.Second}, 0, 3, 6 * time.Second, nil, nil, "", ExitDone},
		{"reader fails, rest is written", scripted{n: 3, err: lost}, slow{each: 2 * time.Second}, 0, 3, 6 * time.Second, lost, nil, "", ExitHistoryLost},
		{"reader fails, rest is not written", scripted{n: 3, err: lost}, slow{each: time.Minute}, 0, -1, 11 * time.Second, lost, nil, late, ExitHistoryLost},
		{"goal reached, rest is not written", scripted{n: 3}, slow{each: time.Minute}, 0, -1, 11 * time.Second, nil, nil, late, ExitFailed},
		{"writer fails", scripted{n: 9, wait: true}, slow{failAt: 2, err: refused}, 0, 1, time.Second, refused, context.Canceled, "", ExitFailed},
		{"writer fails after the reader", scripted{n: 3, err: lost}, slow{each: 2 * time.Second, failAt: 3, err: refused}, 0, 2, 4 * time.Second, refused, nil, "history lost", ExitHistoryLost},
		{"stopped, drained", scripted{n: 3, wait: true}, slow{each: 2 * time.Second}, 4 * time.Second, 3, 6 * time.Second, ErrInterrupted, nil, "by hand", ExitFailed},
		{"stopped, not drained", scripted{n: 3, wait: true}, slow{each: time.Minute}, 4 * time.Second, -1, 12 * time.Second, ErrInterrupted, nil, late, ExitFailed},
		{"stopped while reading", scripted{n: 100}, slow{each: time.Millisecond}, 2500 * time.Millisecond, 3, 2500 * time.Millisecond, ErrInterrupted, nil, "", ExitFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.stop > 0 {
					time.AfterFunc(tt.stop, func() { cancel(fmt.Errorf("%w by hand", ErrInterrupted)) })
				}
				h := &Haul{Reader: tt.reader, Writer: tt.writer, Channel: NewChannel(1), DrainDeadline: 8 * time.Second}
				start := time.Now()
				err := h.Run(ctx)
				if took := time.Since(start).Truncate(10 * time.Millisecond); took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
				if applied := h.Channel.Watermark.Stream().Offset; applied != tt.applied {
					t.Errorf("applied %d, want %d", applied, tt.applied)
				}
				switch {
				case tt.is == nil && tt.text == "":
					if err != nil {
						t.Errorf("err = %v", err)
					}
				case err == nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text):
					t.Errorf("err = %v, want %v and %q", err, tt.is, tt.text)
				case tt.not != nil && errors.Is(err, tt.not):
					t.Errorf("err = %v, a consequence", err)
				}
				if got := ExitOf(err); got != tt.exit {
					t.Errorf("exit %d, want %d", got, tt.exit)
				}
			})
		})
	}
}

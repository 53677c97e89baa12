package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/feed"
	"github.com/keyhaul/keyhaul/rdb"
)

// commandFile is what a streamDecoder knows of the file that it reads.
type commandFile struct {
	in      *Input
	to      int64 // position behind what is read of the file
	counted bool  // the batch in hand has commands that count time from when they were executed
}

// errCut says that a file ends within a command, or within a transaction.
var errCut = errors.New("it ends within a command or transaction")

// decodeFiles sends the commands of an append-only file from position at up to its end, or to what was chosen as that. It
// returns the position behind the last command, or transaction, that is whole. What is behind it was cut off.
func decodeFiles(ctx context.Context, in *Input, end int64, out *haul.Channel, at haul.Position, split func()) (haul.Position, error) {
	file := &commandFile{in: in}
	events := streamEvents{getack: func(int64) {}, split: split, id: func(int64) string { return at.ReplID }, file: file}
	d, err := newStreamDecoder(ctx, in, out, at, events)
	if err != nil {
		return at, err
	}
	defer d.discard()
	d.executed(in.modified())
	for i, p := range in.parts {
		to := min(p.from+p.size, end)
		if d.end.Offset >= to {
			continue
		}
		if d.end.Offset == p.from { // servers load each file with a client of its own
			d.end.DB = 0
		}
		file.to = to
		src := &section{part: p, off: d.end.Offset - p.from, to: to - p.from}
		d.window = feed.New(ctx, src, d.batcher, d.end.Offset, out.EntryLimit(), nil)
		err := d.toEnd()
		if errors.Is(err, errCut) && (i == len(in.parts)-1 || to == end) {
			break
		}
		if err != nil {
			return d.end, p.within(err)
		}
	}
	behind := d.end
	return behind, d.send(ctx)
}

// toEnd decodes to the end of one file.
func (d *streamDecoder) toEnd() error {
	for {
		switch err := d.next(); {
		case err == nil:
		case errors.Is(err, io.EOF) && !d.tx.open:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return errCut
		default:
			return err
		}
	}
}

// annotation passes a line that is no command.
func (d *streamDecoder) annotation() (passed bool, err error) {
	seconds, passed, err := aof.Annotation(d.window)
	if !passed || err != nil {
		return false, err
	}
	d.pass()
	if seconds == 0 || d.tx.open {
		return true, nil
	}
	if d.file.counted {
		if err := d.window.HandOn(); err != nil {
			return false, err
		}
		d.file.counted = false
	}
	d.executed(time.Unix(seconds, 0))
	return true, nil
}

// executed says when the source has executed what follows.
func (d *streamDecoder) executed(at time.Time) {
	d.received = func(int64) time.Time { return at }
}

// whole makes sure that the end of a large transaction is there before its first command is sent.
func (d *streamDecoder) whole() error {
	open := true
	err := d.file.in.walk(d.window.Context(), d.window.Offset(), d.file.to, func(_, _ int64, spec *command.Spec) bool {
		open = spec != d.specs.exec
		return open
	})
	if err == nil && open {
		return errCut
	}
	return err
}

// countsFromNow tells whether a command has a time to live that begins when it is executed.
func countsFromNow(b *haul.Batch, c *haul.Command) bool {
	if !c.Spec.HasDeadline() {
		return false
	}
	var room [4]command.Deadline
	for _, x := range c.Spec.Deadlines(room[:0], int(c.NArg), func(i int) []byte { return b.Arg(c, i) }) {
		if x.Relative {
			return true
		}
	}
	return false
}

// bound finds where reading stops.
func (in *Input) bound(ctx context.Context) error {
	stop := in.files.Stop
	if stop == (Stop{}) {
		return nil
	}
	const remedy = "look at --aof-until, and at aof-timestamp-enabled of the server that wrote the file"
	begin, err := in.commands(ctx)
	if err != nil {
		return haul.Errorf(haul.ExitRefused, "check the file with redis-check-aof", "%w", err)
	}
	if stop.Offset > 0 {
		if in.end = stop.Offset; stop.Offset < begin || stop.Offset > in.size() {
			return haul.Errorf(haul.ExitRefused, remedy, "%s: byte %d is not within its commands, which are from byte %d to %d",
				in.files, stop.Offset, begin, in.size())
		}
		return nil
	}
	first := int64(0)
	for _, p := range in.parts {
		to := p.from + p.size
		if to <= begin {
			continue
		}
		passed := false
		err := in.walk(ctx, max(begin, p.from), to, func(offset, seconds int64, _ *command.Spec) bool {
			if seconds > 0 && first == 0 {
				first = seconds
			}
			if passed = seconds > stop.Time.Unix(); passed {
				in.end = offset
			}
			return !passed
		})
		if err != nil && !errors.Is(err, errCut) {
			return haul.Errorf(haul.ExitRefused, "check the file with redis-check-aof", "%w", p.within(err))
		}
		if passed {
			break
		}
	}
	switch {
	case first == 0:
		return haul.Errorf(haul.ExitRefused, remedy, "%s has no timestamps", in.files)
	case first > stop.Time.Unix():
		return haul.Errorf(haul.ExitRefused, remedy, "%s has no commands up to %s: its first timestamp is %s", in.files,
			stop.Time.UTC().Format(time.RFC3339), time.Unix(first, 0).UTC().Format(time.RFC3339))
	}
	return nil
}

// commands is the position at which the commands begin.
func (in *Input) commands(ctx context.Context) (int64, error) {
	p := in.parts[0]
	if !p.snapshot() {
		return 0, nil
	}
	if len(in.parts) > 1 {
		return p.size, nil
	}
	d := rdb.NewDecoder(func(sum func([]byte)) *feed.Window {
		return feed.New(ctx, &section{part: p, to: p.size}, &scrap{}, 0, headBytes, sum)
	})
	err := d.Header()
	for r := (rdb.Record{}); err == nil && r.Kind != rdb.KindEnd; {
		err = d.Next(&r)
	}
	return d.Window().Offset(), p.within(err)
}

// baseEnd is the position behind what the file began with: the goal of a run that is to end with the snapshot.
func (in *Input) baseEnd() int64 {
	if p := in.parts[0]; p.base {
		return p.size
	}
	return 0
}

// walk looks at commands between two positions in one file: their positions, the times of annotations, and what commands
// they are. It ends when look says so. It fails with errCut if the bytes end within a command.
func (in *Input) walk(ctx context.Context, from, to int64, look func(offset, seconds int64, spec *command.Spec) bool) error {
	var p *part
	for _, p = range in.parts {
		if from < p.from+p.size {
			break
		}
	}
	w := feed.New(ctx, &section{part: p, off: from - p.from, to: to - p.from}, &scrap{}, from, headBytes, nil)
	var args []aof.Arg
	for {
		w.Begin()
		at := w.Offset()
		var spec *command.Spec
		seconds, passed, err := aof.Annotation(w)
		if err == nil && !passed {
			args, err = aof.Read(w, args[:0])
			if err == nil && len(args) > 0 && args[0].Off+args[0].Len <= int64(len(w.Kept())) {
				spec = command.Lookup(w.Kept()[args[0].Off : args[0].Off+args[0].Len])
			}
		}
		switch {
		case errors.Is(err, io.ErrUnexpectedEOF):
			return errCut
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case !look(at, seconds, spec):
			return nil
		}
	}
}

// scrap is the keeper of a window whose bytes are only looked at.
type scrap struct{ buf []byte }

// Roll implements feed.Keeper.
func (s *scrap) Roll(_ context.Context, tail []byte, want int) ([]byte, error) {
	buf := s.buf[:cap(s.buf)]
	if want > len(buf) {
		buf = make([]byte, max(2*want, 4*headBytes))
	}
	n := copy(buf, tail)
	s.buf = buf
	return buf[:n], nil
}

// Idle implements feed.Keeper.
func (s *scrap) Idle(ctx context.Context, tail []byte) ([]byte, error) {
	return s.Roll(ctx, tail, len(tail))
}

// within says in which file an error of its content is, and where: positions are those in the file.
func (p *part) within(err error) error {
	switch at := (*rdb.PositionError)(nil); {
	case err == nil:
		return nil
	case errors.As(err, new(*fileError)):
		return err
	case errors.Is(err, errCut):
		return &fileError{p.path, fmt.Errorf("%w, and it is not the last file", err)}
	case errors.As(err, &at):
		own := *at
		own.Offset -= p.from
		return &fileError{p.path, &own}
	case errors.Is(err, aof.ErrCorrupt) && p.from > 0:
		return &fileError{p.path, fmt.Errorf("which begins at offset %d: %w", p.from, err)}
	case errors.Is(err, aof.ErrCorrupt):
		return &fileError{p.path, err}
	}
	return err
}

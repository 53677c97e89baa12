package reader

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/feed"
)

// streamDecoder turns the bytes of the stream into entries.
type streamDecoder struct {
	*batcher
	bytes io.ReaderAt // of the stream, for what is not kept whole
	limit int64       // an entry of more bytes is not kept whole
	specs streamSpecs
	args  []aof.Arg
	tx    transaction

	wrapped wrapped
	streamEvents
}

// streamEvents is what a streamDecoder asks and tells.
type streamEvents struct {
	getack func(offset int64)        // hears of a REPLCONF GETACK that begins at offset
	split  func()                    // hears of a transaction that was too large to be kept as one
	id     func(offset int64) string // the replication id of the history that an offset belongs to
	file   *commandFile              // of a stream that is a file; else nil
}

// headRoom is what must be left of the limit when a command of a transaction begins, so that its name, and those that
// are about the stream itself, are kept to be looked at.
const headRoom = 256

// streamSpecs are the commands that are about the stream itself.
type streamSpecs struct{ ping, sel, multi, exec, replconf, rreplay *command.Spec }

// transaction is a MULTI that was begun.
type transaction struct {
	open   bool
	loose  bool  // too large: its commands go on one by one, and only EXEC moves the position
	start  int64 // of MULTI
	mark   haul.Position
	db     int32 // at MULTI
	cmds   []txCommand
	args   []aof.Arg
	keptDB int32
}

type txCommand struct {
	spec     *command.Spec
	raw      aof.Arg // relative to MULTI
	arg, num int
	db       int32
}

// decodeStream sends the commands that spool receives, from position at on, until ctx ends.
func decodeStream(ctx context.Context, spool *aof.Spool, out *haul.Channel, at haul.Position,
	events streamEvents,
) error {
	d, err := newStreamDecoder(ctx, spool, out, at, events)
	if err != nil {
		return err
	}
	defer d.discard()
	d.received = spool.Oldest
	d.window = feed.New(ctx, spool.ReaderAt(at.Offset), d.batcher, at.Offset, out.EntryLimit(), nil)
	for {
		if err := d.next(); err != nil {
			return err
		}
	}
}

// newStreamDecoder returns a decoder that has no window yet.
func newStreamDecoder(ctx context.Context, bytes io.ReaderAt, out *haul.Channel, at haul.Position, events streamEvents) (*streamDecoder, error) {
	k, err := newBatcher(ctx, out, false, at)
	if err != nil {
		return nil, err
	}
	k.id = events.id
	return &streamDecoder{
		batcher: k, bytes: bytes, limit: int64(out.EntryLimit()), streamEvents: events,
		specs: streamSpecs{
			ping: lookup("PING"), sel: lookup("SELECT"), multi: lookup("MULTI"), exec: lookup("EXEC"),
			replconf: lookup("REPLCONF"), rreplay: lookup("RREPLAY"),
		},
	}, nil
}

func lookup(name string) *command.Spec { return command.Lookup([]byte(name)) }

// next decodes one command.
func (d *streamDecoder) next() error {
	if d.tx.open && !d.tx.loose && d.window.Rel() > d.limit-headRoom {
		if err := d.loosen(); err != nil {
			return err
		}
	}
	if !d.tx.open || d.tx.loose {
		d.window.Begin()
	}
	if d.file != nil {
		if passed, err := d.annotation(); passed || err != nil {
			return err
		}
	}
	from, start := d.window.Rel(), d.window.Offset()
	args, err := aof.Read(d.window, d.args[:0])
	d.args = args
	if err != nil {
		return err
	}
	if len(args) == 0 {
		d.pass()
		return nil
	}
	c := txCommand{raw: aof.Arg{Off: from, Len: d.window.Rel() - from}, num: len(args)}
	if name := args[0]; name.Off+name.Len <= int64(len(d.window.Kept())) {
		c.spec = command.Lookup(d.kept(name))
	}
	if c.spec != nil && c.spec == d.specs.rreplay {
		if err := d.unwrap(&c, start, from); err != nil {
			return err
		}
		args = d.args
	}
	switch c.spec {
	case d.specs.ping:
		d.pass()
		return nil
	case d.specs.sel:
		return d.sel(c, start)
	case d.specs.replconf:
		d.replconf(start)
		return nil
	case d.specs.multi:
		return d.multi(start)
	case d.specs.exec:
		return d.exec(start)
	}
	if d.tx.open && !d.tx.loose {
		return d.queue(c, args)
	}
	return d.add(start, c, args)
}

func (d *streamDecoder) kept(a aof.Arg) []byte { return d.window.Kept()[a.Off : a.Off+a.Len] }

// pass moves the position over a command that is not an entry. Within a transaction it stays where it is.
func (d *streamDecoder) pass() {
	if !d.tx.open {
		d.end.Offset = d.window.Offset()
	}
}

func (d *streamDecoder) sel(c txCommand, start int64) error {
	if c.num != 2 {
		return fmt.Errorf("%w: SELECT with %d arguments at offset %d", aof.ErrCorrupt, c.num, start)
	}
	n, err := strconv.Atoi(string(d.kept(d.args[1])))
	if err != nil || n < 0 {
		return fmt.Errorf("%w: SELECT of no database at offset %d", aof.ErrCorrupt, start)
	}
	if d.tx.open {
		d.tx.keptDB = int32(n)
		return nil
	}
	d.end.DB = int32(n)
	d.pass()
	return nil
}

// replconf answers what the source asks.
func (d *streamDecoder) replconf(start int64) {
	if len(d.args) >= 2 && bytes.EqualFold(d.kept(d.args[1]), []byte("GETACK")) {
		d.getack(start)
	}
	d.pass()
}

func (d *streamDecoder) multi(start int64) error {
	if d.tx.open {
		return fmt.Errorf("%w: MULTI within MULTI at offset %d", aof.ErrCorrupt, start)
	}
	d.tx = transaction{
		open: true, start: start, mark: d.end, db: d.end.DB, keptDB: d.end.DB,
		cmds: d.tx.cmds[:0], args: d.tx.args[:0],
	}
	return nil
}

// queue adds a command to the open transaction.
func (d *streamDecoder) queue(c txCommand, args []aof.Arg) error {
	c.arg, c.db = len(d.tx.args), d.tx.keptDB
	d.tx.args = append(d.tx.args, args...)
	d.tx.cmds = append(d.tx.cmds, c)
	if !d.window.Large() {
		return nil
	}
	return d.loosen()
}

// loosen gives up keeping the open transaction in one piece.
func (d *streamDecoder) loosen() error {
	if d.file != nil {
		if err := d.whole(); err != nil {
			return err
		}
	}
	d.tx.loose = true
	d.split()
	for _, c := range d.tx.cmds {
		start := d.tx.start + c.raw.Off
		e := haul.Entry{
			Start: start, End: start + c.raw.Len, Resume: d.tx.mark.Offset, After: d.tx.mark.DB,
			Kind: haul.KindCommand, DB: c.db, N: 1,
		}
		if err := d.addBig(e, c, d.tx.args[c.arg:c.arg+c.num], d.tx.start); err != nil {
			return err
		}
	}
	return nil
}

// exec ends the open transaction.
func (d *streamDecoder) exec(start int64) error {
	if !d.tx.open {
		return fmt.Errorf("%w: EXEC without MULTI at offset %d", aof.ErrCorrupt, start)
	}
	d.tx.open = false
	d.end.Offset, d.end.DB = d.window.Offset(), d.tx.keptDB
	if d.tx.loose || len(d.tx.cmds) == 0 {
		return nil
	}
	b := d.batch
	e := haul.Entry{
		Start: d.tx.start, End: d.end.Offset, Resume: d.end.Offset, After: d.end.DB, Kind: haul.KindTransaction, DB: d.tx.db,
		Off:   uint32(d.window.Mark()),
		First: uint32(len(b.Commands)), N: uint32(len(d.tx.cmds)),
	}
	for _, c := range d.tx.cmds {
		d.appendCommand(c, d.tx.args[c.arg:c.arg+c.num])
	}
	b.Entries = append(b.Entries, e)
	return d.full()
}

// add makes an entry of a command that stands alone.
func (d *streamDecoder) add(start int64, c txCommand, args []aof.Arg) error {
	e := haul.Entry{Start: start, End: d.window.Offset(), Kind: haul.KindCommand, N: 1, Off: uint32(d.window.Mark())}
	if d.tx.open {
		c.db, e.Resume, e.After = d.tx.keptDB, d.tx.mark.Offset, d.tx.mark.DB
	} else {
		c.db, d.end.Offset = d.end.DB, e.End
		e.Resume, e.After = e.End, c.db
	}
	e.DB = c.db
	if d.window.Large() {
		return d.addBig(e, c, args, start)
	}
	e.First = uint32(len(d.batch.Commands))
	d.appendCommand(c, args)
	d.batch.Entries = append(d.batch.Entries, e)
	return d.full()
}

// addBig makes an entry that is read from the spool when it is written. base is the offset that args are relative to.
func (d *streamDecoder) addBig(e haul.Entry, c txCommand, args []aof.Arg, base int64) error {
	big := &haul.Big{Bytes: d.bytes, Off: base + c.raw.Off, Len: c.raw.Len, Args: make([]haul.BigSpan, len(args))}
	for i, a := range args {
		big.Args[i] = haul.BigSpan{Off: a.Off - c.raw.Off, Len: a.Len}
	}
	b := d.batch
	if d.file != nil {
		d.file.counted = d.file.counted || c.spec.HasDeadline()
	}
	e.Big, e.First = big, uint32(len(b.Commands))
	b.Commands = append(b.Commands, haul.Command{Spec: c.spec, DB: c.db})
	b.Entries = append(b.Entries, e)
	if d.tx.loose {
		return nil // the window still has the transaction in hand
	}
	return d.full()
}

func (d *streamDecoder) appendCommand(c txCommand, args []aof.Arg) {
	b, mark := d.batch, uint32(d.window.Mark())
	b.Commands = append(b.Commands, haul.Command{
		Spec: c.spec, DB: c.db, Arg: uint32(len(b.Args)), NArg: uint32(len(args)),
		Raw: haul.Span{Off: mark + uint32(c.raw.Off), Len: uint32(c.raw.Len)},
	})
	for _, a := range args {
		b.Args = append(b.Args, haul.Span{Off: mark + uint32(a.Off), Len: uint32(a.Len)})
	}
	if d.file != nil {
		d.file.counted = d.file.counted || countsFromNow(b, &b.Commands[len(b.Commands)-1])
	}
}

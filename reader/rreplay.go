package reader

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/keyhaul/keyhaul/aof"
)

// wrapped takes commands out of those that an active replica of KeyDB sends: RREPLAY uuid command [database [time]], in
// which the command stands as it would stand alone. Source: KeyDB replication.cpp, replicationFeedSlavesCore.
type wrapped struct {
	bytes bytes.Reader
	lines *bufio.Reader
	args  []aof.Arg
}

// errWrapped says that there is no command where one should be.
var errWrapped = errors.New("RREPLAY without a command")

// unwrap puts the command that is in c in its place, and selects its database. start is the offset of c, which begins at
// from in what the window has in hand.
func (d *streamDecoder) unwrap(c *txCommand, start, from int64) error {
	for c.spec == d.specs.rreplay {
		if c.num < 3 {
			return corruptRREPLAY(start, errWrapped)
		}
		body := d.args[2]
		var whole io.Reader = io.NewSectionReader(d.bytes, start+body.Off-from, body.Len)
		if kept := d.window.Kept(); body.Off+body.Len <= int64(len(kept)) {
			d.wrapped.bytes.Reset(kept[body.Off : body.Off+body.Len])
			whole = &d.wrapped.bytes
		}
		name, err := d.wrapped.read(whole, body.Off)
		if err != nil {
			return corruptRREPLAY(start, err)
		}
		if c.num > 3 {
			if err := d.selectFor(d.args[3], start, from); err != nil {
				return err
			}
		}
		d.args, d.wrapped.args = d.wrapped.args, d.args
		c.raw, c.num, c.spec = body, len(d.args), lookup(string(name))
	}
	return nil
}

func corruptRREPLAY(start int64, err error) error {
	return fmt.Errorf("%w: RREPLAY at offset %d: %w", aof.ErrCorrupt, start, err)
}

// selectFor makes the database that an argument names that of the command.
func (d *streamDecoder) selectFor(a aof.Arg, start, from int64) error {
	text := make([]byte, min(a.Len, 20))
	if _, err := d.bytes.ReadAt(text, start+a.Off-from); err != nil {
		return err
	}
	n, err := strconv.ParseInt(string(text), 10, 32)
	if err != nil || n < 0 {
		return corruptRREPLAY(start, errors.New("no database"))
	}
	if d.tx.open {
		d.tx.keptDB = int32(n)
	} else {
		d.end.DB = int32(n)
	}
	return nil
}

// read finds the arguments of the one command that r holds, which begins at off, and returns its name.
func (w *wrapped) read(r io.Reader, off int64) (name []byte, err error) {
	if w.lines == nil {
		w.lines = bufio.NewReaderSize(nil, 4<<10)
	}
	w.lines.Reset(r)
	w.args = w.args[:0]
	n, used, err := w.count('*')
	if err != nil {
		return nil, err
	}
	at := off + used
	for range n {
		size, used, err := w.count('$')
		if err != nil {
			return nil, err
		}
		at += used
		w.args = append(w.args, aof.Arg{Off: at, Len: size})
		if len(w.args) == 1 {
			p, _ := w.lines.Peek(int(min(size, int64(w.lines.Size()))))
			name = bytes.Clone(p)
		}
		if _, err := w.lines.Discard(int(size) + 2); err != nil {
			return nil, err
		}
		at += size + 2
	}
	if _, err := w.lines.ReadByte(); err == nil || len(w.args) == 0 {
		return nil, errWrapped // or more than one
	}
	return name, nil
}

// count reads a line such as *3 or $5, and returns the number and the line's length.
func (w *wrapped) count(kind byte) (n, used int64, err error) {
	line, err := w.lines.ReadSlice('\n')
	if err != nil {
		return 0, 0, err
	}
	if len(line) < 4 || line[0] != kind {
		return 0, 0, errWrapped
	}
	n, err = strconv.ParseInt(string(line[1:len(line)-2]), 10, 64)
	if n < 0 {
		err = errWrapped
	}
	return n, int64(len(line)), err
}

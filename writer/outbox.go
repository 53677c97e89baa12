package writer

import (
	"io"
	"net"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	flushBytes = 64 << 10
	refBytes   = 8 << 10 // larger pieces are written from where they are instead of being copied
	pieceBytes = 256 << 10
)

// outbox gathers what a lane writes next.
type outbox struct {
	conn       io.Writer
	arena      []byte // small pieces, one after the other
	cut        int    // what lies before it in arena is in bufs
	bufs       net.Buffers
	size       int
	ops        []op         // what is to be expected for what is gathered
	push       func([]op)   // is given ops before a byte of theirs is written
	count      func(int)    // hears of bytes before they are written; may be nil
	moved      func()       // hears of each piece that stream has written; may be nil
	refused    func() bool  // tells whether the rest of an unfinished item is not worth sending; may be nil where nothing is built
	settle     func() error // waits until everything that was written is answered; as refused
	moving     bool         // entries are of slots that move
	unfinished bool         // the last item is not encoded to its end
	db         int32
	multi      bool // what is appended is queued by a transaction of keyhaul's own
	moves      bool // that transaction has selected a database
	piece      []byte

	scratch []byte // room for a value that is rewritten
}

// grown accounts for what was appended to the arena since size was n.
func (o *outbox) grown(n int) { o.size += len(o.arena) - n }

// text copies s.
func (o *outbox) text(s string) {
	o.size += len(s)
	o.arena = append(o.arena, s...)
}

// put copies b, or refers to it if it is large: then it must not change before flush.
func (o *outbox) put(b []byte) {
	o.size += len(b)
	if len(b) < refBytes {
		o.arena = append(o.arena, b...)
		return
	}
	o.seal()
	o.bufs = append(o.bufs, b)
}

func (o *outbox) counted(n int) {
	if o.count != nil {
		o.count(n)
	}
}

// seal moves the small pieces so far into bufs.
func (o *outbox) seal() {
	if o.cut < len(o.arena) {
		o.bufs = append(o.bufs, o.arena[o.cut:len(o.arena):len(o.arena)])
		o.cut = len(o.arena)
	}
}

// flush writes everything.
func (o *outbox) flush() error {
	if len(o.ops) > 0 {
		o.push(o.ops)
		o.ops = o.ops[:0]
	}
	o.seal()
	o.counted(o.size)
	o.size = 0
	var err error
	switch len(o.bufs) {
	case 0:
	case 1:
		_, err = o.conn.Write(o.bufs[0])
	default:
		bufs := o.bufs // WriteTo consumes its receiver
		_, err = bufs.WriteTo(o.conn)
	}
	clear(o.bufs)
	o.bufs, o.arena, o.cut = o.bufs[:0], o.arena[:0], 0
	return err
}

// stream writes everything, and then what r holds, in pieces. seen is given each piece.
func (o *outbox) stream(r io.Reader, seen func([]byte)) error {
	if err := o.flush(); err != nil {
		return err
	}
	if o.piece == nil {
		o.piece = make([]byte, pieceBytes)
	}
	for {
		n, err := r.Read(o.piece)
		if seen != nil {
			seen(o.piece[:n])
		}
		if n > 0 {
			o.counted(n)
			if _, err := o.conn.Write(o.piece[:n]); err != nil {
				return err
			}
			if o.moved != nil {
				o.moved()
			}
		}
		if err == io.EOF { //nolint:errorlint // io.SectionReader returns the value itself
			return nil
		}
		if err != nil {
			return &spoolError{err}
		}
	}
}

// spoolError says that an entry could not be read from the spool.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }

// unknownDB stands for a database that nobody can tell.
const unknownDB = -1

// selectDB makes db the database of what follows.
func (o *outbox) selectDB(db int32) {
	if o.db == db {
		return
	}
	o.queueSelect(db)
	kind := opSelect
	if o.multi {
		kind, o.moves = opBodyDB, true
	}
	o.ops = append(o.ops, op{kind: kind, left: 1, total: 1})
}

// queueSelect appends a SELECT whose reply belongs to an op of the caller's.
func (o *outbox) queueSelect(db int32) {
	o.db = db
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, 2)
	o.arena = resp.AppendBulkString(o.arena, "SELECT")
	o.arena = resp.AppendBulkInt(o.arena, int64(db))
	o.grown(n)
}

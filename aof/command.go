// Package aof reads the command format of the replication stream with exact offsets, and keeps the stream's bytes in
// segments on disk.
package aof

import (
	"errors"
	"fmt"
	"io"

	"github.com/keyhaul/keyhaul/internal/feed"
)

// ErrCorrupt says that bytes are no commands.
var ErrCorrupt = errors.New("corrupt command stream")

// Arg is one argument of a command, relative to the start of the entry that the window has in hand.
type Arg struct{ Off, Len int64 }

const (
	maxArgs     = 1 << 30
	maxArgBytes = 1 << 40
)

// Read passes the next command and appends its arguments to args. The result is empty for a newline that stands
// between commands, which counts in the offset and means nothing. Errors of the window's source are returned as they
// are: io.EOF between commands, io.ErrUnexpectedEOF within one.
func Read(w *feed.Window, args []Arg) ([]Arg, error) {
	at := w.Offset()
	b, err := w.Byte()
	if err != nil {
		return args, err
	}
	if b == '\n' {
		return args, nil
	}
	if b != '*' {
		return args, corrupt(at, fmt.Sprintf("a command begins with byte %#02x", b))
	}
	n, err := number(w)
	if err != nil {
		return args, wrap(at, err)
	}
	if n < 1 || n > maxArgs {
		return args, corrupt(at, fmt.Sprintf("a command of %d arguments", n))
	}
	for ; n > 0; n-- {
		if b, err = w.Byte(); err != nil {
			return args, wrap(at, err)
		}
		if b != '$' {
			return args, corrupt(at, fmt.Sprintf("an argument begins with byte %#02x", b))
		}
		size, err := number(w)
		if err != nil {
			return args, wrap(at, err)
		}
		if size < 0 || size > maxArgBytes {
			return args, corrupt(at, fmt.Sprintf("an argument of %d bytes", size))
		}
		args = append(args, Arg{w.Rel(), size})
		if err := w.Skip(size); err != nil {
			return args, wrap(at, err)
		}
		end, err := w.Next(2)
		if err != nil {
			return args, wrap(at, err)
		}
		if end[0] != '\r' || end[1] != '\n' {
			return args, corrupt(at, "an argument does not end in CRLF")
		}
	}
	return args, nil
}

// number reads decimal digits up to CRLF.
func number(w *feed.Window) (int64, error) {
	if b := w.Buffered(); len(b) >= 3 { // most numbers have one or two digits
		if b[1] == '\r' && b[2] == '\n' && isDigit(b[0]) {
			w.Advance(3)
			return int64(b[0] - '0'), nil
		}
		if len(b) >= 4 && b[2] == '\r' && b[3] == '\n' && isDigit(b[0]) && isDigit(b[1]) {
			w.Advance(4)
			return int64(b[0]-'0')*10 + int64(b[1]-'0'), nil
		}
	}
	var n int64
	for digits := 0; ; digits++ {
		c, err := w.Byte()
		if err != nil {
			return 0, err
		}
		switch {
		case isDigit(c) && digits < 18:
			n = n*10 + int64(c-'0')
		case c == '\r' && digits > 0:
			c, err = w.Byte()
			if err == nil && c != '\n' {
				err = errNumber
			}
			return n, err
		default:
			return 0, errNumber
		}
	}
}

var errNumber = errors.New("a length is no number")

func isDigit(c byte) bool { return c-'0' <= 9 }

func wrap(at int64, err error) error {
	switch err {
	case errNumber: //nolint:errorlint // these are returned as they are
		return corrupt(at, err.Error())
	case io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

func corrupt(at int64, reason string) error {
	return fmt.Errorf("%w: command at offset %d: %s", ErrCorrupt, at, reason)
}

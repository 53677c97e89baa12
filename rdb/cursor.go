package rdb

import (
	"errors"
	"fmt"
	"io"
)

// ValueError says where in the bytes of a value an error was met.
type ValueError struct {
	Offset int64 // behind the type byte
	Err    error
}

func (e *ValueError) Error() string { return fmt.Sprintf("byte %d of the value: %v", e.Offset, e.Err) }

func (e *ValueError) Unwrap() error { return e.Err }

var errShort = fmt.Errorf("%w: the value ends early", ErrTruncated)

// cursor passes over the bytes of one value, which are in memory or come from a reader.
type cursor struct {
	r    io.Reader // nil if buf is all there is
	buf  []byte
	pos  int
	base int64 // offset of buf[0] in the value
}

func (c *cursor) offset() int64 { return c.base + int64(c.pos) }

// at adds the position to an error of the value's bytes. Others, such as those of a disk, stay as they are.
func (c *cursor) at(err error) error {
	if known := (*ValueError)(nil); errors.As(err, &known) {
		return err
	}
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrUnsupported) {
		return &ValueError{c.offset(), err}
	}
	return err
}

// fill makes at least n bytes available behind pos. n is at most the capacity of a reader's buffer.
func (c *cursor) fill(n int) error {
	have := len(c.buf) - c.pos
	if have >= n {
		return nil
	}
	if c.r == nil {
		return errShort
	}
	copy(c.buf, c.buf[c.pos:])
	c.base += int64(c.pos)
	c.pos = 0
	read, err := io.ReadAtLeast(c.r, c.buf[have:cap(c.buf)], n-have)
	c.buf = c.buf[:have+read]
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // ReadAtLeast returns the values themselves; an error of a disk may wrap one
		return errShort
	}
	return err
}

// fixed passes n bytes and returns them. They stay as they are until the cursor moves on.
func (c *cursor) fixed(n int) ([]byte, error) {
	if err := c.fill(n); err != nil {
		return nil, err
	}
	p := c.buf[c.pos : c.pos+n]
	c.pos += n
	return p, nil
}

func (c *cursor) byte() (byte, error) {
	p, err := c.fixed(1)
	if err != nil {
		return 0, err
	}
	return p[0], nil
}

// count passes a length that must be a number.
func (c *cursor) count() (uint64, error) {
	if err := c.fill(1); err != nil {
		return 0, err
	}
	size := 1
	switch b := c.buf[c.pos]; {
	case b>>6 == 1:
		size = 2
	case b == 0x80:
		size = 5
	case b == 0x81:
		size = 9
	case b>>6 != 0:
		return 0, fmt.Errorf("%w: length byte %#x", ErrCorrupt, b)
	}
	p, err := c.fixed(size)
	if err != nil {
		return 0, err
	}
	n, _, _ := sliceLength(p)
	return n, nil
}

// counts passes so many lengths.
func (c *cursor) counts(n int) error {
	for range n {
		if _, err := c.count(); err != nil {
			return err
		}
	}
	return nil
}

// take passes n bytes and returns them. Of a reader they are copied to scratch, which grows as they come.
func (c *cursor) take(n uint64, scratch *[]byte) ([]byte, error) {
	if c.r == nil {
		if n > uint64(len(c.buf)-c.pos) {
			return nil, errShort
		}
		return c.fixed(int(n))
	}
	dst := (*scratch)[:0]
	for n > 0 {
		if err := c.fill(1); err != nil {
			return nil, err
		}
		p, _ := c.fixed(int(min(n, uint64(len(c.buf)-c.pos)))) // it is there
		dst = append(dst, p...)
		n -= uint64(len(p))
	}
	*scratch = dst
	return dst, nil
}

// skip passes n bytes.
func (c *cursor) skip(n uint64) error {
	for n > 0 {
		if err := c.fill(1); err != nil {
			return err
		}
		step := min(n, uint64(len(c.buf)-c.pos))
		c.pos += int(step)
		n -= step
	}
	return nil
}

// stringHead says what the bytes of an encoded string are.
type stringHead struct {
	size uint64 // bytes that follow
	raw  uint64 // of a compressed string, the bytes that it stands for
	enc  byte   // one of the encodings, or encPlain
}

const encPlain = 0xff

func (c *cursor) stringHead() (stringHead, error) {
	if err := c.fill(1); err != nil {
		return stringHead{}, err
	}
	b := c.buf[c.pos]
	if b>>6 != 3 {
		n, err := c.count()
		return stringHead{n, n, encPlain}, err
	}
	c.pos++
	switch enc := b & 0x3f; enc {
	case encInt8, encInt16, encInt32:
		return stringHead{size: 1 << enc, enc: enc}, nil
	case encLZF:
		h := stringHead{enc: enc}
		var err error
		if h.size, err = c.count(); err == nil {
			h.raw, err = c.count()
		}
		return h, err
	}
	return stringHead{}, fmt.Errorf("%w: string encoding %d", ErrCorrupt, b&0x3f)
}

// skipString passes an encoded string.
func (c *cursor) skipString() error {
	h, err := c.stringHead()
	if err != nil {
		return err
	}
	return c.skip(h.size)
}

// end checks that nothing follows.
func (c *cursor) end() error {
	switch err := c.fill(1); {
	case err == nil:
		return fmt.Errorf("%w: bytes behind the end of the value", ErrCorrupt)
	case errors.Is(err, ErrTruncated):
		return nil
	default:
		return err
	}
}

package rdb

import (
	"fmt"
	"io"
	"math"
	"strconv"
)

const commandElements = 512 // of one command, so that none blocks a server for long

// Commands gives emit commands that build the value from nothing at key on the release. open yields the value as for
// Elements; it is called twice for a stream, which is looked through for what is pending first. The arguments are emit's until it returns. A command has at most size bytes of arguments, if not one element alone is
// longer, and at most 512 elements. They are to be applied in order and together: in between, the key has a part of the value.
//
// lost names what the release or its commands have no place for and the value had, "" if nothing. Idempotent producers and
// pending entries of no consumer have no commands. When a consumer was last seen or active is not carried over.
//
// A score of -0 becomes 0 where the server makes it so while a sorted set is small.
//
// A value that has no commands (of modules) or that the release cannot hold is ErrUnsupported; other errors are as those of Elements.
func (to Release) Commands(v Value, key []byte, open func() io.Reader, size int, emit func(args ...[]byte) error) (lost string, err error) {
	c := &commands{to: to, key: key, size: size, emit: emit}
	one, err := c.builder(v)
	if err != nil {
		return "", err
	}
	if typeKind(v.Type, v.Valkey) == TypeStream {
		if c.stream.pending, err = pendingOf(v, open()); err != nil {
			return "", err
		}
	}
	if err = v.Elements(open(), one); err == nil {
		err = c.finish()
	}
	return c.lost, err
}

// commands collects elements into commands.
type commands struct {
	to   Release
	key  []byte
	size int
	emit func(args ...[]byte) error
	lost string

	buf   []byte   // arguments of the command in hand, one behind the other
	ends  []int    // where each ends
	args  [][]byte // them, while they are emitted
	count int      // elements in the command

	digits    []byte
	deadlines []int64 // of the fields in the command; 0: none
	offset    uint64  // of the next piece of a string
	seek      *uint64 // where the next value of an array is inserted
	stream    streamCommands
}

// builder returns what takes the elements of a value.
func (c *commands) builder(v Value) (func(*Element) error, error) {
	kind := typeKind(v.Type, v.Valkey)
	switch {
	case v.Type == TypeString:
		return c.piece, nil
	case kind == TypeList:
		return func(e *Element) error { return c.add("RPUSH", e.Value) }, nil
	case kind == TypeSet:
		return func(e *Element) error { return c.add("SADD", e.Name) }, nil
	case kind == TypeZSet2:
		return func(e *Element) error {
			c.digits = appendScore(c.digits[:0], e.Score)
			return c.add("ZADD", c.digits, e.Name)
		}, nil
	case kind == TypeHash, kind == TypeHashTTL:
		return c.field, nil
	case kind == TypeStream:
		return c.streamElement, nil
	case kind == TypeArray && c.to.reads(TypeArray, false):
		return c.indexed, nil
	case kind == TypeModule2:
		return nil, fmt.Errorf("%w: a module value as commands", ErrUnsupported)
	}
	return nil, fmt.Errorf("%w: %s cannot hold a %s", ErrUnsupported, c.to, TypeName(v.Type))
}

// appendScore appends a score so that it is read as exactly this number.
func appendScore(dst []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, "inf"...)
	case math.IsInf(f, -1):
		return append(dst, "-inf"...)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}

// add adds an element to the command of that name, and begins one if there is none or no room.
func (c *commands) add(name string, args ...[]byte) error {
	size := 0
	for _, a := range args {
		size += len(a)
	}
	if c.count >= commandElements || c.count > 0 && len(c.buf)+size > c.size {
		if err := c.flush(); err != nil {
			return err
		}
	}
	if c.count == 0 {
		c.begin(name)
	}
	for _, a := range args {
		c.arg(a)
	}
	c.count++
	return nil
}

// begin begins the command of that name on the key.
func (c *commands) begin(name string) {
	c.words(name)
	c.arg(c.key)
}

func (c *commands) arg(a []byte) {
	c.buf = append(c.buf, a...)
	c.ends = append(c.ends, len(c.buf))
}

func (c *commands) words(words ...string) {
	for _, w := range words {
		c.buf = append(c.buf, w...)
		c.ends = append(c.ends, len(c.buf))
	}
}

func (c *commands) number(n int64) {
	c.buf = strconv.AppendInt(c.buf, n, 10)
	c.ends = append(c.ends, len(c.buf))
}

// flush emits the command in hand, if there is one, and deadlines of its fields behind it.
func (c *commands) flush() error {
	if len(c.ends) == 0 {
		return nil
	}
	c.args = c.args[:0]
	from := 0
	for _, end := range c.ends {
		c.args = append(c.args, c.buf[from:end:end])
		from = end
	}
	c.ends, c.count = c.ends[:0], 0
	err := c.emit(c.args...)
	if err == nil && len(c.deadlines) > 0 {
		err = c.expireFields()
	}
	c.buf = c.buf[:0]
	return err
}

func (c *commands) finish() error {
	if err := c.claim(); err != nil {
		return err
	}
	if err := c.deleteAgain(); err != nil {
		return err
	}
	if err := c.flush(); err != nil || c.seek == nil {
		return err
	}
	c.begin("ARSEEK")
	c.words(strconv.FormatUint(*c.seek, 10))
	return c.flush()
}

// piece writes a piece of a string at its place: SETRANGE may be repeated, which APPEND may not.
func (c *commands) piece(e *Element) error {
	rest := e.Value
	for {
		n := min(len(rest), max(c.size, 1))
		if c.offset == 0 {
			c.begin("SET")
		} else {
			c.begin("SETRANGE")
			c.number(int64(c.offset))
		}
		c.arg(rest[:n])
		if err := c.flush(); err != nil {
			return err
		}
		rest, c.offset = rest[n:], c.offset+uint64(n)
		if len(rest) == 0 {
			return nil
		}
	}
}

func (c *commands) field(e *Element) error {
	if err := c.add("HSET", e.Name, e.Value); err != nil {
		return err
	}
	at, lost := c.to.fieldTTL(e.ExpireAt)
	c.lost = join(c.lost, lost)
	if at > 0 {
		for len(c.deadlines) < c.count {
			c.deadlines = append(c.deadlines, 0)
		}
		c.deadlines[c.count-1] = at
	}
	return nil
}

// expireFields emits the deadlines of the fields of an HSET, whose arguments are in c.args: one command for each run of
// fields with the same.
func (c *commands) expireFields() error {
	deadlines := c.deadlines
	c.deadlines = c.deadlines[:0]
	for from := 0; from < len(deadlines); {
		at, end := deadlines[from], from+1
		for end < len(deadlines) && deadlines[end] == at {
			end++
		}
		if at > 0 {
			args := [][]byte{[]byte("HPEXPIREAT"), c.key, strconv.AppendInt(nil, at, 10), []byte("FIELDS"), strconv.AppendInt(nil, int64(end-from), 10)}
			for i := from; i < end; i++ {
				args = append(args, c.args[2+2*i])
			}
			if err := c.emit(args...); err != nil {
				return err
			}
		}
		from = end
	}
	return nil
}

func (c *commands) indexed(e *Element) error {
	if e.Kind == ElementCursor {
		index := e.Index
		c.seek = &index
		return nil
	}
	c.digits = strconv.AppendUint(c.digits[:0], e.Index, 10)
	return c.add("ARMSET", c.digits, e.Value)
}

package resp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// Conn is a connection on which one request follows another: it serves handshakes and short questions. Reading bytes
// through Reader continues exactly behind the last reply.
type Conn struct {
	net.Conn
	Reader *bufio.Reader
	out    []byte
}

// NewConn wraps an open connection.
func NewConn(c net.Conn) *Conn {
	return &Conn{Conn: c, Reader: bufio.NewReaderSize(c, 16<<10)}
}

// Do sends one command and waits for its reply until ctx ends or, if sooner, timeout has passed. An error reply is
// returned as *Error; any other error means that the connection must be closed. It never names arguments, which may
// be secrets, only the command.
func (c *Conn) Do(ctx context.Context, timeout time.Duration, args ...string) (Reply, error) {
	stop := c.deadline(ctx, timeout)
	defer stop()
	c.out = AppendCommand(c.out[:0], args...)
	if _, err := c.Write(c.out); err != nil {
		return Reply{}, c.fail(ctx, args[0], err)
	}
	r, err := c.ReadReply()
	if err != nil {
		return Reply{}, c.fail(ctx, args[0], err)
	}
	return r, r.Err()
}

// DoAll sends several commands at once and waits for all replies, in their order, as Do does. Error replies are among
// the replies; an error means that the connection must be closed.
func (c *Conn) DoAll(ctx context.Context, timeout time.Duration, commands ...[]string) ([]Reply, error) {
	stop := c.deadline(ctx, timeout)
	defer stop()
	c.out = c.out[:0]
	for _, args := range commands {
		c.out = AppendCommand(c.out, args...)
	}
	if _, err := c.Write(c.out); err != nil {
		return nil, c.fail(ctx, commands[0][0], err)
	}
	replies := make([]Reply, len(commands))
	for i, args := range commands {
		r, err := c.ReadReply()
		if err != nil {
			return nil, c.fail(ctx, args[0], err)
		}
		replies[i] = r
	}
	return replies, nil
}

func (c *Conn) fail(ctx context.Context, name string, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// deadline bounds reads and writes by timeout and by the end of ctx.
func (c *Conn) deadline(ctx context.Context, timeout time.Duration) (stop func()) {
	_ = c.SetDeadline(time.Now().Add(timeout))
	hooked := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		_ = c.SetDeadline(time.Unix(1, 0))
		close(hooked)
	})
	return func() {
		if !unhook() {
			<-hooked // else it could strike the next command
		}
		_ = c.SetDeadline(time.Time{})
	}
}

// ReadReply reads the next reply. An error reply is returned as a Reply.
func (c *Conn) ReadReply() (Reply, error) {
	for {
		buffered, _ := c.Reader.Peek(c.Reader.Buffered())
		if len(buffered) > 0 {
			r, n, err := Decode(buffered)
			if err == nil {
				_, err = c.Reader.Discard(n)
				return r, err
			}
			if err != ErrShort { //nolint:errorlint // Decode returns the value itself
				return Reply{}, err
			}
		}
		if c.Reader.Buffered() == c.Reader.Size() {
			return c.readLong()
		}
		if _, err := c.Reader.Peek(c.Reader.Buffered() + 1); err != nil {
			return Reply{}, cut(err, c.Reader.Buffered())
		}
	}
}

// cut tells a connection that was closed between replies from one that was closed within a reply.
func cut(err error, have int) error {
	if err == io.EOF && have > 0 { //nolint:errorlint // a reader returns the value itself
		return io.ErrUnexpectedEOF
	}
	return err
}

// readLong reads a reply that is larger than the connection's buffer.
func (c *Conn) readLong() (Reply, error) {
	var all []byte
	for {
		if _, err := c.Reader.Peek(1); err != nil {
			return Reply{}, cut(err, len(all))
		}
		n := c.Reader.Buffered()
		peeked, err := c.Reader.Peek(n)
		if err != nil {
			return Reply{}, err
		}
		before := len(all)
		all = append(all, peeked...)
		r, used, err := Decode(all)
		if err == nil {
			_, err = c.Reader.Discard(used - before)
			return r, err
		}
		if err != ErrShort { //nolint:errorlint // Decode returns the value itself
			return Reply{}, err
		}
		if _, err := c.Reader.Discard(n); err != nil {
			return Reply{}, err
		}
	}
}

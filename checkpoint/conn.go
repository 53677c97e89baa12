package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// replyTimeout is how long a server may be silent while something is due from it.
const replyTimeout = 60 * time.Second

// errAborted says that a watched key was changed, so that the transaction did nothing.
var errAborted = errors.New("EXEC: a watched key was changed")

// conn is a connection to one node of the target. One goroutine uses it at a time.
type conn struct {
	*resp.Conn
	addr string
	id   int64 // the server's number of a guarded connection; 0 if unknown
}

// batch is commands that are sent at once.
type batch struct {
	out []byte
	n   int
}

func (b *batch) add(args ...string) {
	b.out = resp.AppendCommand(b.out, args...)
	b.n++
}

// fail says where and at what something failed.
func (c *conn) fail(op string, err error) error {
	if e := (*topology.Error)(nil); err == nil || errors.As(err, &e) {
		return err
	}
	return &topology.Error{Addr: c.addr, Op: op, Err: err}
}

// exchange sends a batch and hands each reply, error replies included, to each. All replies are read, so that the
// connection can be used again also after an error of each, the first of which is returned. It is written while
// replies are read: neither side's buffers need to hold a whole batch, and it takes one round trip.
func (c *conn) exchange(ctx context.Context, b *batch, each func(i int, r resp.Reply) error) error {
	_ = c.SetDeadline(time.Now().Add(replyTimeout))
	unhook := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer unhook()
	written := make(chan error, 1)
	go func() {
		_, err := c.Write(b.out)
		written <- err
	}()
	var first error
	for i := range b.n {
		r, err := c.ReadReply()
		if err != nil {
			_ = c.Close() // ends the writing
			<-written     //nolint:errcheck // the reading has failed before
			return orCause(ctx, err)
		}
		if err := each(i, r); err != nil && first == nil {
			first = err
		}
		if i%256 == 255 {
			_ = c.SetDeadline(time.Now().Add(replyTimeout))
			if ctx.Err() != nil { // its deadline may have been set just before
				_ = c.SetDeadline(time.Unix(1, 0))
			}
		}
	}
	if err := <-written; err != nil {
		return orCause(ctx, err)
	}
	return first
}

// orCause prefers the reason why ctx ended to the error that its end led to.
func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ask sends a batch and returns its replies, the first error reply as the error.
func (c *conn) ask(ctx context.Context, b *batch) ([]resp.Reply, error) {
	replies := make([]resp.Reply, 0, b.n)
	err := c.exchange(ctx, b, func(_ int, r resp.Reply) error {
		replies = append(replies, r)
		return r.Err()
	})
	return replies, err
}

// do sends one command. An error reply is an error.
func (c *conn) do(ctx context.Context, args ...string) (resp.Reply, error) {
	var b batch
	b.add(args...)
	replies, err := c.ask(ctx, &b)
	if err != nil {
		return resp.Reply{}, c.fail(args[0], err)
	}
	return replies[0], nil
}

// transaction sends commands as one. MULTI is answered before the rest is sent: where it is refused, what should have
// been queued would be carried out.
func (c *conn) transaction(ctx context.Context, commands [][]string) error {
	if _, err := c.do(ctx, "MULTI"); err != nil {
		return err
	}
	return c.finish(ctx, commands)
}

// oneByOne sends commands to a target without transactions.
func (c *conn) oneByOne(ctx context.Context, commands [][]string) error {
	for _, args := range commands {
		if _, err := c.do(ctx, args...); err != nil {
			return err
		}
	}
	return nil
}

// finish sends the rest of a transaction that MULTI has opened.
func (c *conn) finish(ctx context.Context, commands [][]string) error {
	var b batch
	for _, args := range commands {
		b.add(args...)
	}
	b.add("EXEC")
	replies, err := c.ask(ctx, &b)
	if err != nil { // of a refused command, which says more than EXECABORT
		return c.fail("transaction", err)
	}
	result := replies[len(replies)-1]
	if result.Null {
		return errAborted
	}
	if len(result.Array) != len(commands) {
		return c.fail("EXEC", fmt.Errorf("%d replies to %d commands", len(result.Array), len(commands)))
	}
	for i, args := range commands {
		if err := result.Array[i].Err(); err != nil {
			return c.fail(args[0], err)
		}
	}
	return nil
}

// dial opens a connection that has the worker's name. A guarded one, of those that write, is opened only while the
// lease is ours: the name is acknowledged before the lease is read, so that whoever takes over either sees the
// connection and kills it, or is seen by it.
func (s *Store) dial(ctx context.Context, addr string, guarded bool) (*conn, error) {
	raw, err := s.cfg.Dialer.Open(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: raw, addr: addr}
	if name := s.cfg.Dialer.ClientName; name != "" {
		if _, err := c.do(ctx, "CLIENT", "SETNAME", name); err != nil && !refused(err) {
			_ = c.Close()
			return nil, err
		}
	}
	if !guarded {
		return c, nil
	}
	r, err := c.do(ctx, "CLIENT", "ID")
	if err != nil && !refused(err) {
		_ = c.Close()
		return nil, err
	}
	c.id = r.Int
	if l := s.lease.Load(); l != nil {
		if err := l.Check(ctx, addr); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return c, nil
}

// refused tells an error reply from a broken connection.
func refused(err error) bool { return errors.As(err, new(*resp.Error)) }

// code returns the code of an error reply, or "".
func code(err error) string {
	if e := (*resp.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// fresh calls fn with a connection of its own.
func (s *Store) fresh(ctx context.Context, addr string, guarded bool, fn func(c *conn) error) error {
	c, err := s.dial(ctx, addr, guarded)
	if err != nil {
		return err
	}
	err = fn(c)
	s.giveUp(c, err)
	return err
}

// kept calls fn with a connection that is kept for the next call unless fn fails: what comes every second needs no
// new connection every second.
func (s *Store) kept(ctx context.Context, addr string, fn func(c *conn) error) error {
	s.mu.Lock()
	c := s.idle[addr]
	delete(s.idle, addr)
	s.mu.Unlock()
	if c == nil {
		var err error
		if c, err = s.dial(ctx, addr, true); err != nil {
			return err
		}
	}
	if err := fn(c); err != nil {
		s.giveUp(c, err)
		return err
	}
	_ = c.SetDeadline(time.Time{})
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.idle[addr] != nil {
		return c.Close()
	}
	s.idle[addr] = c
	return nil
}

// Close closes the connections that are kept. The Store can still be used, with new ones each time.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for addr, c := range s.idle {
		_ = c.Close()
		delete(s.idle, addr)
	}
}

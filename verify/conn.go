package verify

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

const (
	replyTimeout = 60 * time.Second
	bufferSize   = 64 << 10
	keptBuffer   = 1 << 20 // a larger one is given back when its replies are read
)

// conn is a connection that carries many requests at once. Replies are read as they stand on the wire, without
// allocation. One goroutine uses it at a time.
type conn struct {
	raw      *resp.Conn
	addr     string
	node     topology.Node
	db       int32 // selected
	out, in  []byte
	from, to int // of the unread bytes in in
	due      int // replies that were not read yet
	unhook   func() bool

	// Of an exchange that is under way:
	selecting int   // replies to SELECT
	base      int64 // the server's clock, where deadlines are told by the time that is left; -1 if it is asked for
}

// add appends a request to what is sent next.
func (c *conn) add(args ...string) {
	c.out = resp.AppendCommand(c.out, args...)
	c.due++
}

// addKey appends a request with a name, a key, and what follows.
func (c *conn) addKey(name string, key []byte, rest ...string) {
	c.out = resp.AppendArray(c.out, 2+len(rest))
	c.out = resp.AppendBulkString(c.out, name)
	c.out = resp.AppendBulk(c.out, key)
	for _, arg := range rest {
		c.out = resp.AppendBulkString(c.out, arg)
	}
	c.due++
}

// addKeys appends a request with many keys.
func (c *conn) addKeys(keys [][]byte, name ...string) {
	c.out = resp.AppendArray(c.out, len(name)+len(keys))
	for _, word := range name {
		c.out = resp.AppendBulkString(c.out, word)
	}
	for _, key := range keys {
		c.out = resp.AppendBulk(c.out, key)
	}
	c.due++
}

// flush sends what was added.
func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_ = c.raw.SetDeadline(time.Now().Add(replyTimeout))
	_, err := c.raw.Write(c.out)
	c.out = c.out[:0]
	if err != nil {
		return c.fail(err)
	}
	return nil
}

// fail says where a connection failed; it cannot be used any further.
func (c *conn) fail(err error) error { return &topology.Error{Addr: c.addr, Op: "verify", Err: err} }

// next returns the bytes of the next reply, which are good until the next call. An error reply is one like any other.
func (c *conn) next() ([]byte, error) {
	for {
		n, err := resp.Scan(c.in[c.from:c.to])
		if err == nil {
			reply := c.in[c.from : c.from+n]
			c.from += n
			c.due--
			return reply, nil
		}
		if err != resp.ErrShort { //nolint:errorlint // Scan returns the value itself
			return nil, c.fail(err)
		}
		if err := c.fill(); err != nil {
			return nil, c.fail(err)
		}
	}
}

// fill reads what has come.
func (c *conn) fill() error {
	switch {
	case c.from == c.to:
		c.from, c.to = 0, 0
		if len(c.in) == 0 || len(c.in) > keptBuffer {
			c.in = make([]byte, bufferSize)
		}
	case c.to == len(c.in) && c.from > len(c.in)/2:
		c.to = copy(c.in, c.in[c.from:c.to])
		c.from = 0
	case c.to == len(c.in):
		larger := make([]byte, 2*(c.to-c.from))
		if c.to-c.from < bufferSize {
			larger = make([]byte, 2*bufferSize)
		}
		c.to = copy(larger, c.in[c.from:c.to])
		c.from, c.in = 0, larger
	}
	n, err := c.raw.Reader.Read(c.in[c.to:])
	c.to += n
	if n > 0 {
		return nil
	}
	return err
}

// ask sends what was added and decodes the only reply to it.
func (c *conn) ask() (resp.Reply, error) {
	if err := c.flush(); err != nil {
		return resp.Reply{}, err
	}
	return c.decoded()
}

// decoded decodes the next reply. An error reply is an error.
func (c *conn) decoded() (resp.Reply, error) {
	raw, err := c.next()
	if err != nil {
		return resp.Reply{}, err
	}
	r, _, err := resp.Decode(raw)
	if err != nil {
		return r, c.fail(err)
	}
	if err := r.Err(); err != nil {
		return r, &topology.Error{Addr: c.addr, Op: "verify", Err: err}
	}
	return r, nil
}

// use selects a database with the next request.
func (c *conn) use(db int32) {
	if c.db != db {
		c.add("SELECT", strconv.Itoa(int(db)))
		c.db = db
	}
}

// using is use, and tells whether a reply more comes.
func (c *conn) using(db int32) int {
	before := c.due
	c.use(db)
	return c.due - before
}

func (c *conn) close() {
	c.unhook()
	_ = c.raw.Close()
}

// whole tells whether the server tells deadlines (PEXPIRETIME).
func (c *conn) whole() bool {
	return c.node.Product == "valkey" || c.node.Product == "redict" || c.node.AtLeast(7, 0)
}

// bulk returns the text of a reply that is a string; there is none for null.
func bulk(raw []byte) (text []byte, there bool) {
	if raw[0] != resp.KindBulk || raw[1] == '-' {
		return nil, false
	}
	at := 1
	for raw[at] != '\n' {
		at++
	}
	return raw[at+1 : len(raw)-2], true
}

// integer returns the number of a reply, 0 for one that is none.
func integer(raw []byte) int64 {
	if raw[0] != resp.KindInteger {
		return 0
	}
	n, err := resp.ParseInt(raw[1 : len(raw)-2])
	if err != nil {
		return 0
	}
	return n
}

// refused returns an error reply as such, nil for any other reply.
func refused(raw []byte) *resp.Error {
	if raw[0] != resp.KindError && raw[0] != resp.KindBlobErr {
		return nil
	}
	r, _, err := resp.Decode(raw)
	if err != nil {
		return resp.NewError("ERR")
	}
	return resp.NewError(r.Text)
}

// passing tells whether an error reply is of a server or cluster that cannot answer at the moment.
func passing(e *resp.Error) bool {
	switch e.Code {
	case "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "BUSY", "READONLY", "UNBLOCKED":
		return true
	}
	return false
}

// open connects to a node and asks what it is.
func open(ctx context.Context, d *topology.Dialer, addr string) (*conn, error) {
	raw, err := d.Open(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw, addr: addr}
	c.unhook = context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	if c.node, err = topology.Inspect(ctx, raw); err == nil {
		err = c.prepare(ctx)
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// prepare names the connection, and keeps it from making keys look used. A server may refuse both.
func (c *conn) prepare(ctx context.Context) error {
	for _, args := range [][]string{{"CLIENT", "SETNAME", "keyhaul-verify"}, {"CLIENT", "NO-TOUCH", "ON"}} {
		if _, err := c.raw.Do(ctx, replyTimeout, args...); err != nil && !errors.As(err, new(*resp.Error)) {
			return fmt.Errorf("%s: %w", c.addr, err)
		}
	}
	return nil
}

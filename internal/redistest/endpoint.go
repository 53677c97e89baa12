package redistest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// exchangeTimeout bounds one batch of requests and its replies, so that a hung server fails a test instead of hanging it.
const exchangeTimeout = time.Minute

// Endpoint is how to reach a server, or any nodes of a cluster.
type Endpoint struct {
	Addrs    []string // host:port, or unix:/path of a socket
	Username string   // "" is the default user
	Password string   // "" does not authenticate
	TLS      *tls.Config
}

// Addr returns the endpoint of a server without password and TLS.
func Addr(addrs ...string) Endpoint { return Endpoint{Addrs: addrs} }

// connect opens a connection and authenticates. Its user closes it.
func (e Endpoint) connect(ctx context.Context, addr string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	network, address := "tcp", addr
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, address = "unix", path
	}
	var conn net.Conn
	var err error
	if e.TLS != nil && network == "tcp" {
		conn, err = (&tls.Dialer{NetDialer: dialer, Config: e.TLS}).DialContext(ctx, network, address)
	} else {
		conn, err = dialer.DialContext(ctx, network, address)
	}
	if err != nil {
		return nil, fmt.Errorf("redistest: %w", err)
	}
	if e.Password == "" {
		return conn, nil
	}
	auth := []string{"AUTH", e.Password}
	if e.Username != "" {
		auth = []string{"AUTH", e.Username, e.Password}
	}
	if _, err := resp.NewConn(conn).Do(ctx, 10*time.Second, auth...); err != nil {
		return nil, errors.Join(fmt.Errorf("redistest: %s: %w", addr, err), conn.Close())
	}
	return conn, nil
}

func (e Endpoint) pipe(ctx context.Context, addr string) (*pipe, error) {
	conn, err := e.connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	return &pipe{conn: conn, addr: addr}, nil
}

// pipe is a connection that carries batches of requests. One goroutine uses it at a time.
type pipe struct {
	conn    net.Conn
	addr    string
	db      int // selected
	out     []byte
	pending int // requests in out, or sent and unanswered
	in      []byte
	start   int // of the unread bytes in in
}

func (p *pipe) close() { _ = p.conn.Close() }

// add puts a request into the batch.
func (p *pipe) add(args ...string) {
	p.out = resp.AppendCommand(p.out, args...)
	p.pending++
}

// exchange sends the batch and returns its replies, error replies included.
func (p *pipe) exchange(ctx context.Context) ([]resp.Reply, error) {
	if p.pending == 0 {
		return nil, nil
	}
	_ = p.conn.SetDeadline(time.Now().Add(exchangeTimeout))
	unhook := context.AfterFunc(ctx, func() { _ = p.conn.SetDeadline(time.Unix(1, 0)) })
	defer unhook()
	_, err := p.conn.Write(p.out)
	replies := make([]resp.Reply, 0, p.pending)
	for err == nil && len(replies) < p.pending {
		var r resp.Reply
		if r, err = p.read(); err == nil {
			replies = append(replies, r)
		}
	}
	p.out, p.pending = p.out[:0], 0
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("redistest: %s: %w", p.addr, err)
	}
	return replies, nil
}

// read decodes the next reply.
func (p *pipe) read() (resp.Reply, error) {
	r, _, err := p.readRaw()
	return r, err
}

// readRaw decodes what comes next, and returns its bytes too, which are good until the next call. Its buffer doubles, so
// that a reply of any size is looked at a few times only.
func (p *pipe) readRaw() (resp.Reply, []byte, error) {
	for {
		if p.start < len(p.in) {
			r, n, err := resp.Decode(p.in[p.start:])
			if err == nil {
				p.start += n
				return r, p.in[p.start-n : p.start], nil
			}
			if !errors.Is(err, resp.ErrShort) {
				return resp.Reply{}, nil, err
			}
		}
		if err := p.fill(); err != nil {
			return resp.Reply{}, nil, err
		}
	}
}

// fill reads until the unread bytes have doubled, or until the server has sent what it has.
func (p *pipe) fill() error {
	unread := copy(p.in, p.in[p.start:])
	p.in, p.start = p.in[:unread], 0
	if want := max(64<<10, 2*unread); cap(p.in) < want {
		p.in = append(make([]byte, 0, want), p.in...)
	}
	for {
		n, err := p.conn.Read(p.in[len(p.in):cap(p.in)])
		p.in = p.in[:len(p.in)+n]
		if err != nil {
			return err
		}
		// a long reply is worth another look only when much more of it is there, or when it may have ended
		if unread < 1<<20 || len(p.in) == cap(p.in) || string(p.in[len(p.in)-2:]) == "\r\n" {
			return nil
		}
	}
}

// do sends one request and returns its reply. An error reply is returned as *resp.Error.
func (p *pipe) do(ctx context.Context, args ...string) (resp.Reply, error) {
	p.add(args...)
	replies, err := p.exchange(ctx)
	if err != nil {
		return resp.Reply{}, err
	}
	if err := replies[0].Err(); err != nil {
		return replies[0], fmt.Errorf("redistest: %s: %s: %w", p.addr, args[0], err)
	}
	return replies[0], nil
}

// selectDB changes the database, if it is not that already.
func (p *pipe) selectDB(ctx context.Context, db int) error {
	if p.db == db {
		return nil
	}
	if _, err := p.do(ctx, "SELECT", fmt.Sprint(db)); err != nil {
		return err
	}
	p.db = db
	return nil
}

// parseInfo turns the text of INFO into its fields.
func parseInfo(text string) map[string]string {
	fields := make(map[string]string)
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	return fields
}

package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	peerPatience = 15 * time.Second // bounds each step of a script
	peerGrace    = time.Second      // for the rest of the scripts when the test has ended
)

// Wildcards among the arguments of Expect and Ignore.
const (
	Any  = "\x00any"  // any one argument
	Rest = "\x00rest" // any further arguments, also none
)

// Step is one thing that a scripted peer does or expects.
type Step struct {
	name string
	run  func(ctx context.Context, c *peerConn) error
}

// Script is what a Peer does on one connection. The connection stays open behind its last step, until Close or until
// the peer is closed.
type Script []Step

// Peer is a server that follows scripts: an odd replication source or target. Its first connection follows the first
// script, and so on; further connections are closed at once.
type Peer struct {
	t        TB
	listener net.Listener
	cancel   context.CancelFunc
	wg       sync.WaitGroup // of every goroutine of the peer
	done     chan struct{}  // closed when the last script has ended, or one has failed
	finish   sync.Once

	mu    sync.Mutex // guards the following
	left  int        // scripts that have not ended
	err   error      // the first failure
	conns []net.Conn
}

type peerConn struct {
	net.Conn
	reader *bufio.Reader
	ignore [][]string
	answer []answer
}

// answer is what commands of a form get, whenever they come.
type answer struct {
	form  []string
	reply string
}

// NewPeer starts a peer on loopback. It is closed when the test ends, which fails then if a script was not followed
// to its end.
func NewPeer(t TB, scripts ...Script) *Peer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: peer: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Peer{t: t, listener: l, cancel: cancel, done: make(chan struct{}), left: len(scripts)}
	if len(scripts) == 0 {
		close(p.done)
	}
	p.wg.Go(func() { p.accept(ctx, scripts) })
	t.Cleanup(func() {
		select { // the last steps may be under way
		case <-p.done:
		case <-time.After(peerGrace):
		}
		p.Close()
		if err := p.Err(); err != nil {
			t.Fatalf("%v", err)
		}
	})
	return p
}

// Addr is where the peer listens, host:port.
func (p *Peer) Addr() string { return p.listener.Addr().String() }

// Wait waits until all scripts have ended, and fails the test if one was not followed. Only the goroutine of the test
// may call it.
func (p *Peer) Wait() {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(2 * peerPatience):
	}
	if err := p.Err(); err != nil {
		p.t.Fatalf("%v", err)
	}
}

// Err returns what was not followed so far, scripts that have not ended included.
func (p *Peer) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && p.left > 0 {
		return fmt.Errorf("redistest: peer: %d scripts were not followed to the end", p.left)
	}
	return p.err
}

// Close closes everything and waits until it is gone.
func (p *Peer) Close() {
	p.cancel()
	_ = p.listener.Close()
	p.mu.Lock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *Peer) accept(ctx context.Context, scripts []Script) {
	for n := 0; ; n++ {
		conn, err := p.listener.Accept()
		if err != nil { // closed
			return
		}
		p.mu.Lock()
		refuse := n >= len(scripts) || ctx.Err() != nil
		if !refuse {
			p.conns = append(p.conns, conn)
		}
		p.mu.Unlock()
		if refuse {
			_ = conn.Close()
			continue
		}
		p.wg.Go(func() { p.follow(ctx, n, scripts[n], conn) })
	}
}

func (p *Peer) follow(ctx context.Context, n int, script Script, conn net.Conn) {
	c := &peerConn{Conn: conn, reader: bufio.NewReader(conn)}
	for i, step := range script {
		_ = conn.SetDeadline(time.Now().Add(peerPatience))
		sctx, cancel := context.WithTimeout(ctx, peerPatience)
		err := step.run(sctx, c)
		cancel()
		if err != nil && ctx.Err() != nil { // the test is over: what is left counts as not followed
			return
		}
		if err != nil {
			p.end(fmt.Errorf("redistest: peer: connection %d, step %d %s: %w", n+1, i+1, step.name, err))
			_ = conn.Close()
			return
		}
	}
	_ = conn.SetDeadline(time.Time{})
	p.end(nil)
}

// end notes that a script has ended.
func (p *Peer) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left--
	if p.err == nil {
		p.err = err
	}
	if p.left == 0 || err != nil {
		p.finish.Do(func() { close(p.done) })
	}
}

// Expect reads one command, which must be this one. The first word may be in any case; Any and Rest are wildcards.
func Expect(args ...string) Step {
	return Step{"Expect(" + show(args) + ")", func(_ context.Context, c *peerConn) error {
		got, err := c.command()
		if err == nil && !matches(args, got) {
			err = fmt.Errorf("got %s", show(got))
		}
		return err
	}}
}

// ExpectAny reads one command, whatever it is.
func ExpectAny() Step { return Expect(Rest) }

// Capture reads one command and gives it to fn, whose error is a failure.
func Capture(fn func(args []string) error) Step {
	return Step{"Capture", func(_ context.Context, c *peerConn) error {
		got, err := c.command()
		if err != nil {
			return err
		}
		return fn(got)
	}}
}

// Ignore makes later steps pass over commands of this form, such as REPLCONF ACK with Any, that come at any time.
func Ignore(args ...string) Step {
	return Step{"Ignore(" + show(args) + ")", func(_ context.Context, c *peerConn) error {
		c.ignore = append(c.ignore, args)
		return nil
	}}
}

// Answer makes later steps reply to commands of this form, which may come at any time at which nothing else is due, and
// pass over them.
func Answer(reply string, args ...string) Step {
	return Step{"Answer(" + show(args) + ")", func(_ context.Context, c *peerConn) error {
		c.answer = append(c.answer, answer{args, reply})
		return nil
	}}
}

// ExpectEOF waits until the other end closes the connection. Ignored commands may come before.
func ExpectEOF() Step {
	return Step{"ExpectEOF", func(_ context.Context, c *peerConn) error {
		got, err := c.command()
		var timeout net.Error
		switch {
		case err == nil:
			return fmt.Errorf("got %s", show(got))
		case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, net.ErrClosed):
			return err
		}
		return nil // closed, in whatever way
	}}
}

// Reply sends one line and its end, such as "+OK".
func Reply(line string) Step { return send("Reply", line+"\r\n") }

// Send sends bytes as they are.
func Send(raw string) Step { return send("Send", raw) }

func send(name, raw string) Step {
	return Step{name + "(" + quote(raw) + ")", func(_ context.Context, c *peerConn) error {
		_, err := io.WriteString(c, raw)
		return err
	}}
}

// Await waits until ch is closed or gives a value.
func Await[T any](ch <-chan T) Step {
	return Step{"Await", func(ctx context.Context, _ *peerConn) error {
		select {
		case <-ch:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}}
}

// Call calls fn, whose error is a failure.
func Call(fn func() error) Step {
	return Step{"Call", func(context.Context, *peerConn) error { return fn() }}
}

// Hangup closes the connection.
func Hangup() Step {
	return Step{"Hangup", func(_ context.Context, c *peerConn) error { return c.Close() }}
}

// command reads the next command that is neither ignored nor answered. Empty lines between commands are passed over.
func (c *peerConn) command() ([]string, error) {
	var buf []byte
	for {
		b, err := c.reader.ReadByte()
		if err != nil {
			return nil, fmt.Errorf("after %s: %w", quote(string(buf)), err)
		}
		if len(buf) == 0 && (b == '\r' || b == '\n') {
			continue
		}
		buf = append(buf, b)
		if b != '\n' && c.reader.Buffered() > 0 { // look for the end only where there may be one
			continue
		}
		r, _, err := resp.Decode(buf)
		if errors.Is(err, resp.ErrShort) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("after %s: %w", quote(string(buf)), err)
		}
		buf = buf[:0]
		args := textsOf(r.Array)
		if i := slices.IndexFunc(c.answer, func(a answer) bool { return matches(a.form, args) }); i >= 0 {
			if _, err := io.WriteString(c, c.answer[i].reply+"\r\n"); err != nil {
				return nil, err
			}
			continue
		}
		if !slices.ContainsFunc(c.ignore, func(form []string) bool { return matches(form, args) }) {
			return args, nil
		}
	}
}

func matches(want, got []string) bool {
	for i, arg := range want {
		switch {
		case arg == Rest:
			return true
		case i >= len(got):
			return false
		case arg == Any || arg == got[i] || i == 0 && strings.EqualFold(arg, got[i]):
		default:
			return false
		}
	}
	return len(want) == len(got)
}

// show prints a command for a message.
func show(args []string) string {
	out := make([]string, len(args))
	for i, arg := range args {
		switch arg {
		case Any:
			out[i] = "<any>"
		case Rest:
			out[i] = "<rest>"
		default:
			out[i] = quote(arg)
		}
	}
	return strings.Join(out, " ")
}

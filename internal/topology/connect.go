package topology

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/keepalive"
)

// State is where a connection to a source or target is in its life.
type State uint8

// States of a connection.
const (
	Connecting     State = iota // dialling, TLS included
	Authenticating              // logging in, and preparing the connection for its use
	Loading                     // the server is reading its data from disk, and is waited for
	Ready                       // handed to its user
	BackingOff                  // waiting before the next try
	Closed                      // given up, or ended by its user
)

func (s State) String() string {
	switch s {
	case Connecting:
		return "connecting"
	case Authenticating:
		return "authenticating"
	case Loading:
		return "loading"
	case Ready:
		return "ready"
	case BackingOff:
		return "backing-off"
	case Closed:
		return "closed"
	}
	return "unknown"
}

// Event is a change in the state of a connection.
type Event struct {
	State   State
	Addr    string
	Attempt int       // counts dials from 1 on
	Err     error     // why the last try failed: with BackingOff and Closed
	NextTry time.Time // with BackingOff; the past where another address is tried at once

	LoadingETA time.Duration // the server's own estimate, with Loading; 0 where it gives none
}

// ConnectOptions say where to connect and what makes the connection ready.
type ConnectOptions struct {
	Dialer *Dialer
	Role   string   // "source" or "target", for messages
	Addrs  []string // tried in turn; empty means the Servers of the dialer's endpoint, asked for anew before each round

	// Find is asked before each round for the addresses to try, where they may change; nil means Addrs. Its error
	// ends the round like one of a dial, unless it is Permanent.
	Find func(ctx context.Context) ([]string, error)

	// Prepare makes a logged-in connection ready for its use; nil does nothing. Its error closes the connection and is
	// retried like any other, unless it is Permanent. Its ctx ends when Connect returns.
	Prepare func(ctx context.Context, c *resp.Conn) error

	// Observe is told of each change, one after the other, from the goroutine of Connect; nil hears nothing. It must
	// not block.
	Observe func(Event)

	// Within is how long Connect tries before it gives up; 0 means until ctx ends. A server that answers LOADING is
	// reached: the clock stands until that connection is lost.
	Within time.Duration

	// Backoff is used between rounds over all addresses; nil means a new one, as NewBackoff makes it. A caller that
	// passes its own resets it when the connection has been of use: a server that accepts and soon closes must not be
	// dialled without pause.
	Backoff *keepalive.Backoff
}

// Permanent wraps an error of Prepare that no later try can mend: Connect returns it at once.
type Permanent struct{ Err error }

func (p *Permanent) Error() string { return p.Err.Error() }
func (p *Permanent) Unwrap() error { return p.Err }

// NotReachedError is returned by Connect when time was up, or ctx ended, before a connection was ready. It unwraps to
// the causes of the last tries, and to the cause of ctx if that ended.
type NotReachedError struct {
	Role   string
	Addrs  []string
	After  time.Duration
	Within bool  // the time limit was reached; otherwise ctx ended
	Err    error // causes of the last tries; nil if there was none
	Ctx    error // why ctx ended; nil if Within
}

func (e *NotReachedError) Error() string {
	var b strings.Builder
	if e.Role != "" {
		b.WriteString(e.Role + " ")
	}
	b.WriteString(strings.Join(e.Addrs, ", "))
	after := e.After.Round(time.Millisecond)
	if after > 10*time.Second {
		after = after.Round(time.Second)
	}
	if fmt.Fprintf(&b, " not reached within %v", after); !e.Within && !errors.Is(e.Ctx, context.DeadlineExceeded) {
		fmt.Fprintf(&b, " (%v)", e.Ctx)
	}
	if e.Err != nil {
		text := e.Err.Error()
		if one := (*Error)(nil); len(e.Addrs) == 1 && errors.As(e.Err, &one) && one.Addr == e.Addrs[0] {
			text = one.brief()
		}
		b.WriteString(": " + text)
		b.WriteString(advice(e.Err))
	}
	return b.String()
}

func (e *NotReachedError) Unwrap() []error {
	var all []error
	for _, err := range []error{e.Err, e.Ctx} {
		if err != nil {
			all = append(all, err)
		}
	}
	return all
}

// advice says what to do about login errors (their codes: protocol.md 8).
func advice(err error) string {
	var e *resp.Error
	if !errors.As(err, &e) {
		return ""
	}
	switch e.Code {
	case "NOAUTH":
		return " (configure a password or password file)"
	case "WRONGPASS":
		return " (check user and password)"
	case "NOPERM":
		return " (grant the user this permission: ACL SETUSER)"
	case "DENIED":
		return " (protected mode: set a password on the server, or connect from its own machine)"
	}
	return ""
}

// errList is several causes in one line.
type errList []error

func (l errList) Error() string {
	texts := make([]string, len(l))
	for i, err := range l {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (l errList) Unwrap() []error { return l }

func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errList(errs)
}

var errTimeUp = errors.New("time is up")

// Connect returns a connection that is logged in, prepared, and whose server is not loading. It tries until then: a
// first connection is treated like any later one, and errors of login and permission are retried as well, because
// servers start before their ACLs and secrets are mounted late. It ends with a *NotReachedError when ctx or the time
// limit does, or with a *Permanent of Prepare.
func Connect(ctx context.Context, opts ConnectOptions) (*resp.Conn, error) {
	byName := false
	if len(opts.Addrs) == 0 && opts.Find == nil {
		opts.Find, byName = opts.Dialer.Servers, opts.Dialer.Endpoint.Sentinels != nil
	}
	if opts.Observe == nil {
		opts.Observe = func(Event) {}
	}
	if opts.Backoff == nil {
		opts.Backoff = NewBackoff(opts.Dialer.Endpoint)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	t := &trier{ConnectOptions: opts, byName: byName, started: time.Now(), clock: newClock(opts.Within, func() { cancel(errTimeUp) })}
	defer t.clock.stop()
	for {
		c, err := t.round(ctx)
		if c != nil || err != nil {
			return c, err
		}
		wait := t.Backoff.Next()
		t.event(Event{State: BackingOff, Err: t.cause(), NextTry: time.Now().Add(wait)})
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, t.giveUp(ctx)
		}
	}
}

// NewBackoff returns the pauses between tries to connect: from 100 ms to 10 s, and to 1 s where a server that has failed
// is likely to be replaced by another one soon.
func NewBackoff(e Endpoint) *keepalive.Backoff {
	if e.Several() {
		return &keepalive.Backoff{Max: time.Second}
	}
	return &keepalive.Backoff{}
}

// trier is one call of Connect.
type trier struct {
	ConnectOptions
	byName  bool // a sentinel has named the address: it must be a primary's
	started time.Time
	clock   *clock
	attempt int
	addr    string
	causes  []error // of the last try of each address
}

func (t *trier) event(e Event) {
	e.Addr, e.Attempt = t.addr, t.attempt
	t.Observe(e)
}

func (t *trier) cause() error {
	if len(t.causes) == 0 {
		return nil
	}
	return joined(t.causes)
}

// round tries each address once. It returns a connection, an error to return, or neither.
func (t *trier) round(ctx context.Context) (*resp.Conn, error) {
	previous := t.causes
	t.causes = nil
	if err := t.find(ctx); err != nil {
		t.causes, t.addr = []error{err}, ""
		if p := (*Permanent)(nil); errors.As(err, &p) {
			t.event(Event{State: Closed, Err: err})
			return nil, err
		}
	}
	for i, addr := range t.Addrs {
		if ctx.Err() != nil {
			break
		}
		t.addr = addr
		t.attempt++
		c, err := t.try(ctx)
		if err == nil {
			t.Dialer.prefer(addr)
			return c, nil
		}
		t.clock.run()
		if ctx.Err() != nil {
			if len(t.causes) == 0 && len(previous) == 0 {
				t.causes = []error{err} // it says at least what was being done
			}
			break
		}
		t.causes = append(t.causes, err)
		if p := (*Permanent)(nil); errors.As(err, &p) {
			t.event(Event{State: Closed, Err: err})
			return nil, err
		}
		if i < len(t.Addrs)-1 {
			t.event(Event{State: BackingOff, Err: err, NextTry: time.Now()})
		}
	}
	if ctx.Err() != nil {
		if len(t.causes) == 0 {
			t.causes = previous
		}
		return nil, t.giveUp(ctx)
	}
	t.Dialer.doubt()
	return nil, nil
}

// find asks anew which addresses to try.
func (t *trier) find(ctx context.Context) (err error) {
	if t.Find != nil {
		if t.Addrs, err = t.Find(ctx); err == nil && len(t.Addrs) == 0 {
			err = &Permanent{errors.New("no address to connect to")}
		}
	}
	return err
}

func (t *trier) giveUp(ctx context.Context) error {
	if len(t.Addrs) == 0 {
		t.Addrs = []string{t.Dialer.Endpoint.String()}
	}
	err := &NotReachedError{Role: t.Role, Addrs: t.Addrs, After: time.Since(t.started), Err: t.cause()}
	if cause := context.Cause(ctx); errors.Is(cause, errTimeUp) {
		err.Within, err.After = true, t.Within
	} else {
		err.Ctx = cause
	}
	t.event(Event{State: Closed, Err: err})
	return err
}

func (t *trier) try(ctx context.Context) (*resp.Conn, error) {
	t.event(Event{State: Connecting})
	raw, err := t.Dialer.Dial(ctx, t.addr)
	if err != nil {
		return nil, err
	}
	c := resp.NewConn(raw)
	if err := t.prepare(ctx, c); err != nil {
		_ = c.Close()
		return nil, err
	}
	t.event(Event{State: Ready})
	return c, nil
}

func (t *trier) prepare(ctx context.Context, c *resp.Conn) error {
	t.event(Event{State: Authenticating})
	if err := t.Dialer.login(ctx, t.addr, c); err != nil {
		return err
	}
	if err := t.awaitLoaded(ctx, c); err != nil {
		return err
	}
	if t.byName {
		if err := isPrimary(ctx, c, t.addr); err != nil {
			return err
		}
	}
	if t.Prepare == nil {
		return nil
	}
	if err := t.Prepare(ctx, c); err != nil {
		if errors.As(err, new(*Permanent)) || errors.As(err, new(*Error)) {
			return err
		}
		return &Error{t.addr, "prepare", err}
	}
	return nil
}

// clock runs up to a limit, and stands still while a server is loading.
type clock struct {
	timer   *time.Timer
	left    time.Duration
	since   time.Time
	running bool
}

func newClock(limit time.Duration, expired func()) *clock {
	if limit <= 0 {
		return &clock{}
	}
	return &clock{timer: time.AfterFunc(limit, expired), left: limit, since: time.Now(), running: true}
}

func (c *clock) stop() {
	if c.timer == nil || !c.running {
		return
	}
	if c.timer.Stop() {
		c.left -= time.Since(c.since)
	}
	c.running = false
}

func (c *clock) run() {
	if c.timer == nil || c.running {
		return
	}
	c.since, c.running = time.Now(), true
	c.timer.Reset(max(c.left, 0))
}

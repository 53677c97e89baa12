package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
)

const (
	leaseVersion   = 1
	defaultEvery   = 3 * time.Second
	defaultSilence = 10 * time.Second
	waitPoll       = 10 * time.Millisecond
)

// How a lease ends.
var (
	ErrTaken = errors.New("another worker has taken the lease over")
	ErrGone  = errors.New("the lease has vanished from the target")
)

// LeaseConfig says whose lease it is.
type LeaseConfig struct {
	Store   *Store
	Worker  string        // of this process; no other has it. It holds neither a blank nor a colon
	Every   time.Duration // between renewals; 0 means 3 s
	Silence time.Duration // after which the lease may be taken from a silent worker; 0 means 10 s
	Log     zerolog.Logger
}

// Lease lets one worker of a haul write at a time. It is a key on the target without a time to live there: the server
// might evict such a key, and would let it lapse while it is frozen itself. Its holder raises a counter in it, and
// stops by its own clock; others see whether the counter stands still. Every change is a compare-and-set by WATCH.
//
// Acquire, Run and Release are called one after the other, except that Release may come while Run ends. The other
// methods may be called at any time.
type Lease struct {
	cfg   LeaseConfig
	store *Store
	clock func() time.Duration // bootTime; tests set it

	link sync.Mutex // guards conn, over network calls
	conn *conn

	mu   sync.Mutex // guards the following
	mine claim      // as last confirmed
	held bool       // Acquire has succeeded and Release was not called
	at   string     // the address that has confirmed it
	sent time.Duration
	lost error // ErrTaken or ErrGone

	cleared uint64 // epoch of ours in which all earlier workers' connections are known to be gone
}

// NewLease returns a lease that is not held.
func NewLease(cfg LeaseConfig) *Lease {
	cfg.Every = cmp.Or(cfg.Every, defaultEvery)
	cfg.Silence = cmp.Or(cfg.Silence, defaultSilence)
	return &Lease{cfg: cfg, store: cfg.Store, clock: bootTime}
}

// claim is the value of the lease, the text "1 <epoch> <worker> <counter>". The first number is the format's version;
// worker is empty when the lease was released.
type claim struct {
	epoch   uint64
	worker  string
	counter uint64
}

func (c claim) String() string {
	return fmt.Sprintf("%d %d %s %d", leaseVersion, c.epoch, c.worker, c.counter)
}

func (c claim) same(other claim) bool { return c.epoch == other.epoch && c.worker == other.worker }

func parseClaim(text string) (claim, error) {
	fields := strings.Split(text, " ")
	if v, err := strconv.ParseUint(fields[0], 10, 31); err == nil && v > leaseVersion {
		return claim{}, fmt.Errorf("lease of format %d: %w", v, ErrNewer)
	}
	if len(fields) != 4 || fields[0] != strconv.Itoa(leaseVersion) {
		return claim{}, errors.New("lease: has a wrong form")
	}
	epoch, err := strconv.ParseUint(fields[1], 10, 64)
	counter, err2 := strconv.ParseUint(fields[3], 10, 64)
	if errors.Join(err, err2) != nil {
		return claim{}, errors.New("lease: epoch or counter is no number")
	}
	return claim{epoch, fields[2], counter}, nil
}

// Valid tells whether this worker may write: it has acquired the lease, and the last renewal that the target confirmed
// was sent less than Silence ago. It takes no network.
func (l *Lease) Valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held && l.lost == nil && l.clock()-l.sent < l.cfg.Silence
}

// Text returns the value as last confirmed, to be written anew after a FLUSHALL. It is empty if the lease is not held.
func (l *Lease) Text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mine.worker == "" {
		return ""
	}
	return l.mine.String()
}

// Wait returns when the lease is valid, or why it never will be: ErrTaken, ErrGone, or the cause of ctx.
func (l *Lease) Wait(ctx context.Context) error {
	for !l.Valid() {
		l.mu.Lock()
		lost := l.lost
		l.mu.Unlock()
		if lost != nil {
			return lost
		}
		if err := sleep(ctx, waitPoll); err != nil {
			return err
		}
	}
	return nil
}

// Check reads the lease before something is written at addr: nil if it is this worker's, ErrTaken or ErrGone if it is
// not. A standalone target keeps it there; where another server was promoted, it is renewed there from now on. It tries
// once.
func (l *Lease) Check(ctx context.Context, addr string) error {
	if !l.store.cfg.Cluster {
		if err := l.moveTo(ctx, addr); err != nil {
			return err
		}
		return l.checkAt(ctx, addr)
	}
	target, err := l.store.look(ctx, false)
	if err == nil {
		err = l.checkAt(ctx, target.owner().addr)
	}
	if err == nil || ctx.Err() != nil || !heals(err) {
		return err
	}
	if target, err = l.store.look(ctx, true); err != nil { // the slot may have moved
		return err
	}
	return l.checkAt(ctx, target.owner().addr)
}

// moveTo makes sure that a lease which was confirmed at another address of a standalone target is kept at addr.
func (l *Lease) moveTo(ctx context.Context, addr string) error {
	if at := l.keptAt(); at == addr || at == "" {
		return nil
	}
	l.hangUp()
	if err := l.renew(ctx); err != nil {
		return err
	}
	if at := l.keptAt(); at != addr {
		return &topology.Error{Addr: addr, Op: "lease", Err: errors.New("the primary is found at " + at)}
	}
	return nil
}

// keptAt returns the address at which the lease was confirmed last.
func (l *Lease) keptAt() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.at
}

func (l *Lease) checkAt(ctx context.Context, addr string) error {
	return l.store.fresh(ctx, addr, false, func(c *conn) error {
		r, err := c.do(ctx, "GET", l.store.Keys().Lease())
		if err != nil {
			return err
		}
		_, err = l.confirm(r.Text, !r.Null)
		return err
	})
}

// confirm reads a value that must be this worker's.
func (l *Lease) confirm(text string, found bool) (claim, error) {
	l.mu.Lock()
	mine := l.mine
	l.mu.Unlock()
	if !found {
		return claim{}, haul.Errorf(haul.ExitFailed, "find out who deleted "+l.store.Keys().Lease()+" on the target, and start again",
			"haul %q: %w", l.store.cfg.Name, ErrGone)
	}
	is, err := parseClaim(text)
	if err != nil {
		return claim{}, l.store.unreadable(err)
	}
	if !is.same(mine) {
		return claim{}, haul.Errorf(haul.ExitHeld, "one worker hauls at a time: stop the other one first, or let this one wait",
			"haul %q: %w: %s", l.store.cfg.Name, ErrTaken, cmp.Or(is.worker, "it has released it since"))
	}
	return is, nil
}

// Run renews the lease until ctx ends, and returns its cause, or until the lease is lost, and returns ErrTaken or
// ErrGone. Errors of the network never end it: once the target answers again the lease is valid again, unless someone
// took it meanwhile.
func (l *Lease) Run(ctx context.Context) error {
	defer l.hangUp()
	backoff := keepalive.Backoff{Min: min(l.cfg.Every, keepalive.DefaultMinBackoff), Max: l.cfg.Every}
	for {
		wait := l.cfg.Every
		err := l.renew(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			backoff.Reset()
		case errors.Is(err, ErrTaken), errors.Is(err, ErrGone), errors.Is(err, ErrNewer):
			l.mu.Lock()
			l.lost = err
			l.mu.Unlock()
			return err
		default:
			wait = backoff.Next()
			l.cfg.Log.Warn().Err(err).Dur("wait", wait).Msg("cannot renew the lease yet")
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

func (l *Lease) renew(ctx context.Context) error {
	return l.swap(ctx, func(text string, found bool) (claim, error) {
		is, err := l.confirm(text, found)
		is.counter++ // of what is there: a target that was rolled back has an old one
		return is, err
	})
}

// Release lets the next worker take over at once. It does nothing if the lease is not this worker's any more. It tries
// once.
func (l *Lease) Release(ctx context.Context) error {
	l.mu.Lock()
	mine := l.mine
	l.held = false
	l.mu.Unlock()
	if mine.worker == "" {
		return nil
	}
	defer l.hangUp()
	err := l.swap(ctx, func(text string, found bool) (claim, error) {
		is, err := l.confirm(text, found)
		return claim{epoch: is.epoch, counter: is.counter + 1}, err
	})
	if errors.Is(err, ErrTaken) || errors.Is(err, ErrGone) {
		err = nil
	}
	if err == nil {
		l.store.lease.CompareAndSwap(l, nil)
	}
	return err
}

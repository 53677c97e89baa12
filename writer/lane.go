package writer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
)

// lane is one connection to one target node, and the entries in flight on it. The dispatcher appends items, one
// goroutine encodes and writes them, one reads replies, one keeps the connection. What goes wrong is collected here and
// handed to the dispatcher, which alone decides what is sent again.
type lane struct {
	d       *dispatcher
	addr    string // changes, under mu, only while the lane is down
	keep    *keepalive.Keeper
	wake    chan struct{}
	drained chan struct{} // nothing is in flight any more

	local  []item // the dispatcher's, before it pushes them
	had    int    // the dispatcher's: entries of a batch that the node has, before it completes them
	served bool   // the dispatcher's: it was connected once
	fresh  bool   // the dispatcher's: it was connected anew since fences were read
	id     int64  // the dispatcher's: the target's number of the connection; 0 if unknown
	runID  string // the dispatcher's: of the server that it was connected to
	holder string // the dispatcher's: what that server holds, see checkpoint.Holder

	mu       sync.Mutex
	conn     *resp.Conn    // nil while down
	over     chan struct{} // of the last connection: closed when its goroutines have ended
	pending  ring[item]    // not yet taken by the writing goroutine
	taken    []item        // taken, of which those before pushed are in flight
	pushed   int
	flight   ring[op]
	reading  bool              // the oldest op was taken out of flight, and is not answered in full
	partial  op                // that op, once the lane is down
	held     bool              // nothing more may be taken
	busy     bool              // the writing goroutine works on what it has taken
	open     bool              // a transaction is begun, and not executed
	execs    int               // transactions in flight that are executed
	mark     *checkpoint.Fence // to be written
	marked   string            // the key of it
	failed   []item
	cause    *failure          // the worst of those
	repeats  int64             // how many of those are applied already
	aside    map[uint16][]item // by slots that wait to be handed over: what was refused, and what followed it
	retired  bool              // it ends because nothing is left to do
	due      time.Time         // since when a reply has been due
	replicas replicas
	ping     bool
	ask      bool

	// owned by the reading goroutine, and by the dispatcher while the lane is quiet
	failing bool
	slots   map[uint16]bool // which have failed, on a cluster
	queued  []op            // of the transaction that is not decided yet
	abort   *refusedOp      // why it will be refused
	broken  *resp.Error     // why a value that is being built cannot be

	sent    uint64        // ops launched; of the writing goroutine
	settled atomic.Uint64 // ops answered
	unbuilt atomic.Bool   // a value that is being built was refused: the rest of it need not be sent
	shut    atomic.Int32  // slots in which an entry was refused, and which were not handed over yet
	gate    gate
	whole   wholeTx

	state      atomic.Value // string, for status
	wrote      atomic.Int64 // bytes
	wroteAt    atomic.Int64 // unix ns
	entries    atomic.Int64 // in flight
	bytes      atomic.Int64 // in flight
	replied    atomic.Int64 // unix ns of the last reply
	acked      atomic.Int64 // entries
	fenced     atomic.Int64 // the highest offset of a fence that was written
	pings      atomic.Int64
	reconnects atomic.Int64
	redirects  atomic.Int64
	stalled    atomic.Bool // a wait for a reply is shown
	few        atomic.Bool // a wait for replicas is shown
}

// failure is why entries could not be written.
type failure struct {
	addr string // of the node
	act  action
	err  *resp.Error
	what error // names the entry, where the operator has to mend it
}

func newLane(d *dispatcher, addr string) *lane {
	l := &lane{
		d: d, addr: addr, wake: make(chan struct{}, 1), drained: make(chan struct{}, 1),
		keep:  keepalive.NewKeeper(d.cfg.ReplyTimeout, d.cfg.PingInterval),
		slots: make(map[uint16]bool), aside: make(map[uint16][]item),
	}
	l.state.Store("connecting")
	return l
}

const takeItems = 256

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// push appends items. It never waits.
func (l *lane) push(items ...item) {
	l.mu.Lock()
	for _, it := range items {
		l.pending.push(it)
	}
	l.mu.Unlock()
	signal(l.wake)
}

// setAddr says where the lane is going to be connected to.
func (l *lane) setAddr(addr string) {
	l.mu.Lock()
	l.addr = addr
	l.mu.Unlock()
}

// begin takes a ready connection, which serve then runs.
func (l *lane) begin(conn *resp.Conn) {
	l.replied.Store(time.Now().UnixNano())
	l.state.Store("ready")
	l.mu.Lock()
	l.conn = conn
	l.over = make(chan struct{})
	l.held = false
	l.replicas.begun()
	l.mu.Unlock()
}

// close ends the lane's connection, if it has one, and waits until it is gone.
func (l *lane) close() {
	l.mu.Lock()
	conn, over := l.conn, l.over
	l.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
		<-over
	}
}

// retire closes a lane for good.
func (l *lane) retire() {
	l.mu.Lock()
	l.retired = true
	l.mu.Unlock()
	l.close()
}

// serve runs a connection until it is lost or ctx ends.
func (l *lane) serve(ctx context.Context, conn *resp.Conn) {
	g, gctx := errgroup.WithContext(ctx)
	closer := context.AfterFunc(gctx, func() { _ = conn.Close() })
	g.Go(func() error { return l.write(gctx, conn) })
	g.Go(func() error { return l.read(conn) })
	g.Go(func() error { return l.keep.Run(gctx, l.kept()) })
	err := g.Wait()
	closer()
	_ = conn.Close()
	l.answered()
	l.sayReplicas(int64(l.d.cfg.WaitReplicas)) // nothing is asked at the moment
	l.state.Store("closed")
	l.mu.Lock()
	l.conn = nil
	l.held = true
	addr := l.addr // from here on it may change
	close(l.over)
	retired := l.retired
	l.mu.Unlock()
	if ctx.Err() == nil && !retired {
		l.d.lost(addr, err)
	}
}

// quiet reports whether nothing is on its way any more: the lane is down, or held with all replies in.
func (l *lane) quiet() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn == nil || l.held && !l.busy && !l.open && l.pushed == len(l.taken) && !l.waiting()
}

// idle reports whether there is nothing to do.
func (l *lane) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending.len() == 0 && !l.busy && !l.open && l.pushed == len(l.taken) && !l.waiting() && len(l.failed) == 0 && l.gate.empty() &&
		l.shut.Load() == 0 && l.mark == nil && len(l.replicas.kept) == 0
}

// waiting reports whether replies are due. The lane must be locked.
func (l *lane) waiting() bool { return l.reading || l.flight.len() > 0 }

// hold stops taking items; release goes on.
func (l *lane) hold() {
	l.mu.Lock()
	l.held = true
	l.mu.Unlock()
	signal(l.wake) // a transaction that is open has to be given up
}

func (l *lane) release() {
	l.mu.Lock()
	l.held = l.conn == nil
	l.mu.Unlock()
	signal(l.wake)
}

// collect adds to s everything that is not acknowledged on a quiet lane, in order, and why.
func (l *lane) collect(s *setback) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.failed = append(s.failed, l.failed...)
	if l.cause != nil && (s.cause == nil || l.cause.act > s.cause.act) {
		s.cause = l.cause
	}
	s.again += l.repeats
	l.failed, l.cause, l.repeats = nil, nil, 0
	l.failing = false
	l.forgetBroken()
	clear(l.slots)
	for _, items := range l.aside {
		s.rest = append(s.rest, items...)
	}
	clear(l.aside)
	l.shut.Store(0)
	for i := range l.queued {
		s.undecided(&l.queued[i])
	}
	l.queued, l.abort = l.queued[:0], nil
	for l.conn == nil && l.waiting() { // on a live connection only control commands can be in flight
		o := l.partial
		if !l.reading {
			o = l.flight.pop()
		}
		l.reading = false
		if o.kind.queued() || o.kind == opExec {
			s.undecided(&o)
			continue
		}
		rest, acked := o.rest()
		if acked > 0 {
			l.doneLocked(o.batch, acked)
		}
		s.rest = append(s.rest, rest...)
		s.unacked += int64(o.count) - int64(acked) - int64(o.bad)
	}
	l.entries.Store(0)
	l.bytes.Store(0)
	s.rest = append(s.rest, l.taken[l.pushed:]...)
	l.taken, l.pushed = l.taken[:0], 0
	l.open, l.execs = false, 0
	if l.conn == nil {
		l.settled.Store(l.sent) // the rest will not be answered
	}
	s.rest = l.gate.collect(l.d.slots, s.rest)
	for l.pending.len() > 0 {
		s.rest = append(s.rest, l.pending.pop())
	}
}

// who names the lane where waits are listed.
func (l *lane) who() string { return "target " + l.addr }

// Ping implements keepalive.Lane. A lane that wrote lately needs none, and one whose mutex is taken is in use.
func (l *lane) Ping() {
	if time.Since(time.Unix(0, l.wroteAt.Load())) < l.keep.Interval()/2 {
		return
	}
	if !l.mu.TryLock() {
		return
	}
	busy := l.waiting()
	if !busy {
		l.ping = true
	}
	l.mu.Unlock()
	if !busy {
		l.pings.Add(1)
		signal(l.wake)
	}
}

// AskTimeout implements keepalive.Lane.
func (l *lane) AskTimeout() {
	l.mu.Lock()
	l.ask = true
	l.mu.Unlock()
	signal(l.wake)
}

// unpinged is a lane whose keepalive is switched off: it is only watched for replies that do not come.
type unpinged struct{ *lane }

func (unpinged) Ping()       {}
func (unpinged) AskTimeout() {}

func (l *lane) kept() keepalive.Lane {
	if l.d.cfg.Keepalive {
		return l
	}
	return unpinged{l}
}

// answered takes back what Probe has told the operator.
func (l *lane) answered() {
	if l.stalled.Load() && l.stalled.CompareAndSwap(true, false) {
		l.d.cfg.Waits.Clear("target " + l.addr)
	}
}

// Stalled implements keepalive.Lane.
func (l *lane) Stalled() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.waiting() {
		return 0
	}
	last := time.Unix(0, l.replied.Load())
	if l.due.After(last) {
		last = l.due
	}
	return time.Since(last)
}

// Probe implements keepalive.Lane.
func (l *lane) Probe(ctx context.Context) keepalive.Verdict {
	const patience = 5 * time.Second
	l.stalled.Store(true)
	l.d.cfg.Waits.Set("target "+l.addr, fmt.Sprintf("no reply for %v", l.Stalled().Round(time.Second)),
		"none needed if the target works on a slow command; else look at that server")
	c, err := l.d.cfg.Dialer.Dial(ctx, l.addr)
	if e := (*topology.Error)(nil); errors.As(err, &e) && e.Op == "TLS handshake" {
		return keepalive.Busy // its machine has accepted the connection
	}
	if err != nil {
		return keepalive.Unreachable
	}
	defer c.Close() //nolint:errcheck // was only a probe
	if _, err := resp.NewConn(c).Do(ctx, patience, "PING"); err != nil && !errors.As(err, new(*resp.Error)) {
		return keepalive.Busy
	}
	return keepalive.Alive
}

package reader

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
)

const (
	ackEvery     = time.Second
	ackFirst     = 100 * time.Millisecond // a diskless source may miss the first ones (protocol §1)
	pollEvery    = time.Second
	runwayWindow = 30 // polls that the write rate of the source is taken from
	runwayWarned = 5  // polls before anything is said about it

	replacedEvery = 5 // polls between two looks at the source's other addresses
)

func (p *PSYNC) setConn(c *resp.Conn) {
	p.mu.Lock()
	old := p.conn
	p.conn = c
	p.status.Connected = c != nil
	p.mu.Unlock()
	if old != nil && old != c {
		_ = old.Close()
	}
}

func (p *PSYNC) currentConn() *resp.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn
}

// ack asks for an ACK to be sent now.
func (p *PSYNC) ack() {
	select {
	case p.ackNow <- struct{}{}:
	default:
	}
}

// getack notes that the source asks how far the target is, at offset.
func (p *PSYNC) getack(offset int64) {
	p.mu.Lock()
	p.getacks = append(p.getacks, question{offset, p.out.Watermark.Reached(offset)})
	p.mu.Unlock()
	p.ack() // the old offset, as a sign of life
}

// acknowledge tells the source once a second, and whenever it asks, up to where the target has applied its stream. It
// removes what the spool need not hold any longer.
func (p *PSYNC) acknowledge(ctx context.Context, s *fullSync) error {
	keep := retention{window: p.cfg.Retain, bytes: p.cfg.RetainBytes}
	for {
		wait := ackEvery
		if p.awaiting.Load() {
			wait = ackFirst
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.ackNow:
		case <-p.asked():
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
		timer.Stop()
		p.sendAck(s)
		p.trim(s, &keep)
	}
}

// question is a GETACK that waits for its answer.
type question struct {
	offset  int64
	reached <-chan struct{} // closed when the target has applied everything before offset
}

// asked returns a channel that is closed when the oldest GETACK can be answered with the truth; nil if there is none.
func (p *PSYNC) asked() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.getacks) == 0 {
		return nil
	}
	return p.getacks[0].reached
}

func (p *PSYNC) sendAck(s *fullSync) {
	offset := p.out.Watermark.Stream().Offset
	p.mu.Lock()
	for len(p.getacks) > 0 && p.getacks[0].offset <= offset {
		p.getacks = p.getacks[1:]
	}
	c := p.conn
	p.mu.Unlock()
	if p.cfg.AckReceived {
		offset = s.stream.End()
	}
	if !s.applied.Load() {
		offset = 0
	}
	if c == nil {
		return
	}
	select {
	case <-s.whole:
	default:
		return // before the end of the snapshot an ACK means nothing to the source
	}
	_ = c.SetWriteDeadline(time.Now().Add(ackEvery))
	if _, err := c.Write(resp.AppendCommand(nil, "REPLCONF", "ACK", strconv.FormatInt(offset, 10))); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		_ = c.Close() // the receiver notices; of a closed one it reads what is left before
	}
}

// retention decides how far the stream's spool may be trimmed: what was applied stays for a while, because a target
// that fails over may have to be given it again.
type retention struct {
	window  time.Duration
	bytes   int64
	samples []retained
}

type retained struct {
	at     time.Time
	offset int64
}

func (r *retention) limit(now time.Time, applied int64) int64 {
	if n := len(r.samples); n == 0 || now.Sub(r.samples[n-1].at) >= time.Second {
		r.samples = append(r.samples, retained{now, applied})
	}
	limit := applied - r.bytes
	for len(r.samples) > 0 && now.Sub(r.samples[0].at) >= r.window {
		limit = max(limit, r.samples[0].offset)
		r.samples = r.samples[1:]
	}
	return limit
}

func (p *PSYNC) trim(s *fullSync, keep *retention) {
	if !s.applied.Load() {
		if p.cfg.Dir == "" || p.budget.Used() > p.budget.Max/2 {
			s.snapshot.Trim(p.out.Watermark.Progress().SnapshotBytes)
		}
		return
	}
	applied := p.out.Watermark.Stream().Offset
	limit := keep.limit(time.Now(), applied)
	if p.cfg.Dir == "" || p.budget.Used() > p.budget.Max/2 {
		limit = applied
	}
	s.stream.Trim(limit)
}

// poll is what the source said of itself at a time.
type poll struct {
	at     time.Time
	offset int64
}

// watch asks the source each second how far its own stream is, and whether it is still what it was.
func (p *PSYNC) watch(ctx context.Context) error {
	var conn *resp.Conn
	var at string
	hangUp := func() {
		if conn != nil {
			_ = conn.Close()
			conn = nil
		}
	}
	defer hangUp()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for polls := 1; ; polls++ {
		if addr, err := p.address(ctx); err == nil && addr != at {
			hangUp()
			at = addr
		}
		if conn == nil && at != "" {
			conn, _ = p.cfg.Dialer.Open(ctx, at) // the link tells what is wrong
		}
		if conn != nil {
			node, err := p.question(ctx, conn)
			if err == nil {
				p.polledNode(node)
				p.leaveDemoted(node)
			} else {
				hangUp()
			}
		}
		if polls%replacedEvery == 0 {
			p.leaveReplaced(ctx)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// question is INFO, for no longer than a live source is silent.
func (p *PSYNC) question(ctx context.Context, c *resp.Conn) (topology.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.ReplyTimeout)
	defer cancel()
	return topology.Inspect(ctx, c)
}

// leaveDemoted closes the link when its server has become a replica since it was chosen: the primary is looked for.
func (p *PSYNC) leaveDemoted(n topology.Node) {
	p.mu.Lock()
	c, at := p.conn, p.addr
	demoted := c != nil && n.Role == "slave" && p.node.Role == "master" && n.RunID == p.node.RunID
	p.mu.Unlock()
	if demoted {
		p.cfg.Log.Warn().Str("address", at).Str("primary", fmt.Sprintf("%s:%d", n.MasterHost, n.MasterPort)).
			Msg("the source has become a replica: it is left, and its new primary is looked for")
		_ = c.Close() // the receiver notices
	}
}

// leaveReplaced closes the link to a primary in whose place another one was promoted, though it does not know of that.
func (p *PSYNC) leaveReplaced(ctx context.Context) {
	p.mu.Lock()
	c, at, role := p.conn, p.addr, p.node.Role
	p.mu.Unlock()
	spool := p.spool.Load()
	if c == nil || role == "slave" || spool == nil || !p.chooses() {
		return
	}
	// what cannot go on where we are is looked at when the link is lost
	found, err := p.find(ctx, p.history(spool.End()))
	if err != nil || found[0] == at {
		return
	}
	p.cfg.Log.Warn().Str("address", at).Str("promoted", found[0]).Msg("another server was promoted in place of the source: it is left")
	_ = c.Close() // the receiver notices
}

// address is where the link is connected to, or was last; before, where it is going to be.
func (p *PSYNC) address(ctx context.Context) (string, error) {
	p.mu.Lock()
	addr := p.addr
	p.mu.Unlock()
	if addr != "" {
		return addr, nil
	}
	addrs, err := p.find(ctx, nil)
	if err == nil && len(addrs) == 0 {
		err = errors.New("no address is known")
	}
	if err != nil {
		return "", err
	}
	return addrs[0], nil
}

func (p *PSYNC) polledNode(n topology.Node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.warnOfRunway(n)
	p.status.SourceOffset = n.MasterReplOffset
	p.polled = append(p.polled, poll{time.Now(), n.MasterReplOffset})
	if len(p.polled) > runwayWindow {
		p.polled = p.polled[1:]
	}
	first, last := p.polled[0], p.polled[len(p.polled)-1]
	p.status.RunwaySeconds = -1
	if took := last.at.Sub(first.at).Seconds(); took > 0 && last.offset > first.offset && n.Backlog.Active {
		rate := float64(last.offset-first.offset) / took
		behind := int64(0)
		if spool := p.spool.Load(); spool != nil && p.conn == nil { // what it has written since the link was lost
			behind = max(n.MasterReplOffset-spool.End(), 0)
		}
		p.status.RunwaySeconds = max(float64(n.Backlog.Size-behind), 0) / rate
	}
}

// shortRunway is how long a disconnection should be survived by the source's backlog.
const shortRunway = 60 * time.Second

// warnOfRunway tells, once an hour, that a short disconnection would lose history. The link must be locked.
func (p *PSYNC) warnOfRunway(n topology.Node) {
	left := p.status.RunwaySeconds
	p.status.RunwayShort = left >= 0 && left < shortRunway.Seconds()
	if !p.status.RunwayShort || len(p.polled) < runwayWarned || time.Since(p.warned) < time.Hour {
		return
	}
	p.warned = time.Now()
	rate := float64(n.Backlog.Size) / max(left, 0.001)
	p.cfg.Log.Warn().Float64("backlog_runway_seconds", float64(int64(left*10))/10).Int64("repl_backlog_size", n.Backlog.Size).
		Int64("wanted", int64(rate*shortRunway.Seconds())).
		Msg("the source's backlog lasts for less than a minute of its writes: a disconnection of a minute would lose history; raise repl-backlog-size")
}

// inspect asks the source about itself until it answers.
func (p *PSYNC) inspect(ctx context.Context) (topology.Node, error) {
	who := "offset of " + p.who
	defer p.cfg.Waits.Clear(who)
	var backoff keepalive.Backoff // the link's own serves the goroutine that receives
	for {
		node, err := p.ask(ctx)
		if err == nil {
			return node, nil
		}
		p.cfg.Waits.Set(who, err.Error(), "none needed yet: keyhaul tries again")
		p.cfg.Log.Warn().Err(err).Msg("asking the source for its offset failed")
		select {
		case <-time.After(backoff.Next()):
		case <-ctx.Done():
			return node, context.Cause(ctx)
		}
	}
}

func (p *PSYNC) ask(ctx context.Context) (topology.Node, error) {
	addr, err := p.address(ctx)
	if err != nil {
		return topology.Node{}, err
	}
	c, err := p.cfg.Dialer.Open(ctx, addr)
	if err != nil {
		return topology.Node{}, err
	}
	defer c.Close() //nolint:errcheck // only asked
	node, err := p.question(ctx, c)
	if err == nil && node.Loading {
		err = fmt.Errorf("%w: the source is loading", errNotNow)
	}
	return node, err
}

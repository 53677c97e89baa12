package reader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// snapshotLost says that the source stopped sending in the middle of its snapshot: only a new one helps.
type snapshotLost struct{ err error }

func (e *snapshotLost) Error() string { return "the snapshot broke off: " + e.err.Error() }
func (e *snapshotLost) Unwrap() error { return e.err }

// receive takes everything that the source sends into the spools, as fast as it comes, and connects again when the
// connection is lost.
func (p *PSYNC) receive(ctx context.Context, s *fullSync) error {
	conn := p.currentConn()
	var err error
	stop := func() bool { return false }
	if conn != nil {
		stop = context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
		if err = p.receiveSnapshot(ctx, conn, s); err != nil {
			stop()
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.As(err, new(*haul.Error)):
				return err
			}
			return &snapshotLost{err}
		}
		s.received()
		s.snapshot.Finish()
		close(s.whole)
		if s.header.mark != "" {
			p.awaiting.Store(true)
		}
		p.ack()
		err = p.receiveStream(ctx, conn, s)
	}
	for {
		stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.setConn(nil)
		if conn, err = p.resume(ctx, s, err); err != nil {
			return err
		}
		stop = context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
		err = p.receiveStream(ctx, conn, s)
	}
}

// receiveSnapshot takes the payload into the snapshot's spool. A spool at its limit stalls the source here: to close
// the connection would mean to begin again, with the same end.
func (p *PSYNC) receiveSnapshot(ctx context.Context, c *resp.Conn, s *fullSync) error {
	buf := make([]byte, 256<<10)
	held := 0 // bytes at the start of buf that may be the end mark
	for left := s.header.length; left != 0; {
		room := buf[held:]
		if left > 0 {
			room = room[:min(left, int64(len(room)))]
		}
		n, err := p.read(ctx, c, room)
		if err != nil {
			return orCause(ctx, err)
		}
		if left > 0 {
			left -= int64(n)
			err = p.keepSnapshot(ctx, s, room[:n])
		} else {
			got := buf[:held+n]
			if bytes.HasSuffix(got, []byte(s.header.mark)) {
				return p.keepSnapshot(ctx, s, got[:len(got)-markLength])
			}
			if keep := len(got) - markLength; keep > 0 {
				err = p.keepSnapshot(ctx, s, got[:keep])
				got = got[keep:]
			}
			held = copy(buf, got)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keepSnapshot puts b into the spool of the snapshot, however long that takes.
func (p *PSYNC) keepSnapshot(ctx context.Context, s *fullSync, b []byte) error {
	const poll, tell, tellAgain = 20 * time.Millisecond, time.Second, 10 * time.Second
	var full, told time.Time
	var stuck stuckness
	for len(b) > 0 {
		room, err := s.snapshot.Buffer(ctx)
		switch {
		case err == nil:
			n := copy(room, b)
			s.snapshot.Commit(n)
			b = b[n:]
			continue
		case !errors.Is(err, aof.ErrFull):
			return err
		case p.makeRoom(s):
			continue
		}
		if full.IsZero() {
			full = time.Now()
		}
		if stuck.time(p.out.Watermark) > p.stuckAfter {
			return tooLarge(p.budget)
		}
		if time.Since(full) > tell && time.Since(told) > tellAgain {
			told = time.Now()
			p.cfg.Waits.Set(spoolWait, fmt.Sprintf("the snapshot does not fit into its %d bytes: the source is stalled (%v)", p.budget.Max, err),
				"raise spool.max-bytes; reading goes on as the target takes more")
			p.cfg.Log.Error().Err(err).Int64("limit", p.budget.Max).
				Msg("the snapshot does not fit into the spool: the source is stalled until the target has taken more; raise spool.max-bytes")
		}
		select {
		case <-time.After(poll):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if !full.IsZero() {
		p.cfg.Waits.Clear(spoolWait)
	}
	return nil
}

// stuckness tells for how long a full spool has had nothing that a target could take: it holds a part of one entry.
type stuckness struct {
	since time.Time
	last  haul.Progress
}

func (s *stuckness) time(w *haul.Watermark) time.Duration {
	now := w.Progress()
	if now != s.last || !now.Oldest.IsZero() || s.since.IsZero() {
		s.since, s.last = time.Now(), now
	}
	return time.Since(s.since)
}

// stuckAfter is when a full spool that nothing leaves is given up.
const stuckAfter = 30 * time.Second

func tooLarge(b *aof.Budget) error {
	return haul.Errorf(haul.ExitFailed, "raise spool.max-bytes above the size of the largest key and transaction",
		"one entry of the source is larger than the spool (%d bytes)", b.Max)
}

// spoolWait is who waits for room in the spool.
const spoolWait = "spool"

// makeRoom gives up what the target has acknowledged, however recently, and reports whether there is room now: trim may
// have made it meanwhile.
func (p *PSYNC) makeRoom(s *fullSync) bool {
	before := p.budget.Used()
	if s.applied.Load() {
		s.stream.Trim(p.out.Watermark.Stream().Offset)
	} else {
		s.snapshot.Trim(p.out.Watermark.Progress().SnapshotBytes)
	}
	used := p.budget.Used()
	return used < before || used < p.budget.Max && p.spool.Load().DiskError() == nil
}

// read reads once, for no longer than a live source is silent.
func (p *PSYNC) read(ctx context.Context, c *resp.Conn, room []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(p.cfg.ReplyTimeout)); err != nil {
		return 0, err
	}
	if ctx.Err() != nil { // its end sets a deadline too, which the one above may have overwritten
		return 0, context.Cause(ctx)
	}
	n, err := c.Reader.Read(room)
	if n > 0 {
		return n, nil
	}
	switch {
	case errors.Is(err, io.EOF):
		err = errors.New("the source closed the connection")
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("the source has sent nothing for %v", p.cfg.ReplyTimeout)
	}
	return 0, err
}

// receiveStream takes the stream into its spool until the connection is lost or the spool is full.
func (p *PSYNC) receiveStream(ctx context.Context, c *resp.Conn, s *fullSync) error {
	for {
		room, err := s.stream.Buffer(ctx)
		if errors.Is(err, aof.ErrFull) && p.makeRoom(s) {
			continue
		}
		if err != nil {
			return err
		}
		n, err := p.read(ctx, c, room)
		if err != nil {
			return orCause(ctx, err)
		}
		p.awaiting.Store(false)
		p.useful = true
		p.backoff.Reset()
		s.stream.Commit(n)
	}
}

// resume connects again after cause, and continues the stream behind what was received.
func (p *PSYNC) resume(ctx context.Context, s *fullSync, cause error) (*resp.Conn, error) {
	switch {
	case errors.Is(cause, aof.ErrFull):
		if err := p.waitForRoom(ctx, cause); err != nil {
			return nil, err
		}
	case cause == nil: // an earlier run is continued
	case p.useful:
		p.cfg.Log.Warn().Err(cause).Msg("the connection to the source is lost")
	default: // a source that accepts and hangs up is not dialled without pause
		if err := p.retry(ctx, cause, "the connection to the source"); err != nil {
			return nil, err
		}
	}
	for {
		conn, err := p.connect(ctx, p.history(s.stream.End()))
		if err != nil {
			return nil, err
		}
		if err = p.continueAt(ctx, conn, s); err == nil {
			p.useful = false
			p.setConn(conn)
			p.mu.Lock()
			if cause != nil {
				p.status.Reconnects++
			}
			p.status.PartialSyncs++
			p.mu.Unlock()
			p.cfg.Waits.Clear(p.who)
			p.cfg.Log.Info().Int64("offset", s.stream.End()).Msg("the stream of the source continues")
			p.ack()
			return conn, nil
		}
		_ = conn.Close()
		if err := p.retry(ctx, err, "continuing the stream of the source"); err != nil {
			return nil, err
		}
	}
}

// continueAt asks for the stream behind what was received, if INFO says that the source still has it: an attempt that fails
// would cost it a fork.
func (p *PSYNC) continueAt(ctx context.Context, c *resp.Conn, s *fullSync) error {
	offset := s.stream.End()
	h, node := p.judged(offset)
	id := h.ID
	if err := h.left(node); err != nil {
		if p.chooses() { // it could when it was chosen
			return fmt.Errorf("%w: %s", errNotNow, err.Error())
		}
		return err
	}
	r, err := p.psync(ctx, c, id, offset)
	if final := (*haul.Error)(nil); errors.As(err, &final) {
		return haul.Errorf(haul.ExitFailed, final.Remedy, "%w", final.Err) // not refused: much was written before
	}
	if err != nil {
		return err
	}
	if r.full {
		return historyLost(otherHistory, offset, node)
	}
	if r.id == "" || r.id == id {
		return nil
	}
	if !p.renamed(r.id, offset, h.Highest) {
		return fmt.Errorf("%w: keys of the source were read meanwhile", errNotNow)
	}
	s.stream.SetReplID(r.id)
	p.cfg.Log.Info().Str("replication_id", r.id).Msg("the source goes on under a new replication id: it was failed over")
	return nil
}

// renamed takes the id under which the history goes on behind offset, unless the link knows of a higher offset by now
// than the one that its new source was judged by.
func (p *PSYNC) renamed(id string, offset, highest int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.highest > highest {
		return false
	}
	p.lineage.ReplID, p.status.ReplID = id, id
	p.ids = append(p.ids, idFrom{offset, id})
	return true
}

// historyLeft tells whether the node can continue history id behind offset (protocol §1). highest is the last offset
// that is known to us, on the target or in the spool: a node that was promoted with less than that is another history.
func historyLeft(n topology.Node, id string, offset, highest int64) error {
	want := offset + 1
	known := id == n.ReplID || id == n.ReplID2 && highest+1 <= n.SecondReplOffset
	switch {
	case !known:
		return historyLost(otherHistory, offset, n)
	case !n.Backlog.Active:
		return historyLost("it keeps no backlog", offset, n)
	case want < n.Backlog.First:
		return historyLost(backlogShort, offset, n)
	case highest+1 > n.Backlog.First+n.Backlog.Length:
		return historyLost("it has less of this history than was received from it: it lost writes", offset, n)
	}
	return nil
}

const (
	otherHistory = "it has another replication history now: it was restarted without its data, or is another server"
	backlogShort = "its backlog does not reach back so far"
)

func historyLost(why string, offset int64, n topology.Node) error {
	remedy := "start keyhaul again with --on-lost-history resync for a new copy over the old one, or flush for one from nothing"
	if why == backlogShort {
		remedy += fmt.Sprintf("; a repl-backlog-size above %d bytes on the source would have sufficed this time",
			max(n.MasterReplOffset-offset, 1<<20))
	}
	return haul.Errorf(haul.ExitHistoryLost, remedy,
		"the source cannot continue behind offset %d: %s; what was written there since is not on the target (replication id %s, at offset %d, backlog from %d, %d bytes)",
		offset, why, n.ReplID, n.MasterReplOffset, n.Backlog.First, n.Backlog.Length)
}

// waitForRoom closes the connection, since a stalled one would stall the source's other replicas, and waits until
// half of the spool is free.
func (p *PSYNC) waitForRoom(ctx context.Context, cause error) error {
	who := spoolWait
	p.cfg.Waits.Set(who, fmt.Sprintf("it holds %d of %d bytes: %v", p.budget.Used(), p.budget.Max, cause),
		"make the target faster, or raise spool.max-bytes; reading goes on when half of it is free")
	defer p.cfg.Waits.Clear(who)
	p.cfg.Log.Error().Err(cause).Int64("limit", p.budget.Max).
		Msg("reading from the source is stopped: the spool is full; the source's backlog must last until half of it is free")
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var stuck stuckness
	for p.budget.Used() > p.budget.Max/2 || p.spool.Load().DiskError() != nil {
		if p.spool.Load().DiskError() == nil && stuck.time(p.out.Watermark) > p.stuckAfter {
			return tooLarge(p.budget)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// snapshotError tells a snapshot that broke off from one that is wrong.
func (p *PSYNC) snapshotError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return haul.Errorf(haul.ExitFailed, "check the source with redis-check-rdb on a copy of its dump; the target holds a part of the data",
		"%w", err)
}

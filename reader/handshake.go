package reader

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// handshakeTimeout bounds each answer of the handshake; a source that is about to fork says so by newlines.
const handshakeTimeout = 30 * time.Second

// connect opens a connection that is ready for PSYNC, to a server that can continue h, if that is not nil.
func (p *PSYNC) connect(ctx context.Context, h *History) (*resp.Conn, error) {
	return topology.Connect(ctx, topology.ConnectOptions{
		Dialer: p.cfg.Dialer, Role: "source", Prepare: p.prepare, Observe: p.observe, Backoff: p.backoff,
		Find: func(ctx context.Context) ([]string, error) { return p.find(ctx, h) },
	})
}

// find returns the addresses to try.
func (p *PSYNC) find(ctx context.Context, h *History) ([]string, error) {
	if p.cfg.Find != nil {
		return p.cfg.Find(ctx, h)
	}
	return Find(ctx, p.cfg.Dialer, p.cfg.PreferReplica, h)
}

// chooses tells whether the link looks for its server among several.
func (p *PSYNC) chooses() bool { return p.cfg.Find != nil || p.cfg.Dialer.Endpoint.Several() }

// history is what the link has read so far, up to offset.
func (p *PSYNC) history(offset int64) *History {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := &History{ID: p.lineage.ReplID, Offset: offset, Highest: max(offset, p.highest)}
	for _, from := range p.ids {
		if from.id != h.ID {
			h.Earlier = append(h.Earlier, from.id)
		}
	}
	return h
}

// judged is what the link had read up to offset when its node was asked what it is, and the node. What was read since then
// (of keys, at offsets of this same history) the node cannot have told.
func (p *PSYNC) judged(offset int64) (*History, topology.Node) {
	h := p.history(offset)
	p.mu.Lock()
	defer p.mu.Unlock()
	h.Highest = max(offset, p.known)
	return h, p.node
}

// observe shows why a connection is not there.
func (p *PSYNC) observe(e topology.Event) {
	switch e.State {
	case topology.BackingOff:
		p.cfg.Waits.Set(p.who, e.Err.Error(), "start the source, or correct its address and login; keyhaul keeps trying")
		p.cfg.Log.Warn().Err(e.Err).Int("attempt", e.Attempt).Msg("the source is not reached")
	case topology.Loading:
		p.cfg.Waits.Set(p.who, "the source is loading its data", "none needed: keyhaul goes on when it has finished")
	case topology.Ready:
		p.mu.Lock()
		p.addr = e.Addr
		p.mu.Unlock()
		p.cfg.Waits.Clear(p.who)
	}
}

// prepare tells the source what this replica can do (protocol §1).
func (p *PSYNC) prepare(ctx context.Context, c *resp.Conn) error {
	p.mu.Lock()
	known := p.highest
	p.mu.Unlock()
	node, err := topology.Inspect(ctx, c)
	if err != nil {
		return err
	}
	if node.Role == "slave" && p.chooses() && !p.cfg.PreferReplica {
		return topology.ErrReplica(node) // since it was chosen
	}
	p.mu.Lock()
	p.node, p.known = node, known
	p.mu.Unlock()
	calls := [][]string{{"REPLCONF", "capa", "eof", "capa", "psync2"}}
	if node.Product == "valkey" && node.AtLeast(9, 1) {
		// the announced version chooses the format of the snapshot: 9.0.0 means RDB 80, which is the newest known here
		calls = append(calls, []string{"REPLCONF", "version", "9.0.0"})
	}
	for _, call := range calls {
		if _, err := c.Do(ctx, handshakeTimeout, call...); err != nil && !errors.As(err, new(*resp.Error)) {
			return err
		}
	}
	return nil
}

// psyncReply is the answer to PSYNC.
type psyncReply struct {
	full   bool
	id     string // of a continued stream: empty if it has not changed
	offset int64
}

// errNotNow is an answer that a later try may change; errDenied one that an operator may change meanwhile.
var (
	errNotNow = errors.New("not now")
	errDenied = errors.New("not allowed")
)

const permissionRemedy = "let the source's user run PSYNC and REPLCONF (ACL SETUSER … +psync +replconf); managed services often forbid them"

// psync asks for the stream behind offset of history id.
func (p *PSYNC) psync(ctx context.Context, c *resp.Conn, id string, offset int64) (psyncReply, error) {
	ask := offset
	if id != "?" {
		ask++ // the first byte that is wanted
	}
	line, err := p.line(ctx, c, resp.AppendCommand(nil, "PSYNC", id, strconv.FormatInt(ask, 10)))
	if err != nil {
		return psyncReply{}, fmt.Errorf("PSYNC: %w", err)
	}
	words := append(strings.Fields(line), "")
	switch {
	case line[0] == '-':
		return psyncReply{}, psyncError(resp.NewError(line[1:]))
	case words[0] == "+FULLRESYNC" && len(words) == 4 && len(words[1]) == 40:
		n, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil || n < 0 {
			break
		}
		return psyncReply{full: true, id: words[1], offset: n}, nil
	case words[0] == "+CONTINUE":
		return psyncReply{id: words[1], offset: offset}, nil
	}
	return psyncReply{}, fmt.Errorf("PSYNC: unexpected answer %.60q", line)
}

func psyncError(e *resp.Error) error {
	switch e.Code {
	case "NOMASTERLINK", "LOADING", "MASTERDOWN", "BUSY", "MISCONF":
		return fmt.Errorf("PSYNC: %w: %w", errNotNow, e)
	case "NOPERM", "NOAUTH":
		return fmt.Errorf("PSYNC: %w: %w", errDenied, e)
	}
	return haul.Errorf(haul.ExitRefused, permissionRemedy, "the source refuses PSYNC: %w", e)
}

// line writes request and reads one line, passing over the newlines that keep the connection alive.
func (p *PSYNC) line(ctx context.Context, c *resp.Conn, request []byte) (string, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for len(request) > 0 {
		if err := c.SetDeadline(time.Now().Add(p.cfg.ReplyTimeout)); err != nil {
			return "", err
		}
		n, err := c.Write(request)
		if err != nil {
			return "", orCause(ctx, err)
		}
		request = request[n:]
	}
	for {
		if err := c.SetDeadline(time.Now().Add(p.cfg.ReplyTimeout)); err != nil {
			return "", err
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		line, err := readLine(c.Reader)
		if err != nil {
			return "", orCause(ctx, err)
		}
		if line != "" {
			return line, c.SetDeadline(time.Time{})
		}
	}
}

func orCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// readLine reads up to a newline and cuts the line's end off.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

// payload is how the snapshot is framed: by its length, or by a mark behind it.
type payload struct {
	length int64 // -1: by mark
	mark   string
}

const markLength = 40

// payload waits for the header of the snapshot.
func (p *PSYNC) payload(ctx context.Context, c *resp.Conn) (payload, error) {
	line, err := p.line(ctx, c, nil)
	if err != nil {
		return payload{}, fmt.Errorf("waiting for the snapshot: %w", err)
	}
	if line[0] == '-' {
		return payload{}, fmt.Errorf("the source could not make a snapshot: %w: %w", errNotNow, resp.NewError(line[1:]))
	}
	if mark, ok := strings.CutPrefix(line, "$EOF:"); ok && len(mark) == markLength {
		return payload{length: -1, mark: mark}, nil
	}
	if n, ok := strings.CutPrefix(line, "$"); ok {
		if length, err := strconv.ParseInt(n, 10, 64); err == nil && length >= 0 {
			return payload{length: length}, nil
		}
	}
	return payload{}, fmt.Errorf("unexpected header of the snapshot: %.60q", line)
}

// retry waits before the next try after err, or returns an error that no try can mend.
func (p *PSYNC) retry(ctx context.Context, err error, what string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var final *haul.Error
	if errors.As(err, &final) {
		return err
	}
	wait := p.backoff.Next()
	remedy := "none needed yet: keyhaul tries again"
	if errors.Is(err, errDenied) {
		remedy = permissionRemedy
	}
	p.cfg.Waits.Set(p.who, err.Error(), remedy)
	p.cfg.Log.Warn().Err(err).Dur("next_try_in", wait).Msg(what + " failed")
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package writer

import (
	"context"
	"errors"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// singles writes entries of slots that are on their way between two nodes, one at a time, each on a connection of its
// own to whichever node takes it.
type singles struct {
	c     *cluster
	conns map[string]*resp.Conn
}

func (s *singles) close() {
	for _, c := range s.conns {
		_ = c.Close()
	}
}

func (s *singles) conn(ctx context.Context, addr string) (*resp.Conn, error) {
	if c := s.conns[addr]; c != nil {
		return c, nil
	}
	c, err := s.c.d.cfg.Dialer.Open(ctx, addr)
	if err != nil {
		return nil, err
	}
	if _, err := c.Do(ctx, 10*time.Second, "CLIENT", "SETNAME", s.c.d.cfg.Dialer.ClientName); err != nil && !errors.As(err, new(*resp.Error)) {
		_ = c.Close()
		return nil, err
	}
	if lease := s.c.d.cfg.Lease; lease != nil {
		if err := lease.Check(ctx, addr); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	if s.conns == nil {
		s.conns = make(map[string]*resp.Conn)
	}
	s.conns[addr] = c
	return c, nil
}

// write writes one item, following redirects, until it is acknowledged or refused for what it is.
func (s *singles) write(ctx context.Context, it item, slot uint16) error {
	d := s.c.d
	defer d.cfg.Waits.Clear(whoTarget)
	addr, asking := s.c.owner[slot].addr, false
	for hops := 0; ; {
		if err := d.leased(ctx); err != nil {
			return err
		}
		a, err := s.try(ctx, addr, asking, it)
		switch {
		case err != nil:
			if errors.As(err, new(*spoolError)) || errors.Is(err, checkpoint.ErrTaken) || errors.Is(err, checkpoint.ErrGone) {
				return err
			}
			s.hangUp(addr, a.sent)
			if d.exact() && ctx.Err() == nil {
				return ErrRewind // it is not known whether it was applied, nor whether it still will be, nor who has the slot now
			}
			addr, asking = s.c.owner[slot].addr, false
		case a.refused == nil && a.torn == nil:
			d.backoff.Reset()
			s.complete(it, addr)
			return nil
		case a.refused == nil:
			if d.torn(it, a.torn) {
				s.complete(it, addr)
			}
			return nil
		default:
			e := a.refused
			if _, to, redirected := e.Redirect(); redirected && hops < maxHops {
				addr, asking = topology.Complete(to, addr), e.Code == "ASK"
				hops++
				continue
			}
			if classify(e) == actData && d.existing(it, e) {
				s.complete(it, addr)
				return nil
			}
			if classify(e) == actData && d.cfg.OnError != OnErrorHold {
				return s.c.refuse(it, e)
			}
			d.cfg.Waits.Set(whoTarget, e.Text, remedy(e))
			addr, asking = s.c.owner[slot].addr, false
		}
		hops = 0
		select {
		case <-time.After(d.backoff.Next()):
		case err := <-d.dead:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// complete completes an item that the node at addr has taken.
func (s *singles) complete(it item, addr string) {
	l := s.c.byKey[addr]
	if l == nil { // it has no slot yet
		s.c.d.completeEverywhere(it.batch, 1)
		return
	}
	l.touch()
	l.complete(it.batch, 1)
}

// maxHops is how many redirects are followed without a pause: nodes that disagree may send one round in circles.
const maxHops = 5

// hangUp gives up a connection that is broken, on which an item may have been sent without an answer.
func (s *singles) hangUp(addr string, sent int) {
	if c := s.conns[addr]; c != nil {
		_ = c.Close()
		delete(s.conns, addr)
	}
	if sent > 0 {
		s.c.d.mu.Lock()
		s.c.d.resends++
		s.c.d.mu.Unlock()
		s.c.d.tell(setback{unacked: int64(sent)})
	}
}

// encode writes an item, with the fence of its slot where that is due.
func (s *singles) encode(o *outbox, it item) error {
	fenced := s.c.d.exact() && !it.loose() && !it.safe()
	if fenced {
		o.begin()
	}
	if err := s.c.d.enc.encode(o, it); err != nil || !fenced {
		return err
	}
	o.exec(s.c.d.fenceKey(it.slot), fenceAt(it.batch, it.entry()), nil)
	return nil
}

// answer is what a node has said to an item.
type answer struct {
	sent    int         // replies that were waited for; 0: nothing was sent
	refused *resp.Error // nothing of the item was applied
	torn    *resp.Error // it is a transaction that was applied but for the command with this error
}

// try writes the item on a connection to addr and reads what the node answers.
func (s *singles) try(ctx context.Context, addr string, asking bool, it item) (a answer, err error) {
	conn, err := s.conn(ctx, addr)
	if err != nil {
		return a, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(s.c.d.cfg.ReplyTimeout)); err != nil {
		return a, err
	}
	o := &outbox{conn: conn.Conn, push: func(ops []op) {
		for i := range ops {
			a.sent += int(ops[i].total)
		}
	}}
	o.selectDB(it.entry().DB) // before ASKING, which is for the next command only
	if asking {
		o.control(opPing, "ASKING")
	}
	if err := s.encode(o, it); err != nil {
		if !isNetwork(err) {
			err = &spoolError{err}
		}
		return a, err
	}
	o.selectDB(0) // the connection is used for any database: leave it as it was
	if err := o.flush(); err != nil {
		return a, err
	}
	for range a.sent {
		r, err := conn.ReadReply()
		if err != nil {
			return a, err
		}
		if e := r.Err(); e != nil && a.refused == nil {
			a.refused = abortCause(resp.NewError(r.Text))
		}
		for _, part := range r.Array {
			if part.Kind == resp.KindError && a.torn == nil {
				a.torn = resp.NewError(part.Text)
			}
		}
		if r.Kind == resp.KindBulk && r.Null && it.batch.Snapshot {
			s.c.d.count("existing_skipped", 1) // SET NX has answered nil
		}
	}
	return a, nil
}

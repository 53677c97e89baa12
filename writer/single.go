package writer

import (
	"context"
	"errors"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
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
	if s.conns == nil {
		s.conns = make(map[string]*resp.Conn)
	}
	s.conns[addr] = c
	return c, nil
}

// write writes one item, following redirects, until it is acknowledged or refused for what it is.
func (s *singles) write(ctx context.Context, it item, slot uint16) error {
	d := s.c.d
	addr, asking := s.c.owner[slot].addr, false
	for {
		e, err := s.try(ctx, addr, asking, it)
		switch {
		case err != nil:
			if errors.As(err, new(*spoolError)) {
				return err
			}
			if c := s.conns[addr]; c != nil {
				_ = c.Close()
				delete(s.conns, addr)
			}
			addr, asking = s.c.owner[slot].addr, false
		case e == nil:
			it.batch.Done(1)
			return nil
		default:
			_, to, redirected := e.Redirect()
			if redirected {
				addr, asking = to, e.Code == "ASK"
				continue
			}
			if classify(e) == actData && d.cfg.OnError != OnErrorHold {
				return s.c.refuse(it, e)
			}
			d.cfg.Waits.Set("target", e.Text, remedy(e))
		}
		select {
		case <-time.After(d.backoff.Next()):
			d.cfg.Waits.Clear("target")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// try writes the item on a connection to addr and returns the error that the node has answered with, nil for none.
func (s *singles) try(ctx context.Context, addr string, asking bool, it item) (*resp.Error, error) {
	conn, err := s.conn(ctx, addr)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.SetDeadline(time.Now().Add(s.c.d.cfg.ReplyTimeout)); err != nil {
		return nil, err
	}
	o := &outbox{conn: conn.Conn}
	replies := 0
	o.push = func(ops []op) {
		for i := range ops {
			replies += int(ops[i].total)
		}
	}
	if asking {
		o.control(opPing, "ASKING")
	}
	if err := s.c.d.enc.encode(o, it); err != nil {
		return nil, err
	}
	if db := it.entry().DB; db != 0 { // the connection is used for any database: leave it as it was
		o.db = db
		o.selectDB(0)
	}
	if err := o.flush(); err != nil {
		return nil, err
	}
	var refused *resp.Error
	for ; replies > 0; replies-- {
		r, err := conn.ReadReply()
		if err != nil {
			return nil, err
		}
		for _, part := range append(r.Array, r) {
			if part.Kind == resp.KindError && refused == nil {
				refused = resp.NewError(part.Text)
			}
		}
	}
	return refused, nil
}

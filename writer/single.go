package writer

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// singles writes entries of slots that are on their way between two nodes, one at a time, on connections of its own to
// whichever node takes them.
type singles struct {
	c     *cluster
	conns map[string]*single
}

type single struct {
	*resp.Conn
	used time.Time
}

func (s *singles) close() {
	for _, c := range s.conns {
		_ = c.Close()
	}
}

// conn returns a connection to a node. One that was not used for a while may have been closed by the node.
func (s *singles) conn(ctx context.Context, addr string) (*resp.Conn, error) {
	const fresh = 500 * time.Millisecond // servers close after a second or more
	if c := s.conns[addr]; c != nil {
		if time.Since(c.used) < fresh {
			c.used = time.Now()
			return c.Conn, nil
		}
		s.hangUp(addr)
	}
	d := s.c.d
	c, err := d.cfg.Dialer.Open(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := d.introduce(ctx, c, addr); err != nil {
		_ = c.Close()
		return nil, err
	}
	if s.conns == nil {
		s.conns = make(map[string]*single)
	}
	s.conns[addr] = &single{c, time.Now()}
	return c, nil
}

// introduce names a connection, and makes sure that it may write.
func (d *dispatcher) introduce(ctx context.Context, c *resp.Conn, addr string) error {
	const timeout = 10 * time.Second
	for _, call := range [][]string{{"CLIENT", "SETNAME", d.cfg.Dialer.ClientName}, {"CLIENT", "IMPORT-SOURCE", "ON"}} {
		if call[1] == "IMPORT-SOURCE" && !d.cfg.ImportSource {
			continue
		}
		if _, err := c.Do(ctx, timeout, call...); err != nil && !errors.As(err, new(*resp.Error)) {
			return err
		}
	}
	if d.cfg.Lease == nil {
		return nil
	}
	return d.cfg.Lease.Check(ctx, addr)
}

func (s *singles) hangUp(addr string) {
	if c := s.conns[addr]; c != nil {
		_ = c.Close()
		delete(s.conns, addr)
	}
}

// answer is what became of an item.
type answer struct {
	taken   bool        // it is done with
	asked   bool        // by a node to which the slot is on its way
	at      string      // the node that was tried last
	home    string      // the node that has the slot, as far as is known
	to      string      // where the last redirect has led
	strange bool        // there is no lane to home
	refused *resp.Error // why it was not taken; nil if no node was reached
}

// write tries an item at the node that is taken to have its slot, and where that sends it. A node that has slots and no
// lane is not written to: it is not known to have lost nothing. Its error ends the run.
func (s *singles) write(ctx context.Context, it item, home string) (answer, error) {
	d := s.c.d
	a := answer{home: home}
	for range maxHops {
		addr := a.home
		if a.asked {
			addr = a.to
		} else if d.laneTo(addr) == nil {
			a.strange = true
			return a, nil
		}
		a.at = addr
		x, err := s.try(ctx, addr, a.asked, it)
		if err != nil {
			return a, s.broken(addr, x.sent, err)
		}
		if x.refused == nil {
			a.taken = x.torn == nil || d.replayed(it, x.torn) || d.torn(it, x.torn)
			a.refused = x.torn
			return a, nil
		}
		a.refused = x.refused
		d.redirected(x.refused)
		_, to, redirected := x.refused.Redirect()
		if !redirected {
			break
		}
		a.to = topology.Complete(to, addr)
		if a.asked = x.refused.Code == "ASK"; !a.asked {
			a.home = a.to
		}
	}
	return a, nil
}

// broken decides on a connection that failed, on which an item may have been sent without an answer.
func (s *singles) broken(addr string, sent int, err error) error {
	d := s.c.d
	if errors.As(err, new(*spoolError)) || errors.Is(err, checkpoint.ErrTaken) || errors.Is(err, checkpoint.ErrGone) {
		return err
	}
	s.hangUp(addr)
	switch {
	case sent == 0:
	case d.exact():
		return ErrRewind // it is not known whether it was applied, nor whether it still will be, nor who has the slot now
	default:
		d.resend(1)
		d.tell(setback{unacked: 1})
	}
	return nil
}

// maxHops is how many redirects are followed without a pause: nodes that disagree may send one round in circles.
const maxHops = 3

// encode writes an item, with the fence of its slot where that is due.
func (s *singles) encode(o *outbox, it item) error {
	fenced := !it.loose() && !s.c.d.free(it)
	if fenced {
		o.begin()
	}
	if err := s.c.d.enc.encode(o, it); err != nil || !fenced {
		return err
	}
	o.exec(s.c.d.fenceKey(it.slot), fenceAt(it.batch, it.entry()), nil)
	return nil
}

// said is what a node has said to an item.
type said struct {
	sent    int         // replies that were waited for; 0: nothing was sent
	refused *resp.Error // nothing of the item was applied
	torn    *resp.Error // it is a transaction that was applied but for the command with this error
}

// try writes the item on a connection to addr and reads what the node answers.
func (s *singles) try(ctx context.Context, addr string, asking bool, it item) (a said, err error) {
	if asking && it.entry().Alone { // ASKING is for one command, and there are many: it waits until its slot has moved
		a.refused = &resp.Error{Code: "TRYAGAIN", Text: "TRYAGAIN a large value is built where its slot will stay"}
		return a, nil
	}
	conn, err := s.conn(ctx, addr)
	if err != nil {
		return a, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(past) })
	defer stop()
	x := &exchange{ctx: ctx, d: s.c.d, conn: conn, said: &a}
	if err := x.patience(); err != nil {
		return a, err
	}
	o := &outbox{
		conn: conn.Conn, push: x.push, moved: func() { _ = x.patience() }, // a write will tell
		moving: true, refused: func() bool { return a.refused != nil }, settle: x.settle,
	}
	o.selectDB(s.c.d.enc.db(it.entry().DB)) // before ASKING, which is for the next command only
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
	return a, x.settle()
}

// exchange is what is on its way of one item.
type exchange struct {
	*said
	ctx    context.Context //nolint:containedctx // of the one call that it serves
	d      *dispatcher
	conn   *resp.Conn
	flight []op
}

// past is a deadline that ends whatever a connection waits for.
var past = time.Unix(1, 0)

// patience gives the node time for the next piece.
func (x *exchange) patience() error {
	if err := x.conn.SetDeadline(time.Now().Add(x.d.cfg.ReplyTimeout)); err != nil || x.ctx.Err() == nil {
		return err
	}
	return x.conn.SetDeadline(past)
}

func (x *exchange) push(ops []op) {
	x.flight = append(x.flight, ops...)
	for i := range ops {
		x.sent += int(ops[i].total)
	}
}

// settle reads the replies to everything that was written.
func (x *exchange) settle() error {
	for i := range x.flight {
		for range x.flight[i].total {
			r, err := x.conn.ReadReply()
			if err != nil {
				return errors.Join(net.ErrClosed, err)
			}
			x.heard(&x.flight[i], r)
		}
	}
	x.flight = x.flight[:0]
	return x.patience()
}

// heard notes one reply to an op.
func (x *exchange) heard(o *op, r resp.Reply) {
	if e := r.Err(); e != nil && x.refused == nil {
		if why := abortCause(resp.NewError(r.Text)); !x.d.expired(o, why) {
			x.refused = why
		}
	}
	for _, part := range r.Array {
		if part.Kind == resp.KindError && x.torn == nil {
			if why := resp.NewError(part.Text); !x.d.expired(o, why) {
				x.torn = why
			}
		}
	}
	there := r.Kind == resp.KindBulk && r.Null && o.batch != nil && o.batch.Snapshot // is what SET NX has answered
	if there || o.kind == opBuilt && r.Kind == resp.KindInteger && r.Int == 0 {
		x.d.count("existing_skipped", 1)
	}
}

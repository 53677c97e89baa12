package verify

import "context"

// skip reads replies whose only news may be an error.
func skip(c *conn, n int) error {
	if n > 0 {
		if err := c.flush(); err != nil {
			return err
		}
	}
	for range n {
		raw, err := c.next()
		if err != nil {
			return err
		}
		if e := refused(raw); e != nil {
			return op(c, "SELECT", e)
		}
	}
	return nil
}

// at returns the connection to a node, with the database selected and, of a server that does not tell deadlines, its clock
// asked for before anything else. used has those that are part of this exchange.
func (w *wires) at(ctx context.Context, addr string, db int32, used map[*conn]bool) (*conn, error) {
	if c := w.conns[addr]; c != nil && used[c] {
		return c, nil
	}
	c, err := w.to(ctx, addr)
	if err != nil {
		return nil, err
	}
	used[c] = true
	c.selecting = c.using(db)
	if !c.whole() {
		c.add("TIME")
	}
	c.base = -1
	return c, nil
}

// deadline is the command that tells when a key expires.
func (c *conn) deadline() string {
	if c.whole() {
		return "PEXPIRETIME"
	}
	return "PTTL"
}

// readBase reads the reply to TIME where that was asked for.
func (c *conn) readBase() error {
	c.base = 0
	if c.whole() {
		return nil
	}
	r, err := c.decoded()
	c.base = milliseconds(r)
	return err
}

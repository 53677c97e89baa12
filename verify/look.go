package verify

import (
	"context"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// looker looks at keys for the first time. One goroutine uses it.
type looker struct {
	v              *Verifier
	source, target *wires
	big            []bool  // which keys of the chunk are compared in pieces
	asked          []*conn // of the target, by key of the chunk
	lacking        [][]byte
}

func (v *Verifier) looker() *looker {
	return &looker{v: v, source: v.source.wires(), target: v.target.wires()}
}

func (l *looker) close() {
	l.source.close()
	l.target.close()
}

// run looks at chunks until there are no more. A chunk that a connection was lost over is looked at again.
func (l *looker) run(ctx context.Context, chunks <-chan chunk) error {
	defer l.close()
	for {
		select {
		case c, ok := <-chunks:
			if !ok {
				return nil
			}
			err := l.v.again(ctx, l.source, l.target, func() error {
				if c.unit.side == l.v.target {
					return l.lookup(ctx, c)
				}
				return l.compare(ctx, c)
			})
			if err != nil {
				return err
			}
			c.finished()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// op names the command that a reply is of.
func op(c *conn, name string, e *resp.Error) error {
	return &topology.Error{Addr: c.addr, Op: name, Err: e}
}

// compare reads keys of one node of the source on both ends.
func (l *looker) compare(ctx context.Context, c chunk) error {
	src, err := l.source.to(ctx, c.unit.addr)
	if err != nil {
		return err
	}
	if err := l.measure(src, c); err != nil {
		return err
	}
	if err := l.ask(ctx, src, c); err != nil {
		return err
	}
	skew, err := l.bases(src)
	if err != nil {
		return err
	}
	rules := l.v.rules()
	soon := l.v.cut()
	for i, key := range c.keys {
		var suspect bool
		var err error
		switch {
		case l.big[i]:
			suspect = true
		case l.v.cfg.KeysOnly:
			suspect, err = l.pair(src, l.asked[i], "TYPE", skew, soon, &rules, sameText)
		default:
			family := (src.node.Product == "valkey") == (l.asked[i].node.Product == "valkey")
			suspect, err = l.pair(src, l.asked[i], "DUMP", skew, soon, &rules, func(s, t []byte) bool { return sameBytes(s, t, family) })
		}
		if err == nil && suspect {
			err = l.v.suspect(ctx, c.step, &item{key: haul.KeyName{DB: c.unit.db, Name: string(key)}, big: l.big[i]})
		}
		if err != nil {
			return err
		}
	}
	l.v.count.source.Add(int64(len(c.keys)))
	return nil
}

func sameText(s, t []byte) bool { return string(s) == string(t) }

// measure finds the values that are too big for DUMP. It is one cheap question for each key; of those that a server does
// not answer the size stays unknown.
func (l *looker) measure(src *conn, c chunk) error {
	l.big = append(l.big[:0], make([]bool, len(c.keys))...)
	selecting := src.using(c.unit.db)
	if l.v.cfg.KeysOnly || l.v.cfg.BigValue == 0 {
		return skip(src, selecting)
	}
	for _, key := range c.keys {
		src.measure(key)
	}
	if err := src.flush(); err != nil {
		return err
	}
	if err := skip(src, selecting); err != nil {
		return err
	}
	for i := range c.keys {
		raw, err := src.next()
		if err != nil {
			return err
		}
		l.big[i] = integer(raw) > l.v.cfg.BigValue
	}
	return nil
}

// measure asks for the memory that a key takes; of collections, one element tells about the others.
func (c *conn) measure(key []byte) {
	c.out = append(c.out, "*5\r\n$6\r\nMEMORY\r\n$5\r\nUSAGE\r\n"...)
	c.out = resp.AppendBulk(c.out, key)
	c.out = append(c.out, "$7\r\nSAMPLES\r\n$1\r\n1\r\n"...)
	c.due++
}

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

// ask sends the questions for a chunk to both ends.
func (l *looker) ask(ctx context.Context, src *conn, c chunk) error {
	l.asked = l.asked[:0]
	view, db := l.v.target.view(), l.v.cfg.DBs.Of(c.unit.db)
	name := "DUMP"
	if l.v.cfg.KeysOnly {
		name = "TYPE"
	}
	used := map[*conn]bool{}
	if !src.whole() {
		src.add("TIME")
	}
	for i, key := range c.keys {
		dst, err := l.target.at(ctx, view.owner(key), db, used)
		if err != nil {
			return err
		}
		l.asked = append(l.asked, dst)
		if l.big[i] {
			continue
		}
		src.addKey(name, key)
		src.addKey(src.deadline(), key)
		dst.addKey(name, key)
		dst.addKey(dst.deadline(), key)
	}
	if err := src.flush(); err != nil {
		return err
	}
	for dst := range used {
		if err := dst.flush(); err != nil {
			return err
		}
	}
	for dst := range used {
		if err := skip(dst, dst.selecting); err != nil {
			return err
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

// bases reads the clocks of servers that tell only how long a key lives yet. It returns that of the source.
func (l *looker) bases(src *conn) (int64, error) {
	if err := src.readBase(); err != nil {
		return 0, err
	}
	for _, dst := range l.asked {
		if dst.base >= 0 {
			continue
		}
		if err := dst.readBase(); err != nil {
			return 0, err
		}
	}
	return src.base, nil
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

// pair reads the replies for one key on both ends and tells whether it may differ.
func (l *looker) pair(src, dst *conn, name string, base, soon int64, rules *rules, same func(s, t []byte) bool) (suspect bool, err error) {
	s, err := src.next()
	if err != nil {
		return false, err
	}
	t, err := dst.next()
	if err != nil {
		return false, err
	}
	for _, x := range []struct {
		c   *conn
		raw []byte
	}{{src, s}, {dst, t}} {
		if e := refused(x.raw); e != nil {
			if !passing(e) {
				return false, op(x.c, name, e)
			}
			suspect = true
		}
	}
	var equal, gone bool
	if name == "TYPE" {
		gone = string(s) == "+none\r\n"
		equal = same(s, t)
	} else {
		sv, there := bulk(s)
		tv, other := bulk(t)
		gone = !there
		equal = there && other && same(sv, tv)
	}
	if s, err = src.next(); err != nil {
		return false, err
	}
	if t, err = dst.next(); err != nil {
		return false, err
	}
	deadline := deadlineOf(s, base)
	switch {
	case suspect: // a slot is on its way
		return true, nil
	case gone && refused(t) == nil: // whether the target has it is seen there
		return false, nil
	case deadline > 0 && deadline <= soon:
		return false, nil
	}
	return !equal || !rules.sameDeadline(deadline, deadlineOf(t, dst.base)), nil
}

// cut is the time up to which deadlines count as passed: what expires now may be gone on one end only.
func (v *Verifier) cut() int64 {
	_, s := v.source.about()
	_, t := v.target.about()
	return time.Now().Add(max(s, t, 0) + 2*time.Second).UnixMilli()
}

// lookup looks for keys of one node of the target that the source lacks.
func (l *looker) lookup(ctx context.Context, c chunk) error {
	l.lacking = append(l.lacking[:0], c.keys...)
	from := l.v.sourcesOf(c.unit.db)
	for _, db := range from {
		if err := l.missing(ctx, db); err != nil {
			return err
		}
	}
	for _, key := range l.lacking {
		if len(from) == 0 {
			break // no database of the source goes there
		}
		it := &item{key: haul.KeyName{DB: from[0], Name: string(key)}}
		if err := l.v.suspect(ctx, c.step, it); err != nil {
			return err
		}
	}
	l.v.count.target.Add(int64(len(c.keys)))
	return nil
}

// missing keeps of l.lacking what a database of the source lacks.
func (l *looker) missing(ctx context.Context, db int32) error {
	view := l.v.source.view()
	if view.topo == nil && len(l.lacking) > 0 {
		src, err := l.source.to(ctx, view.primary)
		if err != nil {
			return err
		}
		selecting := src.using(db)
		src.addKeys(l.lacking, "EXISTS")
		if err := skip(src, selecting); err != nil {
			return err
		}
		n, err := src.ask()
		if err != nil {
			return err
		}
		if int(n.Int) == len(l.lacking) {
			l.lacking = l.lacking[:0]
			return nil
		}
	}
	used := map[*conn]bool{}
	l.asked = l.asked[:0]
	for _, key := range l.lacking {
		src, err := l.source.at(ctx, view.owner(key), db, used)
		if err != nil {
			return err
		}
		src.addKey("EXISTS", key)
		l.asked = append(l.asked, src)
	}
	for src := range used {
		if err := src.flush(); err != nil {
			return err
		}
	}
	for src := range used {
		if err := skip(src, src.selecting); err != nil {
			return err
		}
		if err := src.readBase(); err != nil {
			return err
		}
	}
	left := l.lacking[:0]
	for i, key := range l.lacking {
		raw, err := l.asked[i].next()
		if err != nil {
			return err
		}
		if e := refused(raw); e != nil && !passing(e) {
			return op(l.asked[i], "EXISTS", e)
		}
		if integer(raw) == 0 {
			left = append(left, key)
		}
	}
	l.lacking = left
	return nil
}

// sourcesOf returns the databases of the source that go to one of the target.
func (v *Verifier) sourcesOf(db int32) []int32 {
	var from []int32
	for s := range int32(usualDatabases) {
		if v.cfg.DBs.Of(s) == db {
			from = append(from, s)
		}
	}
	for _, s := range v.sourceDBs {
		if s >= usualDatabases && v.cfg.DBs.Of(s) == db {
			from = append(from, s)
		}
	}
	return from
}

// usualDatabases is how many a server has by default. Others of the source are looked at only if they hold keys.
const usualDatabases = 16

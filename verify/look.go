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
	looks          []look  // by key of the chunk
	arena          []byte  // what the source has told
	asked          []*conn // of the target, by key of the chunk
	lacking        [][]byte
}

// look is what the source has told of a key.
type look struct {
	state    lookState
	off, end int   // of its value in the arena
	deadline int64 // 0 for none
}

// lookState says what is to be done with a key.
type lookState uint8

const (
	lookDone    lookState = iota // it is gone, or about to expire
	lookRead                     // its value is in the arena
	lookMeasure                  // it is no short string: how big it is has to be asked
	lookDump                     // it is compared by DUMP
	lookSuspect                  // it is looked at again
	lookBig                      // it is compared in pieces
)

// shortString is how much of a string is read at once. A longer one is measured like other values.
const shortString = 16 << 10

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

// compare reads keys of one node of the source on both ends. Strings are asked for by GETRANGE, which other types refuse:
// that costs half of DUMP. Others are measured first, so that no server has to put a huge value together.
func (l *looker) compare(ctx context.Context, c chunk) error {
	src, err := l.source.to(ctx, c.unit.where())
	if err != nil {
		return err
	}
	if err := l.readSource(src, c); err != nil {
		return err
	}
	if err := l.measure(src, c); err != nil {
		return err
	}
	if err := l.compareRead(ctx, c); err != nil {
		return err
	}
	if err := l.readSizes(src); err != nil {
		return err
	}
	if err := l.compareDumps(ctx, src, c); err != nil {
		return err
	}
	for i, key := range c.keys {
		state := l.looks[i].state
		if state != lookSuspect && state != lookBig {
			continue
		}
		it := &item{key: haul.KeyName{DB: c.unit.db, Name: string(key)}, big: state == lookBig}
		if err := l.v.suspect(ctx, c.step, it); err != nil {
			return err
		}
	}
	l.v.count.source.Add(int64(len(c.keys)))
	return nil
}

// question asks for what is read of every key at first.
func (l *looker) question(c *conn, key []byte) {
	if l.v.cfg.KeysOnly {
		c.addKey("TYPE", key)
	} else {
		c.out = append(c.out, "*4\r\n$8\r\nGETRANGE\r\n"...)
		c.out = resp.AppendBulk(c.out, key)
		c.out = append(c.out, "$1\r\n0\r\n$5\r\n16384\r\n"...)
		c.due++
	}
	c.addKey(c.deadline(), key)
}

// readSource reads what the source has of each key.
func (l *looker) readSource(src *conn, c chunk) error {
	selecting := src.using(c.unit.db)
	if !src.whole() {
		src.add("TIME")
	}
	for _, key := range c.keys {
		l.question(src, key)
	}
	if err := src.flush(); err != nil {
		return err
	}
	if err := skip(src, selecting); err != nil {
		return err
	}
	if err := src.readBase(); err != nil {
		return err
	}
	l.looks, l.arena = l.looks[:0], l.arena[:0]
	soon := l.v.cut()
	for range c.keys {
		x, err := l.readLook(src, soon)
		if err != nil {
			return err
		}
		l.looks = append(l.looks, x)
	}
	return nil
}

func (l *looker) readLook(src *conn, soon int64) (x look, err error) {
	raw, err := src.next()
	if err != nil {
		return x, err
	}
	x.state, x.off = lookRead, len(l.arena)
	if e := refused(raw); e != nil {
		switch {
		case e.Code == "WRONGTYPE":
			x.state = lookMeasure
		case passing(e):
			x.state = lookSuspect
		default:
			return x, op(src, "GETRANGE", e)
		}
	} else if text, _ := bulk(raw); len(text) > shortString {
		x.state = lookMeasure
	} else {
		l.arena = append(l.arena, raw...)
	}
	x.end = len(l.arena)
	if raw, err = src.next(); err != nil {
		return x, err
	}
	if n := integer(raw); x.state != lookSuspect && n == -2 {
		x.state = lookDone // whether the target has it is seen when that is read
	} else if x.deadline = deadlineOf(raw, src.base); x.deadline > 0 && x.deadline <= soon {
		x.state = lookDone
	}
	return x, nil
}

// measure asks for the memory that values take.
func (l *looker) measure(src *conn, c chunk) error {
	for i, key := range c.keys {
		if l.looks[i].state == lookMeasure {
			src.measure(key)
		}
	}
	return src.flush()
}

// measure asks for the memory that a key takes; of collections, one element tells about the others.
func (c *conn) measure(key []byte) {
	c.out = append(c.out, "*5\r\n$6\r\nMEMORY\r\n$5\r\nUSAGE\r\n"...)
	c.out = resp.AppendBulk(c.out, key)
	c.out = append(c.out, "$7\r\nSAMPLES\r\n$1\r\n1\r\n"...)
	c.due++
}

// readSizes tells big values from others. Where a server does not tell, the size stays unknown.
func (l *looker) readSizes(src *conn) error {
	for i := range l.looks {
		if l.looks[i].state != lookMeasure {
			continue
		}
		raw, err := src.next()
		if err != nil {
			return err
		}
		l.looks[i].state = lookDump
		if l.v.cfg.BigValue > 0 && integer(raw) > l.v.cfg.BigValue {
			l.looks[i].state = lookBig
		}
	}
	return nil
}

// compareRead compares what was read of the source with what the target has.
func (l *looker) compareRead(ctx context.Context, c chunk) error {
	used, err := l.ask(ctx, c, lookRead, func(dst *conn, key []byte) { l.question(dst, key) })
	if err != nil {
		return err
	}
	rules := l.v.rules()
	for i := range c.keys {
		x := &l.looks[i]
		if x.state != lookRead {
			continue
		}
		dst := l.asked[i]
		if err := dst.baseOnce(used); err != nil {
			return err
		}
		raw, err := dst.next()
		if err != nil {
			return err
		}
		if e := refused(raw); e != nil && e.Code != "WRONGTYPE" && !passing(e) {
			return op(dst, "GETRANGE", e)
		}
		if x.state = lookDone; string(raw) != string(l.arena[x.off:x.end]) {
			x.state = lookSuspect
		}
		if raw, err = dst.next(); err != nil {
			return err
		}
		if integer(raw) == -2 || !rules.sameDeadline(x.deadline, deadlineOf(raw, dst.base)) {
			x.state = lookSuspect
		}
	}
	return nil
}

// compareDumps compares values by their payloads.
func (l *looker) compareDumps(ctx context.Context, src *conn, c chunk) error {
	if !l.any(lookDump) {
		return nil
	}
	for i, key := range c.keys {
		if l.looks[i].state == lookDump {
			src.addKey("DUMP", key)
		}
	}
	if err := src.flush(); err != nil {
		return err
	}
	used, err := l.ask(ctx, c, lookDump, func(dst *conn, key []byte) {
		dst.addKey("DUMP", key)
		dst.addKey(dst.deadline(), key)
	})
	if err != nil {
		return err
	}
	rules := l.v.rules()
	for i := range c.keys {
		x := &l.looks[i]
		if x.state != lookDump {
			continue
		}
		if err := l.asked[i].baseOnce(used); err != nil {
			return err
		}
		if x.state, err = l.pair(src, l.asked[i], x.deadline, &rules); err != nil {
			return err
		}
	}
	return nil
}

func (l *looker) any(state lookState) bool {
	for i := range l.looks {
		if l.looks[i].state == state {
			return true
		}
	}
	return false
}

// pair reads the payloads of one key.
func (l *looker) pair(src, dst *conn, deadline int64, rules *rules) (lookState, error) {
	s, err := src.next()
	if err != nil {
		return 0, err
	}
	t, err := dst.next()
	if err != nil {
		return 0, err
	}
	if e := refused(s); e != nil && !passing(e) {
		return 0, op(src, "DUMP", e)
	}
	if e := refused(t); e != nil && !passing(e) {
		return 0, op(dst, "DUMP", e)
	}
	sv, there := bulk(s)
	tv, other := bulk(t)
	gone := !there && refused(s) == nil
	equal := there && other && sameBytes(sv, tv, (src.node.Product == "valkey") == (dst.node.Product == "valkey"))
	if t, err = dst.next(); err != nil {
		return 0, err
	}
	if gone || equal && rules.sameDeadline(deadline, deadlineOf(t, dst.base)) {
		return lookDone, nil
	}
	return lookSuspect, nil
}

// ask sends a question about each key in a state to the node of the target that has it.
func (l *looker) ask(ctx context.Context, c chunk, state lookState, question func(dst *conn, key []byte)) (map[*conn]bool, error) {
	l.asked = l.asked[:0]
	view, db := l.v.target.view(), l.v.cfg.DBs.Of(c.unit.db)
	used := map[*conn]bool{}
	for i, key := range c.keys {
		if l.looks[i].state != state {
			l.asked = append(l.asked, nil)
			continue
		}
		dst, err := l.target.at(ctx, view.owner(key), db, used)
		if err != nil {
			return nil, err
		}
		l.asked = append(l.asked, dst)
		question(dst, key)
	}
	for dst := range used {
		if err := dst.flush(); err != nil {
			return nil, err
		}
	}
	for dst := range used {
		if err := skip(dst, dst.selecting); err != nil {
			return nil, err
		}
	}
	return used, nil
}

// baseOnce reads the reply to TIME that comes first of an exchange.
func (c *conn) baseOnce(used map[*conn]bool) error {
	if !used[c] {
		return nil
	}
	used[c] = false
	return c.readBase()
}

// cut is the time up to which deadlines count as passed: what expires now may be gone on one end only.
func (v *Verifier) cut() int64 {
	_, s := v.source.about()
	_, t := v.target.about()
	return time.Now().Add(max(s, t, 0) + 2*time.Second).UnixMilli()
}

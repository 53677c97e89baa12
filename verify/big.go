package verify

import (
	"context"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

const (
	pieceBytes   = 256 << 10 // of a big value, read at once
	pieceMost    = 512       // elements
	mostElements = 1000      // that are remembered to be looked at again
)

// big is a comparison of one value in pieces.
type big struct {
	j        *judge
	it       *item
	src, dst *conn
	hasher   *hasher
	page     int // elements that are read at once
	rules    rules
	cut      int64
	differ   Kind // what was found
	groups   sum  // of a stream of the source, when the watching began
	changed  bool // they have changed since, of which no watching tells
}

// elements are those of a hash, set or sorted set that differed when all of it was read.
type elements struct {
	names []string
	many  bool // and more
}

// bigKind says how a type is read.
type bigKind struct {
	length string // the command that tells how long it is
	read   func(b *big) error
	again  func(b *big, names []string) error // only these elements; nil where all of it is read again
}

// bigKinds are the types that can be read in pieces.
func bigKinds(kind string) (bigKind, bool) {
	k, ok := map[string]bigKind{
		"string": {"STRLEN", (*big).text, nil},
		"list":   {"LLEN", (*big).list, nil},
		"stream": {"XLEN", (*big).stream, nil},
		"hash":   {"HLEN", (*big).hash, (*big).fields},
		"set":    {"SCARD", (*big).set, (*big).members},
		"zset":   {"ZCARD", (*big).zset, (*big).scores},
	}[kind]
	return k, ok
}

// pieces compares a big value. At first sight that is done as it is: elements are the same, or are looked at again. Then
// the key is watched, as in watched, while those elements, or all of it, are read.
func (j *judge) pieces(ctx context.Context, addr string, it *item) ([]verdict, error) {
	all := make([]verdict, 1)
	v, items := &all[0], []*item{it}
	src, err := j.source.to(ctx, addr)
	if err != nil {
		return nil, err
	}
	var info topology.Node
	b := &big{j: j, it: it, src: src, hasher: newHasher(j.v.seeds)}
	size, err := j.watchBig(src, it, v)
	if err == nil && v.s.d.kind == "stream" {
		b.groups, err = b.groupsOf(src)
	}
	if err == nil {
		info, err = src.replication()
	}
	if err != nil {
		return nil, err
	}
	first := it.tries == 0
	if first {
		it.elements = nil // of a look that was broken off
	}
	at, err := j.positionsOf(ctx, items, info, v)
	if err == nil && !first && !v.reached {
		if err = j.wait(ctx, items, info, all); err == nil {
			at, err = j.positionsOf(ctx, items, info, v)
		}
	}
	if err == nil && !first && !j.v.track.known() {
		v.reached = true
		err = sleep(ctx, j.v.cfg.Settle)
	}
	if err != nil {
		return nil, err
	}
	b.dst, b.rules, b.cut = at.conns[0], j.v.rules(), j.v.cut()
	if err := b.compare(v, size); err != nil {
		return nil, err
	}
	changed, err := src.exec()
	if err != nil {
		return nil, err
	}
	v.changed = v.changed || changed || b.changed
	switch {
	case first && v.kind == "":
		v.reached, v.changed = true, false // as any other key that is the same at first sight
	case first:
		v.changed = true
	}
	return all, nil
}

// watchBig watches the key and reads its type, deadline and size.
func (j *judge) watchBig(src *conn, it *item, v *verdict) (size int64, err error) {
	selecting := src.using(it.key.DB)
	src.add("WATCH", it.key.Name)
	src.measure([]byte(it.key.Name))
	if err := skip(src, selecting+1); err != nil {
		return 0, err
	}
	raw, err := src.next()
	if err != nil {
		return 0, err
	}
	size = integer(raw)
	return size, j.outline(src, it.key.Name, &v.s)
}

// outline reads type and deadline.
func (j *judge) outline(c *conn, key string, f *fact) error {
	if !c.whole() {
		c.add("TIME")
	}
	c.add("TYPE", key)
	c.add(c.deadline(), key)
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.readBase(); err != nil {
		return err
	}
	r, err := c.decoded()
	if err != nil {
		return err
	}
	f.d.kind, f.there = r.Text, r.Text != "none"
	raw, err := c.next()
	f.deadline = deadlineOf(raw, c.base)
	return err
}

// positionsOf asks how far the haul is with the key, and then for its type and deadline on the target.
func (j *judge) positionsOf(ctx context.Context, items []*item, info topology.Node, v *verdict) (*positions, error) {
	at, err := j.askPositions(ctx, items)
	if err == nil {
		err = at.read(info)
	}
	if err != nil {
		return nil, err
	}
	v.reached = at.offsets[0] >= info.MasterReplOffset
	c := at.conns[0]
	if err := skip(c, c.using(j.v.cfg.DBs.Of(items[0].key.DB))); err != nil {
		return nil, err
	}
	return at, j.outline(c, items[0].key.Name, &v.t)
}

// compare finds out in what the two values differ.
func (b *big) compare(v *verdict, size int64) error {
	kind, ok := bigKinds(v.s.d.kind)
	v.kind = b.rules.differ(&v.s, &v.t)
	switch {
	case v.s.deadline > 0 && v.s.deadline <= b.cut:
		v.kind = ""
		return nil
	case !v.s.there || !v.t.there || v.kind == Type:
		return nil
	case !ok: // only DUMP reads it
		b.it.big, b.it.whole, v.changed = false, true, true
		return nil
	}
	s, t, err := b.both(kind.length, b.it.key.Name)
	if err != nil {
		return err
	}
	n := integer(s)
	if n != integer(t) {
		b.differ = Value
	}
	b.page = int(max(min(pieceBytes/max(size/max(n, 1), 1), pieceMost), 1))
	if kind.again == nil {
		err = kind.read(b)
	} else if b.it.elements == nil {
		b.it.elements = &elements{}
		err = kind.read(b)
	} else {
		for names := b.it.elements.names; len(names) > 0 && err == nil; {
			some := min(len(names), b.page)
			err = kind.again(b, names[:some])
			names = names[some:]
		}
	}
	if b.differ != "" {
		v.kind = b.differ
	}
	return err
}

// both sends the same question to both ends. The replies are good until the next ones.
func (b *big) both(args ...string) (s, t []byte, err error) {
	b.src.add(args...)
	b.dst.add(args...)
	if err := b.src.flush(); err != nil {
		return nil, nil, err
	}
	if err := b.dst.flush(); err != nil {
		return nil, nil, err
	}
	if s, err = b.src.next(); err != nil {
		return nil, nil, err
	}
	if e := refused(s); e != nil {
		return nil, nil, op(b.src, args[0], e)
	}
	if t, err = b.dst.next(); err != nil {
		return nil, nil, err
	}
	if e := refused(t); e != nil {
		return nil, nil, op(b.dst, args[0], e)
	}
	return s, t, nil
}

// suspect has an element looked at again; when that is being done, it differs.
func (b *big) suspect(name []byte, kind Kind) {
	if b.differ == "" || b.differ == FieldTTL {
		b.differ = kind
	}
	e := b.it.elements
	if b.it.tries > 0 {
		return
	}
	if e.many = e.many || len(e.names) == mostElements; !e.many {
		e.names = append(e.names, string(name))
	}
}

// array walks the elements of a reply.
type array struct {
	left int
	b    []byte
}

func arrayOf(raw []byte) (array, error) {
	n, at, err := resp.ArrayHeader(raw)
	if err != nil {
		return array{}, err
	}
	return array{n, raw[at:]}, nil
}

// next returns the next element. There is one.
func (a *array) next() []byte {
	n, err := resp.Scan(a.b)
	if err != nil || a.left == 0 {
		return []byte("$-1\r\n")
	}
	raw := a.b[:n]
	a.b = a.b[n:]
	a.left--
	return raw
}

package verify

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

const (
	quickLooks = 3                     // at which the haul is not waited for: a key that is written all the time has its chance there
	quickWait  = 50 * time.Millisecond // but for this
	votes      = 3                     // looks in a row that make a key equal although the haul was not known to have come so far
	firstPause = 10 * time.Millisecond // before a key is looked at again
	longPause  = time.Second
)

// judge looks at suspects. One goroutine uses it.
type judge struct {
	v              *Verifier
	source, target *wires
	s, t           *digester
}

func (v *Verifier) judge() *judge {
	return &judge{v: v, source: v.source.wires(), target: v.target.wires(), s: newDigester(v.seeds), t: newDigester(v.seeds)}
}

// verdict is what a look at a key has shown.
type verdict struct {
	s, t    fact
	kind    Kind // in what they differ
	changed bool // while it was looked at
	reached bool // the haul had come as far as the source was
	stands  bool // the haul does not move on
}

// run judges until ctx ends.
func (j *judge) run(ctx context.Context) error {
	defer j.source.close()
	defer j.target.close()
	for {
		group, err := j.v.queue.take(ctx)
		if err != nil {
			return err
		}
		view := j.v.source.view()
		parts := map[string][]*item{}
		for _, it := range group {
			addr := view.owner([]byte(it.key.Name))
			parts[addr] = append(parts[addr], it)
		}
		for addr, part := range parts {
			if err := j.look(ctx, addr, part); err != nil {
				return err
			}
		}
	}
}

// look looks at items of one node of the source, and decides on each.
func (j *judge) look(ctx context.Context, addr string, items []*item) error {
	var all []verdict
	first := true
	err := j.v.again(ctx, j.source, j.target, func() (err error) {
		if !first { // the nodes may be others now
			addr = j.v.source.view().owner([]byte(items[0].key.Name))
		}
		first = false
		if err := j.v.track.read(ctx); err != nil {
			return err
		}
		if items[0].big {
			all, err = j.pieces(ctx, addr, items[0])
		} else {
			all, err = j.watched(ctx, addr, items)
		}
		return err
	})
	if err != nil {
		return err
	}
	moved := false
	for i, it := range items {
		if err := j.decide(it, &all[i]); err != nil {
			return err
		}
		moved = moved || all[i].s.failed != nil || all[i].t.failed != nil
	}
	if moved { // a slot is on its way
		_ = j.v.source.refresh(ctx)
		_ = j.v.target.refresh(ctx)
	}
	return nil
}

// decide settles an item, or has it looked at again.
func (j *judge) decide(it *item, v *verdict) error {
	it.tries++
	switch {
	case v.s.failed != nil || v.t.failed != nil:
		it.votes = 0
	case v.changed:
		it.changes++
		it.votes = 0
	case v.kind == "":
		if it.votes++; v.reached || it.votes >= votes {
			j.v.queue.settle(it)
			return nil
		}
	case v.reached:
		return j.v.differs(it, v.kind, v)
	case v.stands && it.tries > quickLooks:
		return j.v.differs(it, Behind, v)
	default:
		it.votes = 0
	}
	if it.tries >= mostTries {
		return j.v.differs(it, Unsettled, v)
	}
	pause := min(firstPause<<min(it.tries, 10), longPause)
	j.v.queue.back(it, pause/2+time.Duration(rand.Int64N(int64(pause))))
	return nil
}

// watched reads items on the source, then on the target, and then asks the source whether they are still the same: from
// the first to the last no client may have changed them, and what the target had is no older than that.
func (j *judge) watched(ctx context.Context, addr string, items []*item) ([]verdict, error) {
	all := make([]verdict, len(items))
	src, err := j.source.to(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := j.watch(src, items); err != nil {
		return nil, err
	}
	if err := j.readSource(src, items, all); err != nil {
		return nil, err
	}
	info, err := src.replication()
	if err != nil {
		return nil, err
	}
	if err := j.follow(ctx, items, info, all); err != nil {
		return nil, err
	}
	if err := j.readGroups(src, items, all); err != nil {
		return nil, err
	}
	changed, err := src.exec()
	if err != nil {
		return nil, err
	}
	rules, soon := j.v.rules(), j.v.cut()
	for i := range all {
		if all[i].changed {
			continue // its groups
		}
		v := &all[i]
		if v.changed = changed; items[i].big { // it has grown, or was not measured before: it begins anew
			v.changed, items[i].tries = true, -1
		}
		if v.s.deadline == 0 || v.s.deadline > soon { // else it may be gone on one end already
			v.kind = rules.differ(&v.s, &v.t)
		}
		if d := v.t.deadline; v.kind == Extra && d > 0 && d-rules.grace <= soon {
			v.kind = "" // it has expired, and its deletion is on its way or held back
		}
	}
	return all, nil
}

// watch has the source tell later whether it has changed a key, and finds those that are too big to be read at once.
func (j *judge) watch(src *conn, items []*item) error {
	selects := make([]int, len(items))
	for i, it := range items {
		selects[i] = src.using(it.key.DB)
		src.add("WATCH", it.key.Name)
		src.measure([]byte(it.key.Name))
	}
	if err := src.flush(); err != nil {
		return err
	}
	for i, it := range items {
		if err := skip(src, selects[i]); err != nil {
			return err
		}
		raw, err := src.next()
		if err != nil {
			return err
		}
		if e := refused(raw); e != nil && !passing(e) {
			return op(src, "WATCH", e)
		}
		if raw, err = src.next(); err != nil {
			return err
		}
		it.big = !it.whole && !j.v.cfg.KeysOnly && j.v.cfg.BigValue > 0 && integer(raw) > j.v.cfg.BigValue
	}
	return nil
}

// readSource reads facts of the source.
func (j *judge) readSource(src *conn, items []*item, all []verdict) error {
	if !src.whole() {
		src.add("TIME")
	}
	selects := make([]int, len(items))
	for i, it := range items {
		selects[i] = src.using(it.key.DB)
		if !it.big {
			j.askFact(src, it.key.Name)
		}
	}
	if err := src.flush(); err != nil {
		return err
	}
	if err := src.readBase(); err != nil {
		return err
	}
	j.s.cut, j.s.held = j.v.cut(), 0
	to := j.v.target.release()
	j.s.all, j.s.latest = !to.FieldTTLs(), 0
	if !to.Valkey {
		j.s.latest = rdb.LastFieldTTL
	}
	for i, it := range items {
		err := skip(src, selects[i])
		if err == nil && !it.big {
			all[i].s, err = j.readFact(src, j.s)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readGroups reads streams once more whose groups differ: XREADGROUP, XACK and XCLAIM change a key without any word to those
// who watch it.
func (j *judge) readGroups(src *conn, items []*item, all []verdict) error {
	for i, it := range items {
		v := &all[i]
		if v.s.d.kind != "stream" || v.s.d.groups == v.t.d.groups {
			continue
		}
		selecting := src.using(it.key.DB)
		j.askFact(src, it.key.Name)
		if err := skip(src, selecting); err != nil {
			return err
		}
		if err := src.flush(); err != nil {
			return err
		}
		again, err := j.readFact(src, j.s)
		if err != nil {
			return err
		}
		v.changed = again.d.groups != v.s.d.groups
	}
	return nil
}

func (j *judge) askFact(c *conn, key string) {
	if j.v.cfg.KeysOnly {
		c.add("TYPE", key)
	} else {
		c.add("DUMP", key)
	}
	c.add(c.deadline(), key)
}

// readFact reads the replies to askFact.
func (j *judge) readFact(c *conn, g *digester) (f fact, err error) {
	raw, err := c.next()
	if err != nil {
		return f, err
	}
	if f.failed = refused(raw); f.failed != nil && !passing(f.failed) {
		return f, op(c, "DUMP", f.failed)
	}
	switch {
	case f.failed != nil:
	case j.v.cfg.KeysOnly:
		f.d.kind = string(raw[1 : len(raw)-2])
		f.there = f.d.kind != "none"
	default:
		var payload []byte
		if payload, f.there = bulk(raw); f.there {
			valkey := c.node.Product == "valkey"
			f.form, _ = j.v.target.release().Form(payload[0], valkey, false)
			if f.d, err = g.payload(payload, valkey); err != nil {
				return f, c.fail(err)
			}
		}
	}
	if raw, err = c.next(); err != nil {
		return f, err
	}
	f.deadline = deadlineOf(raw, c.base)
	return f, nil
}

// replication asks the source how far its stream is.
func (c *conn) replication() (topology.Node, error) {
	c.add("INFO", "replication")
	r, err := c.ask()
	return topology.ParseInfo(r.Text), err
}

// exec ends the watching and tells whether a watched key has changed.
func (c *conn) exec() (changed bool, err error) {
	c.add("MULTI")
	c.add("EXEC")
	if err := c.flush(); err != nil {
		return false, err
	}
	if _, err := c.decoded(); err != nil {
		return false, err
	}
	r, err := c.decoded()
	return r.Null, err
}

// keyOf is a key as an item of its own, for a second pass.
func keyOf(d Difference) *item { return &item{key: haul.KeyName{DB: d.Key.DB, Name: d.Key.Name}} }

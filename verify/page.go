package verify

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

const (
	pageKeys  = 512 // asked for by one SCAN
	chunkKeys = 128 // in one pipeline: a server carries out what it has read of a client in one go
)

// unit is one database of one node, from which keys are read.
type unit struct {
	side   *side
	home   uint16            // a slot of the node, in a cluster
	db     int32             // of that side
	slots  *topology.SlotSet // nil for all
	saved  *savedUnit        // how far it is, for a later run
	cursor string            // that is asked for next; empty at the end
	mu     sync.Mutex        // guards the following
	addr   string            // of the node
	issued []*step           // that are not done, in order
}

// where returns the address of the unit's node: of the one that has taken its place, if it is no primary any more.
func (u *unit) where() string {
	view := u.side.view()
	if view.topo == nil {
		return view.primary
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if !slices.ContainsFunc(view.topo.Shards, func(s topology.Shard) bool { return s.Primary == u.addr }) {
		if addr, ok := view.topo.Owner(u.home); ok {
			u.addr = addr
		}
	}
	return u.addr
}

// step is the way from one cursor of SCAN to the next.
type step struct {
	unit *unit
	next string       // the cursor behind it
	left atomic.Int32 // what has to be looked at yet
}

// done notes that something was looked at. When all steps up to here are done, a later run may begin behind them.
func (s *step) done() {
	if s == nil || s.left.Add(-1) > 0 {
		return
	}
	u := s.unit
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.issued) > 0 && u.issued[0].left.Load() <= 0 {
		u.saved.at(u.issued[0].next)
		u.issued = u.issued[1:]
	}
}

// page is what one SCAN has returned.
type page struct {
	*step
	names []byte
	keys  [][]byte // in names
	parts atomic.Int32
}

// chunk is a part of a page, which one worker looks at.
type chunk struct {
	*page
	keys [][]byte
}

// pages are reused.
var pages = sync.Pool{New: func() any { return &page{} }}

// finished gives the chunk back.
func (c chunk) finished() {
	s := c.step
	if c.parts.Add(-1) == 0 {
		c.page.step = nil
		pages.Put(c.page)
	}
	s.done()
}

// scan hands out the unit's keys, from its cursor on.
func (u *unit) scan(ctx context.Context, v *Verifier, w *wires, chunks chan<- chunk) error {
	for u.cursor != "" {
		c, err := w.to(ctx, u.where())
		if err != nil {
			return err
		}
		if u.cursor = u.saved.continues(c.node.RunID, u.cursor); u.cursor == "0" {
			u.mu.Lock()
			u.issued = nil
			u.mu.Unlock()
			u.saved.begin(c.node.RunID)
		}
		p, err := u.page(c, u.cursor, v)
		if err != nil {
			return err
		}
		if p.next == "0" {
			p.next = ""
		}
		u.cursor = p.next
		if err := u.hand(ctx, v, p, chunks); err != nil {
			return err
		}
	}
	return nil
}

// page asks for the keys at a cursor.
func (u *unit) page(c *conn, cursor string, v *Verifier) (*page, error) {
	if c.using(u.db) > 0 {
		if _, err := c.ask(); err != nil {
			return nil, err
		}
	}
	c.add("SCAN", cursor, "COUNT", strconv.Itoa(pageKeys))
	if err := c.flush(); err != nil {
		return nil, err
	}
	raw, err := c.next()
	if err != nil {
		return nil, err
	}
	if e := refused(raw); e != nil {
		return nil, &topology.Error{Addr: c.addr, Op: "SCAN", Err: e}
	}
	p, _ := pages.Get().(*page)
	p.step = &step{unit: u}
	if err := p.parse(raw); err != nil {
		return nil, c.fail(err)
	}
	p.keys = p.keys[:p.wanted(v)]
	return p, nil
}

// parse reads [cursor, [key...]].
func (p *page) parse(raw []byte) error {
	p.names, p.keys = append(p.names[:0], raw...), p.keys[:0]
	b := p.names
	n, at, err := resp.ArrayHeader(b)
	if err != nil || n != 2 {
		return &resp.ProtocolError{Reason: "SCAN has not returned cursor and keys"}
	}
	b = b[at:]
	size, err := resp.Scan(b)
	if err != nil {
		return err
	}
	cursor, _ := bulk(b[:size])
	p.next = string(cursor)
	b = b[size:]
	if n, at, err = resp.ArrayHeader(b); err != nil {
		return err
	}
	b = b[at:]
	for range n {
		if size, err = resp.Scan(b); err != nil {
			return err
		}
		key, _ := bulk(b[:size])
		p.keys = append(p.keys, key)
		b = b[size:]
	}
	return nil
}

// wanted moves the keys that are to be looked at to the front and returns how many they are.
func (p *page) wanted(v *Verifier) int {
	n := 0
	for _, key := range p.keys {
		if checkpoint.Reserved(key) || !v.sampled(key) {
			continue
		}
		if p.unit.slots != nil && !p.unit.slots.Has(command.Slot(key)) {
			continue
		}
		p.keys[n] = key
		n++
	}
	return n
}

// sampled tells whether a key is of the sample.
func (v *Verifier) sampled(key []byte) bool {
	const golden = 0x9e3779b97f4a7c15 // spreads the few bits in which short keys differ
	return v.cfg.Sample >= 1 || float64(rdb.CRC64(v.state.Salt, key)*golden>>11)/(1<<53) < v.cfg.Sample
}

// hand gives a page to the workers.
func (u *unit) hand(ctx context.Context, v *Verifier, p *page, chunks chan<- chunk) error {
	parts := (len(p.keys) + chunkKeys - 1) / chunkKeys
	p.left.Store(int32(max(parts, 1)))
	p.parts.Store(int32(max(parts, 1)))
	u.mu.Lock()
	u.issued = append(u.issued, p.step)
	u.mu.Unlock()
	if parts == 0 {
		chunk{page: p}.finished()
		return nil
	}
	for keys := range slices.Chunk(p.keys, chunkKeys) {
		if err := v.pace.wait(ctx, len(keys)); err != nil {
			return err
		}
		select {
		case chunks <- chunk{p, keys}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

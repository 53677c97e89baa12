package writer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
)

// cluster is the router of a target cluster: one lane a primary, entries by the slots of their keys.
type cluster struct {
	d     *dispatcher
	owner [command.Slots]*lane
	shut  [command.Slots]bool // entries of the stream are kept in frozen
	byKey map[string]*lane    // by address
	gone  map[string]*lane    // by address: of nodes that have no slots any more
	nodes []string            // every address that a barrier was sent to; partLane counts them

	rereads rereads
	asked   asked

	frozen    *frozenSlots
	refreshed time.Time // when the slots were asked for last, beside recoveries
	surveying bool      // that is under way
	doubted   bool      // they are to be asked for
}

// newCluster makes a cluster the router of d.
func newCluster(d *dispatcher) *cluster {
	c := &cluster{
		d: d, byKey: make(map[string]*lane), gone: make(map[string]*lane),
		rereads: rereads{table: newAheadTable(d.cfg.Ahead), fewer: make(chan struct{}, 1)},
	}
	c.frozen = newFrozenSlots(c)
	d.route, d.frozen = c, c.frozen
	return c
}

func (c *cluster) mode() string { return "cluster" }

// open finds the primaries and connects to each, until all slots are covered by lanes that are up.
func (c *cluster) open(ctx context.Context) error {
	const who = "target cluster"
	backoff := keepalive.Backoff{Max: time.Second} // a replica may take over at any moment
	for {
		err := c.tryOpen(ctx, c.seeds())
		if err == nil {
			c.d.cfg.Waits.Clear(who)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.As(err, new(*topology.Permanent)) {
			return err
		}
		c.d.cfg.Waits.Set(who, err.Error(), "none needed if the cluster is failing over; else look at CLUSTER NODES there")
		select {
		case <-time.After(backoff.Next()):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (c *cluster) tryOpen(ctx context.Context, seeds []string) error {
	const patience = 3 * time.Second // for a node that may just be failing over: then another one has its slots soon
	topo, err := topology.Discover(ctx, c.d.cfg.Dialer, seeds)
	if err != nil {
		return err
	}
	if n := topo.Covered(); n < command.Slots {
		return fmt.Errorf("only %d of %d slots are covered", n, command.Slots)
	}
	lanes := make([]*lane, 0, len(topo.Shards))
	serves := make(map[string]bool, len(topo.Shards))
	for _, s := range topo.Shards {
		l := c.byKey[s.Primary]
		if l == nil {
			l = newLane(c.d, s.Primary)
			if old := c.gone[s.Primary]; old != nil { // its connection is to be ended first
				l.id, l.runID = old.id, old.runID
			}
			c.byKey[s.Primary] = l
		}
		lanes = append(lanes, l)
		serves[s.Primary] = true
		if l.up() {
			continue
		}
		short, cancel := context.WithTimeout(ctx, patience)
		err := c.d.connect(short, l, true)
		cancel()
		if err != nil {
			return err
		}
	}
	if err := c.d.hold(ctx, lanes); err != nil {
		return err
	}
	for slot := range c.owner {
		addr, _ := topo.Owner(uint16(slot))
		l := c.byKey[addr]
		c.d.moved = c.d.moved || l != c.owner[slot]
		c.owner[slot] = l
	}
	c.d.setLanes(lanes)
	c.remark()
	for addr, l := range c.byKey {
		if !serves[addr] {
			l.retire()
			delete(c.byKey, addr)
			c.gone[addr] = l
			c.d.inherit(l)
		}
	}
	return nil
}

// seeds returns whom to ask for the slots.
func (c *cluster) seeds() []string {
	var seeds []string
	for addr := range c.byKey {
		seeds = append(seeds, addr)
	}
	seeds = append(seeds, c.d.cfg.Dialer.Endpoint.Addrs...)
	if c.d.cfg.Store != nil { // whoever was named for the target may be the one that is down
		seeds = append(seeds, c.d.cfg.Store.Addresses()...)
	}
	return seeds
}

func (c *cluster) dispatch(ctx context.Context, b *haul.Batch, from, to int) error {
	if err := c.d.hasDBs(ctx, b); err != nil {
		return err
	}
	if b.Snapshot {
		c.rereads.table.expire()
	} else if from < to {
		c.forget(before(b, &b.Entries[from]))
	}
	c.asked = asked{}
	void := 0
	for i := from; i < to; i++ {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone {
			continue
		}
		if c.d.void {
			void++
			continue
		}
		if slot, ok := singleSlot(b, e); ok && (b.Snapshot || !c.rereads.table.in(slot)) {
			if !b.Snapshot && c.d.isApplied(slot, e) {
				c.owner[slot].had++
			} else {
				c.send(item{b, uint32(i), 1, whole, slot})
			}
			continue
		}
		if err := c.place(ctx, item{batch: b, first: uint32(i), n: 1}); err != nil {
			return err
		}
	}
	c.flush()
	if void > 0 {
		c.d.count("superseded", int64(void))
		b.Done(void)
	}
	for _, l := range c.d.lanes {
		if n := l.had; n > 0 {
			l.had = 0
			c.d.alreadyApplied(l, b, n)
		}
	}
	return nil
}

// singleSlot is the short way for an entry with one key in a fixed place.
func singleSlot(b *haul.Batch, e *haul.Entry) (uint16, bool) {
	switch e.Kind {
	case haul.KindKey:
		return command.Slot(b.KeyOf(e).Name), true
	case haul.KindCommand:
		cmd := &b.Commands[e.First]
		if k := cmd.Spec.FirstKey(); k > 0 && uint32(k) < cmd.NArg && e.Big == nil {
			return command.Slot(b.Arg(cmd, k)), true
		}
	}
	return 0, false
}

// own implements router.
func (c *cluster) own(b *haul.Batch, slot uint16) {
	for i := range b.Entries {
		c.send(item{b, uint32(i), 1, whole, slot})
	}
	c.flush()
}

// send gives an item to the lane of its slot, unless the slot is frozen.
func (c *cluster) send(it item) {
	if c.shut[it.slot] && !it.batch.Snapshot {
		c.frozen.keep(it)
		return
	}
	c.add(c.owner[it.slot], it)
}

// add gives an item to a lane when flush is called next. Keys of the snapshot go together with their neighbours.
func (c *cluster) add(l *lane, it item) {
	if n := len(l.local); n > 0 && it.batch.Snapshot {
		last := &l.local[n-1]
		if adjacent(*last, it) {
			last.n += it.n
			return
		}
	}
	l.local = append(l.local, it)
}

func (c *cluster) flush() {
	for _, l := range c.d.lanes {
		if len(l.local) > 0 {
			l.push(l.local...)
			clear(l.local)
			l.local = l.local[:0]
		}
	}
}

// way is where one entry, or a part of it, goes.
type way struct {
	item
	slot uint16
}

// ways finds where an entry goes that was not written in part yet. It returns none for one that is dealt with: sent to
// every node, or skipped.
func (c *cluster) ways(ctx context.Context, it item) ([]way, error) {
	b, e := it.batch, it.entry()
	slots, apart, err := entrySlots(b, e)
	if errors.Is(err, command.ErrNoSpec) {
		slots, err = c.askSlots(ctx, it)
		apart = false
	}
	var refused *resp.Error
	switch {
	case errors.Is(err, errBarrier):
		return nil, c.everywhere(ctx, it)
	case errors.As(err, &refused):
		return nil, c.refuse(it, refused)
	case errors.Is(err, command.ErrNoSpec), errors.Is(err, command.ErrBadArgs):
		return nil, c.refuse(it, &resp.Error{Code: "ERR", Text: err.Error()})
	case err != nil:
		return nil, err
	case len(slots) == 0:
		return []way{{it, 0}}, nil
	case len(slots) == 1:
		it.slot = slots[0]
		return []way{{it, slots[0]}}, nil
	case !apart:
		return nil, c.refuse(it, &resp.Error{Code: "CROSSSLOT", Text: "CROSSSLOT its keys belong to several slots of the target"})
	}
	if e.Kind == haul.KindTransaction {
		c.d.count("transactions_split", 1)
	}
	b.Expect(len(slots) - 1)
	parts := make([]way, len(slots))
	for i, s := range slots {
		parts[i] = way{item{b, it.first, 1, slotPart(s), s}, s}
	}
	return parts, nil
}

// place finds the way of one entry that was not written in part yet.
func (c *cluster) place(ctx context.Context, it item) error {
	if left, err := c.settle(ctx, it); !left || err != nil {
		return err
	}
	ways, err := c.ways(ctx, it)
	for _, w := range ways {
		if c.d.isApplied(w.slot, w.entry()) {
			c.d.alreadyApplied(c.owner[w.slot], w.batch, 1)
		} else {
			c.send(w.item)
		}
	}
	return err
}

// again implements router.
func (c *cluster) again(items []item) {
	for _, it := range items {
		for i := it.first; i < it.first+it.n; i++ {
			c.oneAgain(item{it.batch, i, 1, it.part, it.slot})
		}
	}
	c.flush()
}

func (c *cluster) oneAgain(it item) {
	if at, onLane := it.part.lane(); onLane {
		if l := c.byKey[c.nodes[at]]; l != nil {
			c.add(l, it)
		} else {
			it.batch.Done(1) // everywhere writes it to whatever has taken the node's place
		}
		return
	}
	it.slot = it.slotOf()
	if c.d.isThere(it.slot, it) {
		c.owner[it.slot].complete(it.batch, 1)
		return
	}
	c.send(it)
}

// behind implements router: order holds within a slot, and between keys of the snapshot there is none.
func (c *cluster) behind(l *lane, it item) bool {
	return !it.batch.Snapshot && l.slots[it.slotOf()]
}

func (c *cluster) note(l *lane, it item) { l.slots[it.slotOf()] = true }

// slotsOf implements router.
func (c *cluster) slotsOf(l *lane) []uint16 {
	var slots []uint16
	for s, owner := range c.owner {
		if owner == l {
			slots = append(slots, uint16(s))
		}
	}
	return slots
}

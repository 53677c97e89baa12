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
)

// cluster is the router of a target cluster: one lane a primary, entries by the slots of their keys.
type cluster struct {
	d     *dispatcher
	owner [command.Slots]*lane
	byKey map[string]*lane // by address
}

func (c *cluster) mode() string { return "cluster" }

// open finds the primaries and connects to each, until all slots are covered by lanes that are up.
func (c *cluster) open(ctx context.Context) error {
	const who = "target cluster"
	for {
		err := c.tryOpen(ctx)
		if err == nil {
			c.d.cfg.Waits.Clear(who)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.d.cfg.Waits.Set(who, err.Error(), "none needed if the cluster is failing over; else look at CLUSTER NODES there")
		select {
		case <-time.After(c.d.backoff.Next()):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (c *cluster) tryOpen(ctx context.Context) error {
	const patience = 3 * time.Second // for a node that may just be failing over
	topo, err := topology.Discover(ctx, c.d.cfg.Dialer, c.seeds())
	if err != nil {
		return err
	}
	if n := topo.Covered(); n < command.Slots {
		return fmt.Errorf("only %d of %d slots are covered", n, command.Slots)
	}
	lanes := make([]*lane, 0, len(topo.Shards))
	byKey := make(map[string]*lane, len(topo.Shards))
	for _, s := range topo.Shards {
		l := c.byKey[s.Primary]
		if l == nil {
			l = newLane(c.d, s.Primary)
		}
		lanes = append(lanes, l)
		byKey[s.Primary] = l
		if l.up() {
			continue
		}
		short, cancel := context.WithTimeout(ctx, patience)
		err := c.d.connect(short, l)
		cancel()
		if err != nil {
			return err
		}
	}
	for addr, l := range c.byKey {
		if byKey[addr] == nil {
			l.close()
		}
	}
	for slot := range c.owner {
		addr, _ := topo.Owner(uint16(slot))
		c.owner[slot] = byKey[addr]
	}
	c.byKey = byKey
	c.d.setLanes(lanes)
	return nil
}

func (c *cluster) seeds() []string {
	var seeds []string
	for addr := range c.byKey {
		seeds = append(seeds, addr)
	}
	return append(seeds, c.d.cfg.Dialer.Endpoint.Addrs...)
}

func (c *cluster) dispatch(ctx context.Context, b *haul.Batch) error {
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone {
			continue
		}
		if e.DB != 0 {
			if err := c.d.hasDB(ctx, e.DB); err != nil {
				return err
			}
		}
		if slot, ok := singleSlot(b, e); ok {
			c.add(c.owner[slot], item{b, uint32(i), 1, whole})
			continue
		}
		if err := c.place(ctx, item{b, uint32(i), 1, whole}); err != nil {
			return err
		}
	}
	c.flush()
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

// add gives an item to a lane when flush is called next, together with its neighbours where they go the same way.
func (c *cluster) add(l *lane, it item) {
	if n := len(l.local); n > 0 {
		last := &l.local[n-1]
		if last.batch == it.batch && last.part == whole && it.part == whole && last.first+last.n == it.first &&
			last.entry().Big == nil && it.entry().Big == nil {
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

// place finds the way of one entry that was not written in part yet.
func (c *cluster) place(ctx context.Context, it item) error {
	b, e := it.batch, it.entry()
	slots, apart, err := entrySlots(b, e)
	if errors.Is(err, command.ErrNoSpec) {
		slots, err = c.askSlots(ctx, b, e)
		apart = false
	}
	switch {
	case errors.Is(err, errBarrier):
		return c.everywhere(ctx, it)
	case errors.As(err, new(*spoolError)):
		return err
	case err != nil:
		return c.refuse(it, &resp.Error{Code: "ERR", Text: err.Error()})
	case len(slots) == 0:
		c.add(c.owner[0], it)
	case len(slots) == 1:
		c.add(c.owner[slots[0]], it)
	case !apart:
		return c.refuse(it, &resp.Error{Code: "CROSSSLOT", Text: "CROSSSLOT its keys belong to several slots of the target"})
	default:
		if e.Kind == haul.KindTransaction {
			c.d.count("transactions_split", 1)
		}
		b.Expect(len(slots) - 1)
		for _, s := range slots {
			c.add(c.owner[s], item{b, it.first, 1, slotPart(s)})
		}
	}
	return nil
}

// everywhere writes an entry without keys on every primary, when nothing else is on its way.
func (c *cluster) everywhere(ctx context.Context, it item) error {
	b, e := it.batch, it.entry()
	if e.Kind == haul.KindTransaction {
		return c.refuse(it, &resp.Error{Code: "ERR", Text: "a transaction of a cluster cannot hold a command that concerns every node"})
	}
	c.flush()
	if err := c.d.drain(ctx); err != nil {
		return err
	}
	b.Expect(len(c.d.lanes) - 1)
	for i, l := range c.d.lanes {
		l.push(item{b, it.first, 1, partLane + part(i)})
	}
	return c.d.drain(ctx)
}

// refuse treats an entry that cannot be written to a cluster like one that the target has refused.
func (c *cluster) refuse(it item, e *resp.Error) error {
	if c.d.cfg.OnError != OnErrorSkip {
		return c.d.refusal(it, e)
	}
	c.d.skip(it, e)
	it.batch.Done(1)
	return nil
}

// askSlots asks a node of the target where the keys of an unknown command are.
func (c *cluster) askSlots(ctx context.Context, b *haul.Batch, e *haul.Entry) ([]uint16, error) {
	if e.Kind != haul.KindCommand || e.Big != nil {
		return nil, command.ErrNoSpec
	}
	cmd := &b.Commands[e.First]
	args := []string{"COMMAND", "GETKEYS"}
	for i := range int(cmd.NArg) {
		args = append(args, string(b.Arg(cmd, i)))
	}
	const timeout = 10 * time.Second
	conn, err := c.d.cfg.Dialer.Open(ctx, c.d.lanes[0].addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // one question
	r, err := conn.Do(ctx, timeout, args...)
	if err != nil {
		return nil, err
	}
	keys := make([]int, len(r.Array))
	for i := range keys {
		keys[i] = i
	}
	return slotSet(keys, func(i int) []byte { return []byte(r.Array[i].Text) }), nil
}

// again implements router.
func (c *cluster) again(ctx context.Context, items []item, moving map[uint16]bool) error {
	s := singles{c: c}
	defer s.close()
	for _, it := range items {
		for i := it.first; i < it.first+it.n; i++ {
			one := item{it.batch, i, 1, it.part}
			slot, placed := it.part.slot()
			if !placed && it.part == whole {
				slot, placed = singleSlot(it.batch, one.entry())
			}
			at, onLane := it.part.lane()
			var err error
			switch {
			case it.batch.Entries[i].Drop != haul.DropNone:
			case onLane:
				c.add(c.d.lanes[at%len(c.d.lanes)], one)
			case placed && moving[slot]:
				err = s.write(ctx, one, slot)
			case placed:
				c.add(c.owner[slot], one)
			default:
				err = c.placeAgain(ctx, &s, one, moving)
			}
			if err != nil {
				return err
			}
		}
	}
	c.flush()
	return nil
}

// placeAgain is place for an entry of several keys, which goes alone if its slot is moving.
func (c *cluster) placeAgain(ctx context.Context, s *singles, it item, moving map[uint16]bool) error {
	slots, _, err := entrySlots(it.batch, it.entry())
	if err == nil && len(slots) == 1 && moving[slots[0]] {
		return s.write(ctx, it, slots[0])
	}
	return c.place(ctx, it)
}

// behind implements router: order holds within a slot, and between keys of the snapshot there is none.
func (c *cluster) behind(l *lane, it item) bool {
	if it.batch.Snapshot {
		return false
	}
	for _, s := range itemSlots(it) {
		if l.slots[s] {
			return true
		}
	}
	return false
}

func (c *cluster) note(l *lane, it item) {
	for _, s := range itemSlots(it) {
		l.slots[s] = true
	}
}

func itemSlots(it item) []uint16 {
	if s, ok := it.part.slot(); ok {
		return []uint16{s}
	}
	if s, ok := singleSlot(it.batch, it.entry()); ok {
		return []uint16{s}
	}
	slots, _, err := entrySlots(it.batch, it.entry())
	if err != nil {
		return nil
	}
	return slots
}

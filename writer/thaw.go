package writer

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// This is the dispatcher's side of slots that move: see frozen.go.

// attend implements router.
func (c *cluster) attend() error {
	f := c.frozen
	f.mu.Lock()
	notices, thawing, doubts, found := f.notices, f.thawing, f.doubts, f.found
	f.notices, f.thawing, f.doubts, f.found = nil, nil, false, nil
	f.mu.Unlock()
	for _, n := range notices {
		c.freeze(n.slot, n.l, "", n.err)
	}
	if found != nil {
		if err := c.adopt(found); err != nil {
			return err
		}
	}
	for _, fs := range thawing {
		c.thaw(fs)
	}
	if doubts {
		c.look()
	}
	return nil
}

// freeze keeps what comes for a slot from now on, and has the lane hand over what it has of it. The slot may have left
// the lane since that was asked for.
func (c *cluster) freeze(slot uint16, l *lane, home string, err *resp.Error) {
	if c.shut[slot] || c.owner[slot] != l {
		return
	}
	c.shut[slot] = true
	c.frozen.freeze(slot, l.addr, home, err)
	l.push(item{part: partLeave, slot: slot})
	c.d.cfg.Log.Debug().Uint16("slot", slot).Str("from", l.addr).Msg("a slot of the target is frozen")
}

// thaw gives what is left of a slot to the lane of the node that has it now.
func (c *cluster) thaw(fs *frozenSlot) {
	home, ok := c.frozen.thaws(fs)
	if !ok {
		return
	}
	l := c.byKey[home]
	if l == nil || !l.up() {
		c.frozen.refreeze(fs)
		c.look()
		return
	}
	slot := fs.slot
	if c.owner[slot] != l {
		c.owner[slot] = l
		c.d.moved = true
	}
	c.shut[slot] = false
	l.push(c.frozen.remove(slot)...)
	signal(c.d.idle)
	c.d.cfg.Log.Debug().Uint16("slot", slot).Str("to", l.addr).Msg("a slot of the target has thawed")
}

// thaws returns the node that has a slot, if the slot is still to be given to it.
func (f *frozenSlots) thaws(fs *frozenSlot) (home string, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fs.home, f.slots[fs.slot] == fs && fs.thawing
}

// refreeze has a slot that could not be given to a lane tried again.
func (f *frozenSlots) refreeze(fs *frozenSlot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fs.thawing, fs.next = false, time.Now().Add(longWait)
	signal(f.due)
}

// remove ends the frozen state of a slot, and returns its entries.
func (f *frozenSlots) remove(slot uint16) []item {
	f.mu.Lock()
	defer f.mu.Unlock()
	fs := f.slots[slot]
	delete(f.slots, slot)
	return fs.queue
}

// survey is what a look at the cluster has found.
type survey struct {
	topo  *topology.Cluster
	added []*lane
	err   error // ends the run
}

// lookEvery is how often at most the cluster is looked at.
const lookEvery = time.Second

// look finds out where slots are, in the background, and connects to primaries that are new. attend takes the result.
func (c *cluster) look() {
	if c.surveying || time.Since(c.refreshed) < lookEvery {
		c.doubted = true
		return
	}
	c.surveying, c.doubted, c.refreshed = true, false, time.Now()
	seeds, known := c.seeds(), make(map[string]string, len(c.byKey))
	for addr, l := range c.byKey {
		known[addr] = l.holder
	}
	c.d.group.Go(func() error {
		found := c.survey(c.d.runCtx, seeds, known)
		c.frozen.mu.Lock()
		c.frozen.found = found
		c.frozen.mu.Unlock()
		signal(c.d.moves)
		return nil
	})
}

// survey asks seeds, and connects to primaries that are not among those known, whose holders it is given.
func (c *cluster) survey(ctx context.Context, seeds []string, known map[string]string) *survey {
	const patience = 5 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	topo, err := topology.Discover(ctx, c.d.cfg.Dialer, seeds)
	if err != nil {
		return &survey{}
	}
	found := &survey{topo: topo}
	holders := slices.Collect(maps.Values(known))
	for _, s := range topo.Shards {
		if _, ok := known[s.Primary]; ok {
			continue
		}
		l := newLane(c.d, s.Primary)
		err := c.d.connect(ctx, l, true)
		switch {
		case err == nil:
			found.added = append(found.added, l)
			holders = append(holders, l.holder)
		case errors.Is(err, ErrRewind), errors.Is(err, checkpoint.ErrTaken), errors.Is(err, checkpoint.ErrGone):
			found.err = err
		}
	}
	if len(found.added) == 0 || c.d.cfg.Store == nil {
		return found
	}
	if err := c.d.cfg.Store.Hold(ctx, holders); err != nil { // they are connected to again at the next look
		for _, l := range found.added {
			l.retire()
		}
		found.added = nil
	}
	return found
}

// adopt makes new primaries known, and has slots go to where they are now.
func (c *cluster) adopt(found *survey) error {
	c.surveying = false
	for _, l := range found.added {
		if c.byKey[l.addr] != nil { // a recovery was faster
			l.retire()
			continue
		}
		c.byKey[l.addr] = l
		c.d.setLanes(append(c.d.lanes[:len(c.d.lanes):len(c.d.lanes)], l))
		c.d.cfg.Log.Info().Str("address", l.addr).Msg("the target has a new primary")
	}
	if found.topo == nil || found.err != nil {
		return found.err
	}
	c.frozen.rehome(found.topo)
	for slot := range c.owner {
		addr, ok := found.topo.Owner(uint16(slot))
		if l := c.byKey[addr]; ok && l != nil && l != c.owner[slot] {
			c.freeze(uint16(slot), c.owner[slot], addr, nil)
		}
	}
	return nil
}

// rehome has slots whose node was not reached tried where they are now.
func (f *frozenSlots) rehome(topo *topology.Cluster) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fs := range f.slots {
		if addr, ok := topo.Owner(fs.slot); ok && fs.lost {
			fs.home, fs.lost = addr, false
		}
	}
}

// tick implements router.
func (c *cluster) tick() {
	if c.doubted {
		c.look()
	}
	c.remark()
	if c.surveying || !c.frozen.none() {
		return
	}
	lanes := make([]*lane, 0, len(c.d.lanes))
	for _, l := range c.d.lanes {
		if !c.serves(l) && l.idle() {
			delete(c.byKey, l.addr)
			l.retire()
			c.d.cfg.Log.Info().Str("address", l.addr).Msg("a node of the target has no slots any more: its connection is closed")
			continue
		}
		lanes = append(lanes, l)
	}
	if len(lanes) < len(c.d.lanes) {
		c.d.setLanes(lanes)
	}
}

func (c *cluster) serves(l *lane) bool {
	for _, owner := range c.owner {
		if owner == l {
			return true
		}
	}
	return false
}

// remark gives each lane the key of its mark, in a slot that its node has.
func (c *cluster) remark() {
	if c.d.cfg.Store == nil {
		return
	}
	first := make(map[*lane]uint16, len(c.d.lanes))
	for slot := range command.Slots {
		l := c.owner[slot]
		if _, ok := first[l]; !ok && !c.shut[slot] {
			first[l] = uint16(slot)
		}
	}
	keys := c.d.cfg.Store.Keys()
	for l, slot := range first {
		l.setMarked(keys.Mark(slot))
	}
}

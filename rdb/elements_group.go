package rdb

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// group is a consumer group in the making. What is pending comes before the consumers that have it, so it is held.
type group struct {
	pending   []pending
	consumers []consumer
	texts     []byte // the names of the consumers, one behind the other
	order     []int  // indexes of pending, by consumer
	owned     []bool // which of pending have a consumer
}

type pending struct {
	id         StreamID
	delivered  int64
	deliveries uint64
}

type consumer struct {
	seen, active int64
	textEnd      int // where its name ends in texts
	orderEnd     int // where its ids end in order
}

const keptPending = 1 << 14

// reset forgets what the group held.
func (g *group) reset() {
	if cap(g.pending) > keptPending || cap(g.consumers) > keptPending || cap(g.texts) > keptScratch {
		*g = group{}
	}
	g.pending, g.consumers, g.texts, g.order, g.owned = g.pending[:0], g.consumers[:0], g.texts[:0], g.order[:0], g.owned[:0]
}

func (w *walker) streamGroup() error {
	g := &w.group
	g.reset()
	w.begin(ElementGroup, 0)
	var err error
	if w.e.Name, err = w.str(&w.name); err != nil {
		return err
	}
	if w.e.ID, err = w.streamID(); err != nil {
		return err
	}
	w.e.EntriesRead = -1
	if w.typ >= TypeStream2 {
		n, err := w.count()
		if err != nil {
			return err
		}
		w.e.EntriesRead = max(int64(n), -1)
	}
	if err := w.send(); err != nil {
		return err
	}
	if err := w.readPending(); err != nil {
		return err
	}
	consumers, err := w.count()
	for ; consumers > 0 && err == nil; consumers-- {
		err = w.readConsumer()
	}
	if err == nil && w.typ >= TypeStream5 { // their ids: those that no consumer has
		var n uint64
		if n, err = w.count(); err == nil && n > uint64(len(g.pending)) {
			err = fmt.Errorf("%w: a group with more ids without a consumer than it has pending", ErrCorrupt)
		}
		if err == nil {
			err = w.skip(16 * n)
		}
	}
	if err != nil {
		return err
	}
	return w.sendGroup()
}

// readPending reads what the group has pending: id, when it was last delivered, how often.
func (w *walker) readPending() error {
	g := &w.group
	n, err := w.count()
	for ; n > 0 && err == nil; n-- {
		var raw []byte
		if raw, err = w.fixed(24); err != nil {
			break
		}
		p := pending{id: idOf(raw), delivered: int64(binary.LittleEndian.Uint64(raw[16:]))}
		if p.deliveries, err = w.count(); err != nil {
			break
		}
		if k := len(g.pending); k > 0 && g.pending[k-1].id.Compare(p.id) >= 0 {
			return fmt.Errorf("%w: ids of a group are not in order", ErrCorrupt)
		}
		g.pending, g.owned = append(g.pending, p), append(g.owned, false)
	}
	return err
}

// readConsumer reads a consumer and the ids that it has pending.
func (w *walker) readConsumer() error {
	g := &w.group
	name, err := w.str(&w.name)
	if err != nil {
		return err
	}
	g.texts = append(g.texts, name...)
	c := consumer{active: -1, textEnd: len(g.texts)}
	if c.seen, err = w.int64(); err != nil {
		return err
	}
	if w.typ >= TypeStream3 {
		if c.active, err = w.int64(); err != nil {
			return err
		}
	}
	n, err := w.count()
	for ; n > 0 && err == nil; n-- {
		var raw []byte
		if raw, err = w.fixed(16); err != nil {
			break
		}
		i, found := slices.BinarySearchFunc(g.pending, idOf(raw), func(p pending, id StreamID) int { return p.id.Compare(id) })
		if !found || g.owned[i] {
			return fmt.Errorf("%w: an id of a consumer that its group lacks or that another one has", ErrCorrupt)
		}
		g.owned[i] = true
		g.order = append(g.order, i)
	}
	c.orderEnd = len(g.order)
	g.consumers = append(g.consumers, c)
	return err
}

// sendGroup emits what was read of a group.
func (w *walker) sendGroup() error {
	g := &w.group
	for i, owned := range g.owned {
		if owned {
			continue
		}
		if err := w.sendPending(i); err != nil {
			return err
		}
	}
	text, order := 0, 0
	for _, c := range g.consumers {
		w.begin(ElementConsumer, 0)
		w.e.Name, w.e.Seen, w.e.Active = g.texts[text:c.textEnd], c.seen, c.active
		if err := w.send(); err != nil {
			return err
		}
		for _, i := range g.order[order:c.orderEnd] {
			if err := w.sendPending(i); err != nil {
				return err
			}
		}
		text, order = c.textEnd, c.orderEnd
	}
	return nil
}

func (w *walker) sendPending(i int) error {
	p := &w.group.pending[i]
	w.begin(ElementPending, 0)
	w.e.ID, w.e.Delivered, w.e.Deliveries = p.id, p.delivered, p.deliveries
	return w.send()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/writer"
)

const (
	settleAtOnce = 256              // slots of a link
	settleWithin = 30 * time.Second // or it is tried again
)

// settle gives the slots that have arrived somewhere to the links that they belong to now, after what the streams of all
// links still have on its way for them. It does not wait for that.
func (s *shards) settle(ctx context.Context, v *survey) {
	at, _ := v.linksOf(s.all())
	s.mu.Lock()
	defer s.mu.Unlock()
	var busy topology.SlotSet
	for _, slots := range s.underway {
		slots.Each(busy.Add)
	}
	due := make(map[*shard]*topology.SlotSet)
	for slot := range uint16(topology.SlotCount) {
		addr, _ := v.Owner(slot)
		l := at[addr]
		if s.slots.Owner(slot) != 0 || v.open.Has(slot) || busy.Has(slot) || l == nil || s.underway[l] != nil ||
			time.Now().Before(s.rest[l]) || l.store.Record().Phase != checkpoint.PhaseStreaming {
			continue
		}
		if due[l] == nil {
			due[l] = &topology.SlotSet{}
		}
		if due[l].Len() < settleAtOnce {
			due[l].Add(slot)
		}
	}
	for l, slots := range due {
		s.underway[l] = slots
		s.settling.Go(func() { s.settleLink(ctx, l, slots) })
	}
}

// settleLink settles slots of one link.
func (s *shards) settleLink(ctx context.Context, l *shard, slots *topology.SlotSet) {
	who := "slots that have moved to the shard of link " + l.name
	began := time.Now()
	short, cancel := context.WithTimeoutCause(ctx, settleWithin, errors.New("moved slots are not settled yet"))
	defer cancel()
	var held map[uint16][]haul.KeyName
	h, err := l.running(), s.passed(short)
	if err == nil {
		held, err = l.leftOver(short, slots)
	}
	if err == nil && h != nil {
		err = l.settle(ctx, h.Writer.(writer.Settler), slots, held)
	}
	s.mu.Lock()
	delete(s.underway, l)
	s.rest[l] = time.Now().Add(time.Since(began)) // no more than half of the time
	s.mu.Unlock()
	if err != nil && ctx.Err() == nil {
		s.waits.Set(who, err.Error(), sourceRemedy(err, "none needed: it is tried again"))
	} else {
		s.waits.Clear(who)
	}
}

// passed waits until everything that links have sent up to now is acknowledged: a slot was taken from its link before, so
// nothing of it is on its way then.
func (s *shards) passed(ctx context.Context) error {
	for _, l := range s.all() {
		h := l.running()
		if r := l.store.Record(); h == nil || r.Flush || r.Prune { // it may be removing keys
			return fmt.Errorf("link %s is being taken up again", l.name)
		}
		select {
		case <-h.Channel.Watermark.Sent():
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if l.running() != h { // what it had on its way was lost with its connections, or is sent again
			return fmt.Errorf("link %s is being taken up again", l.name)
		}
	}
	return nil
}

// leftOver returns the keys that the target has in slots. On one that is not the haul's alone it is not known which of
// them the source has had: they stay.
func (l *shard) leftOver(ctx context.Context, slots *topology.SlotSet) (map[uint16][]haul.KeyName, error) {
	others, err := l.all.store.Others(ctx)
	if err != nil || len(others) > 0 || !ownTarget(l.all.first.Began) {
		return nil, err
	}
	return l.store.HeldKeys(ctx, slots)
}

// settle makes slots the link's.
func (l *shard) settle(ctx context.Context, to writer.Settler, slots *topology.SlotSet, held map[uint16][]haul.KeyName) (err error) {
	var wg sync.WaitGroup
	var mu sync.Mutex // guards the following
	var failed []error
	settled, at := &topology.SlotSet{}, int64(math.MaxInt64)
	slots.Each(func(slot uint16) {
		wg.Go(func() {
			x := &writer.Settlement{Slot: slot, Held: held[slot], Mine: func(mine bool) { l.own(slot, mine) }}
			err := to.Settle(x)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				l.owns(slot)
				failed = append(failed, fmt.Errorf("slot %d: %w", slot, err))
				return
			}
			settled.Add(slot)
			at = min(at, x.At)
		})
	})
	wg.Wait()
	if len(failed) > 0 {
		err = fmt.Errorf("%d slots are not settled yet: %w", len(failed), failed[0])
	}
	l.log.Info().Int("slots", settled.Len()).Msg("slots that have moved to this shard are settled")
	return errors.Join(err, l.store.Update(ctx, func(r *checkpoint.Record) {
		settled.Each(l.owns)
		r.Slots = l.known()
		if l.ends.target.Cluster {
			r.Settle(settled, at)
		}
	}))
}

// own makes a slot the link's, or no one's again. It is not the link's to whoever resumes before the target knows.
func (l *shard) own(slot uint16, mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case mine:
		l.early.Add(slot)
		l.all.slots.Give(slot, l.number)
	case l.Mine(slot):
		l.all.slots.Give(slot, 0)
	}
}

// owns hears that the target knows that a slot is the link's, or that it is not.
func (l *shard) owns(slot uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.early.Remove(slot)
}

// known returns the link's slots, as far as the target knows that they are.
func (l *shard) known() *topology.SlotSet {
	l.mu.Lock()
	defer l.mu.Unlock()
	set := l.mySlots()
	l.early.Each(set.Remove)
	return set
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/writer"
)

const (
	settleAtOnce = 256              // slots of a link
	settleWithin = 30 * time.Second // or it is tried again
)

// settle gives the slots that have arrived somewhere to the links that they belong to now, after what the streams of all
// links still have on its way for them.
func (s *shards) settle(ctx context.Context, v *survey) error {
	if time.Now().Before(s.notBefore) {
		return nil
	}
	at := v.linksOf(s.all())
	due := make(map[*shard]*topology.SlotSet)
	for slot := range uint16(topology.SlotCount) {
		addr, _ := v.Owner(slot)
		l := at[addr]
		if s.slots.Owner(slot) != 0 || v.open.Has(slot) || l == nil || l.store.Record().Phase != checkpoint.PhaseStreaming {
			continue
		}
		if due[l] == nil {
			due[l] = &topology.SlotSet{}
		}
		if due[l].Len() < settleAtOnce {
			due[l].Add(slot)
		}
	}
	if len(due) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, settleWithin, errors.New("moved slots are not settled yet"))
	defer cancel()
	if err := s.passed(ctx); err != nil {
		return err
	}
	began := time.Now()
	defer func() { s.notBefore = time.Now().Add(time.Since(began)) }() // no more than half of the time
	for l, slots := range due {
		if err := l.settle(ctx, slots); err != nil {
			return err
		}
	}
	return nil
}

// passed waits until everything that links have sent up to now is acknowledged: a slot was taken from its link before, so
// nothing of it is on its way then.
func (s *shards) passed(ctx context.Context) error {
	for _, l := range s.all() {
		h := l.running()
		if h == nil {
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

// settle makes slots the link's.
func (l *shard) settle(ctx context.Context, slots *topology.SlotSet) error {
	h := l.running()
	if h == nil {
		return nil
	}
	held, err := l.store.HeldKeys(ctx, slots)
	if err != nil {
		return err
	}
	to := h.Writer.(writer.Settler)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed []error
	slots.Each(func(slot uint16) {
		wg.Go(func() {
			err := to.Settle(&writer.Settlement{Slot: slot, Held: held[slot], Mine: func(mine bool) { l.own(slot, mine) }})
			l.owns(slot)
			if err != nil {
				mu.Lock()
				failed = append(failed, fmt.Errorf("slot %d: %w", slot, err))
				mu.Unlock()
			}
		})
	})
	wg.Wait()
	if len(failed) > 0 {
		err = fmt.Errorf("%d slots are not settled yet: %w", len(failed), failed[0])
	}
	l.log.Info().Int("slots", slots.Len()-len(failed)).Msg("slots that have moved to this shard are settled")
	return errors.Join(err, l.saveSlots(ctx))
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

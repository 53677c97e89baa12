package writer

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/keyhaul/keyhaul/haul"
)

// whoSlots is who waits when slots of the target move.
const whoSlots = "target slots"

const (
	showAfter  = 500 * time.Millisecond // of waiting: most slots wait for less
	watchEvery = 250 * time.Millisecond
	tellEvery  = 10 * time.Second // in the log
	mostSlots  = 100              // in status
)

// watch tells the operator of slots that wait, until ctx ends, and ends the run if one has waited for too long.
func (f *frozenSlots) watch(ctx context.Context) {
	d := f.c.d
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	defer d.cfg.Waits.Clear(whoSlots)
	var told time.Time
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		list, n := f.status()
		if n > 0 && time.Since(told) > tellEvery {
			told = time.Now()
			d.cfg.Log.Info().Int("slots", n).Str("cause", list[0].Cause).
				Msg("slots of the target move: their entries wait, or take the way that the target names; the others flow on")
		}
		list = slices.DeleteFunc(list, func(s haul.SlotStatus) bool { return s.Waiting == 0 })
		if len(list) == 0 || list[0].Waits < showAfter.Seconds() {
			d.cfg.Waits.Clear(whoSlots)
			continue
		}
		if err := f.judge(list[0], n); err != nil {
			d.fatal(err)
			return
		}
	}
}

// judge tells of the slot that has waited for longest, among n.
func (f *frozenSlots) judge(s haul.SlotStatus, n int) error {
	const remedy = "end the migration of the slot on the target, or call it off: CLUSTER SETSLOT %d NODE or STABLE; keyhaul goes on by itself"
	d := f.c.d
	waits := time.Duration(s.Waits * float64(time.Second)).Round(100 * time.Millisecond)
	limit := d.cfg.OpenSlots
	text := fmt.Sprintf("slot %d takes nothing since %v: %s", s.Slot, waits, f.said(s.Slot))
	if n > 1 {
		text += fmt.Sprintf(" (%d slots move)", n)
	}
	d.cfg.Waits.Set(whoSlots, text, fmt.Sprintf(remedy, s.Slot))
	if limit > 0 && waits >= limit {
		return haul.Errorf(haul.ExitFailed, fmt.Sprintf(remedy, s.Slot)+" when it is started again; --open-slot-timeout sets how long it waits",
			"slot %d of the target has taken nothing for %v: %s", s.Slot, waits, f.said(s.Slot))
	}
	if limit > 0 && waits >= limit/10 {
		d.cfg.Log.Warn().Uint16("slot", s.Slot).Str("waits", waits.String()).Str("ends_after", limit.String()).Str("cause", s.Cause).
			Msg("a slot of the target takes nothing")
	}
	return nil
}

// said returns what the target has said last of a slot.
func (f *frozenSlots) said(slot uint16) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fs := f.slots[slot]; fs != nil && fs.err != nil {
		return fs.err.Text
	}
	return "it moves"
}

// status returns the slots that are frozen, those first that have waited for longest, and their number.
func (f *frozenSlots) status() (list []haul.SlotStatus, n int) {
	if f == nil {
		return nil, 0
	}
	f.mu.Lock()
	for _, fs := range f.slots {
		s := haul.SlotStatus{Slot: fs.slot, Cause: "MOVED", Since: fs.since, From: fs.from, To: fs.to, Waiting: len(fs.queue)}
		if fs.err != nil {
			s.Cause = fs.err.Code
		}
		if s.Waiting > 0 {
			s.Waits = time.Since(fs.moved).Seconds()
		}
		list = append(list, s)
	}
	f.mu.Unlock()
	slices.SortFunc(list, func(a, b haul.SlotStatus) int { return cmp.Compare(b.Waits, a.Waits) })
	n = len(list)
	return list[:min(n, mostSlots)], n
}

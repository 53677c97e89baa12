package writer

import (
	"context"
	"slices"
	"time"
)

// setback is what a recovery finds when nothing is on its way any more.
type setback struct {
	failed  []item   // refused, and what followed them in their slots; the first was refused
	rest    []item   // not answered, or not sent
	cause   *failure // the worst of the refusals
	unacked int64    // entries that were sent without an answer
	again   int64    // entries that are applied and yet sent again, because one before them was refused
	exact   bool     // nothing is applied twice, however often it is tried
}

func (s *setback) items() []item { return append(s.failed, s.rest...) }

// refused reports whether entries are refused until something changes that a new connection does not bring.
func (s *setback) refused() bool {
	return !s.exact && s.cause != nil && s.cause.act <= actWait && len(s.failed) > 0
}

// recover is the one way in which things are mended. As long as an entry is refused only that one is tried: what
// follows it would be applied anew at each try.
func (d *dispatcher) recover(ctx context.Context) error {
	s, err := d.settle(ctx)
	for err == nil {
		if s.cause == nil && d.allLanes((*lane).up) { // nothing is wrong any more
			d.releaseAll()
			d.route.again(s.items())
			return nil
		}
		d.tell(s)
		if err := d.pause(ctx, s.cause); err != nil {
			return err
		}
		if err := d.reopen(ctx, s.cause); err != nil {
			return err
		}
		if !s.refused() {
			d.route.again(s.items())
			return nil
		}
		head, tail := s.items()[:1], s.items()[1:]
		d.route.again(head)
		if err := d.outcome(ctx); err != nil {
			return err
		}
		s, err = d.settle(ctx)
		s.rest = append(s.rest, tail...)
	}
	return err
}

// settle holds all lanes until nothing is on its way, and collects what is not acknowledged.
func (d *dispatcher) settle(ctx context.Context) (setback, error) {
	for _, l := range d.lanes {
		l.hold()
	}
	err := d.await(ctx, func() bool { return d.allLanes((*lane).quiet) })
	select {
	case <-d.trouble: // of what is collected now
	default:
	}
	if err != nil {
		return setback{}, err
	}
	return d.collect(), nil
}

// outcome waits until every lane is idle, or one has failed or froze a slot.
func (d *dispatcher) outcome(ctx context.Context) error {
	return d.await(ctx, func() bool {
		return d.allLanes((*lane).idle) || len(d.trouble) > 0 || len(d.moves) > 0
	})
}

// await waits until done is true.
func (d *dispatcher) await(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-d.idle:
		case <-tick.C:
		case err := <-d.dead:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// reopen connects what is not connected, and lets the lanes go on.
func (d *dispatcher) reopen(ctx context.Context, cause *failure) error {
	d.setReady(false)
	if cause != nil && (cause.err.Code == "READONLY" || cause.err.Code == "NOAUTH") {
		for _, l := range d.lanes {
			l.close() // its address may lead to another server now, or its login is void
		}
	}
	if err := d.route.open(ctx); err != nil {
		return err
	}
	if err := d.refence(ctx); err != nil {
		return err
	}
	d.setReady(true)
	d.releaseAll()
	d.mended = time.Now()
	return nil
}

func (d *dispatcher) releaseAll() {
	for _, l := range d.lanes {
		l.release()
	}
}

func (d *dispatcher) collect() setback {
	s := setback{exact: d.exact()}
	var worked int64
	for _, l := range d.lanes {
		l.collect(&s)
		worked += l.acked.Load()
	}
	if d.slots != nil {
		d.slots.forget()
		s.rest = slices.DeleteFunc(s.rest, func(it item) bool { return it.part&partLeave != 0 })
		s.rest = append(s.rest, d.frozen.collect()...) // they came after what the lanes have of their slots
	}
	d.resent(s.items())
	const lasting = time.Second
	if worked > d.worked || time.Since(d.mended) > lasting {
		d.backoff.Reset()
	}
	d.worked = worked
	d.resend(s.unacked + s.again)
	return s
}

// resend counts entries that are sent again though they may be applied.
func (d *dispatcher) resend(n int64) {
	d.mu.Lock()
	d.resends += n
	d.mu.Unlock()
}

// tell says what is sent again, and what that may mean.
func (d *dispatcher) tell(s setback) {
	if s.unacked > 0 && s.exact {
		d.cfg.Log.Warn().Int64("unacknowledged", s.unacked).
			Msg("a connection to the target was lost: the fences tell which commands it has applied, the others are sent again")
	} else if s.unacked > 0 {
		d.cfg.Log.Warn().Int64("unacknowledged", s.unacked).
			Msg("a connection to the target was lost: commands that it did not acknowledge are sent again, and may be applied twice")
	}
	if s.cause == nil {
		return
	}
	d.cfg.Log.Warn().Str("address", s.cause.addr).Str("cause", s.cause.err.Text).Int("waiting", len(s.failed)+len(s.rest)).
		Msg("the target has refused entries for now; they are sent again")
	if s.again > 0 && !s.exact {
		d.cfg.Log.Warn().Int64("entries", s.again).
			Msg("entries behind a refused one were applied already: they are sent again, and are applied twice")
	}
}

// pause waits as long as the cause asks for: not at all the first time if only the way was lost.
func (d *dispatcher) pause(ctx context.Context, cause *failure) error {
	first := d.backoff.Tries() == 0
	wait := d.backoff.Next()
	if first && (cause == nil || cause.act >= actSlot) {
		return nil
	}
	if cause != nil {
		text, advice := cause.addr+": "+cause.err.Text, remedy(cause.err)
		if cause.what != nil {
			text, advice = cause.what.Error(), "mend the key on the target, or start again with --on-error skip"
		}
		d.cfg.Waits.Set(whoTarget, text, advice)
		d.waiting.Store(true)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case err := <-d.dead:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// whoTarget is who waits when the target as a whole refuses entries.
const whoTarget = "target"

// progress takes back what pause has told the operator, once an entry is acknowledged.
func (d *dispatcher) progress() {
	if d.waiting.Load() && d.waiting.CompareAndSwap(true, false) {
		d.cfg.Waits.Clear(whoTarget)
	}
}

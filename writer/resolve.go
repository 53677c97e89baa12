package writer

import (
	"context"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	resolvers = 4  // so that one long entry does not keep the other slots waiting
	calmAfter = 32 // entries in a row that a node has taken: the slot seems to stay with it
	shortWait = 5 * time.Millisecond
	longWait  = 100 * time.Millisecond
)

// start runs the resolvers until ctx ends.
func (f *frozenSlots) start(ctx context.Context) {
	g := f.c.d.group
	for range resolvers {
		g.Go(func() error {
			f.resolve(ctx)
			return nil
		})
	}
	g.Go(func() error {
		f.watch(ctx)
		return nil
	})
}

// resolve tries the oldest entries of slots, one after the other.
func (f *frozenSlots) resolve(ctx context.Context) {
	s := singles{c: f.c}
	defer s.close()
	timer := time.NewTimer(longWait)
	defer timer.Stop()
	for ctx.Err() == nil {
		some, err := f.step(ctx, &s)
		if err != nil && ctx.Err() == nil {
			f.c.d.fatal(err)
			return
		}
		if some {
			continue
		}
		timer.Reset(f.rest())
		select {
		case <-f.due:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// step tries one entry, and reports whether there was one to try.
func (f *frozenSlots) step(ctx context.Context, s *singles) (bool, error) {
	if err := f.c.d.leased(ctx); err != nil {
		return false, err
	}
	f.sending.RLock()
	defer f.sending.RUnlock()
	fs, it, home := f.pick()
	if fs == nil {
		return false, nil
	}
	a, err := s.write(ctx, it, home)
	if err != nil {
		return true, err
	}
	return true, f.outcome(fs, it, a)
}

// pick returns a slot whose oldest entry is to be tried, and that entry; nil if there is none now.
func (f *frozenSlots) pick() (fs *frozenSlot, it item, home string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for _, fs := range f.slots {
		switch {
		case !fs.whole || fs.busy || fs.thawing || now.Before(f.nextOf(fs)):
		case len(fs.queue) == 0:
			f.thaw(fs)
		default:
			fs.busy = true
			signal(f.due) // there may be another one
			return fs, fs.queue[0], fs.home
		}
	}
	return nil, item{}, ""
}

// nextOf returns when a slot is to be tried. While the cluster is down all of them may be frozen, and one at a time
// finds out whether it still is. The mutex must be held.
func (f *frozenSlots) nextOf(fs *frozenSlot) time.Time {
	if fs.err != nil && fs.err.Code == "CLUSTERDOWN" && fs.next.Before(f.down) {
		return f.down
	}
	return fs.next
}

// thaw gives a slot to the dispatcher. The mutex must be held.
func (f *frozenSlots) thaw(fs *frozenSlot) {
	fs.thawing = true
	f.thawing = append(f.thawing, fs)
	signal(f.c.d.moves)
}

// rest returns how long nothing is to be done.
func (f *frozenSlots) rest() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	wait := time.Hour
	for _, fs := range f.slots {
		if fs.whole && !fs.busy && !fs.thawing {
			wait = min(wait, time.Until(f.nextOf(fs)))
		}
	}
	return max(wait, time.Millisecond)
}

// outcome notes what has become of a slot's oldest entry.
func (f *frozenSlots) outcome(fs *frozenSlot, it item, a answer) error {
	taken, err := a.taken, error(nil)
	if !taken && a.refused != nil && classify(a.refused) == actData {
		taken, err = f.decide(it, a.refused)
	}
	if taken {
		f.c.d.progress()
		f.c.d.completeAt(a.at, it) // before the slot thaws, so that nothing is left to do when none is frozen
	}
	f.mu.Lock()
	now := time.Now()
	fs.busy = false
	fs.home, fs.lost = a.home, false
	if !taken {
		f.putOff(fs, a, now)
		f.mu.Unlock()
		return err
	}
	fs.queue[0] = item{}
	fs.queue = fs.queue[1:]
	fs.moved, fs.next, fs.wait, f.down = now, time.Time{}, 0, time.Time{}
	fs.calm++
	if a.asked {
		fs.calm = 0
	}
	if len(fs.queue) == 0 || !a.asked && (fs.home != fs.from || fs.calm >= calmAfter) {
		f.thaw(fs)
	}
	f.mu.Unlock()
	return err
}

// putOff has a slot wait before its next try. The mutex must be held.
func (f *frozenSlots) putOff(fs *frozenSlot, a answer, now time.Time) {
	if a.refused != nil {
		fs.err = a.refused
		if a.to != "" {
			fs.to = a.to
		}
		if a.refused.Code == "CLUSTERDOWN" {
			f.down = now.Add(longWait)
		}
	}
	if a.strange || a.refused == nil {
		fs.lost, f.doubts = true, true
		signal(f.c.d.moves)
	}
	fs.calm = 0
	fs.wait = min(max(2*fs.wait, shortWait), longWait)
	fs.next = now.Add(fs.wait)
}

// decide is about an entry that is refused for what it is. It reports whether the entry is done with.
func (f *frozenSlots) decide(it item, e *resp.Error) (done bool, err error) {
	d := f.c.d
	switch {
	case d.replayed(it, e), d.existing(it, e), told(it, e):
		return true, nil
	case d.cfg.OnError == OnErrorHold:
		return false, nil
	case d.cfg.OnError == OnErrorSkip:
		return d.skip(it, e), nil
	}
	return false, d.refusal(it, e)
}

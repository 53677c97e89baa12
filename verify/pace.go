package verify

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	pingEvery   = 100 * time.Millisecond
	pingsKept   = 7                // whose median counts
	leastNormal = time.Millisecond // what a server answers within counts as normal
	shortPause  = time.Millisecond
	mostPause   = 250 * time.Millisecond
)

// pace slows reading down: to a number of keys a second, and while a server answers others more slowly than before.
type pace struct {
	rate  int
	pause atomic.Int64 // between chunks, while a server is slow

	mu   sync.Mutex // guards the following
	free time.Time  // when the next key may be read
}

// wait returns when n keys more may be read.
func (p *pace) wait(ctx context.Context, n int) error {
	until := time.Now().Add(time.Duration(p.pause.Load()))
	if p.rate > 0 {
		p.mu.Lock()
		p.free = latest(p.free, time.Now().Add(-100*time.Millisecond))
		until = latest(until, p.free)
		p.free = p.free.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
		p.mu.Unlock()
	}
	return sleep(ctx, time.Until(until))
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sleep returns why ctx ended, or nil after d.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// watch pings every node of both ends and slows down while one takes more than twice as long as at the beginning.
func (p *pace) watch(ctx context.Context, sides ...*side) error {
	var slow sync.Map // by address
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range sides {
		for _, addr := range s.nodes() {
			group.Go(func() error {
				p.watchNode(ctx, s, addr, func(is bool) { slow.Store(addr, is) })
				return nil
			})
		}
	}
	group.Go(func() error {
		for sleep(ctx, pingEvery) == nil {
			one := false
			slow.Range(func(_, is any) bool {
				one = one || is == true
				return !one
			})
			p.adjust(one)
		}
		return nil
	})
	return group.Wait()
}

// adjust doubles the pause while a server is slow, and halves it when none is.
func (p *pace) adjust(slow bool) {
	switch now := time.Duration(p.pause.Load()); {
	case slow:
		p.pause.Store(int64(min(max(2*now, shortPause), mostPause)))
	case now < shortPause:
		p.pause.Store(0)
	default:
		p.pause.Store(int64(now / 2))
	}
}

// watchNode tells after each ping whether the node is slow. A node that is gone is not.
func (p *pace) watchNode(ctx context.Context, s *side, addr string, tell func(slow bool)) {
	w := s.wires()
	defer w.close()
	var last []time.Duration
	normal := time.Duration(0)
	for sleep(ctx, pingEvery) == nil {
		c, err := w.to(ctx, addr)
		if err != nil {
			tell(false)
			_ = sleep(ctx, time.Second)
			continue
		}
		sent := time.Now()
		c.add("PING")
		if _, err := c.ask(); err != nil {
			w.drop(addr)
			continue
		}
		if last = append(last, time.Since(sent)); len(last) > pingsKept {
			last = last[1:]
		}
		sorted := slices.Sorted(slices.Values(last))
		median := sorted[len(sorted)/2]
		if normal == 0 {
			normal = max(median, leastNormal)
		}
		tell(median > 2*normal)
	}
}

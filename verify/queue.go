package verify

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/haul"
)

// item is a key that is looked at again, until it is known to be the same, or to differ.
type item struct {
	key      haul.KeyName
	big      bool // it is compared in pieces
	whole    bool // it never is: only DUMP reads it
	step     *step
	tries    int
	changes  int       // how often it has changed while it was looked at
	votes    int       // looks in a row at which it was equal, though it was not known whether the haul had come so far
	due      time.Time // when it is looked at again
	elements *elements // of a big value, those that differed
}

const (
	mostReady = 2048 // that wait to be looked at, before reading goes on
	groupKeys = 64   // that are watched at once on one connection
)

// queue holds the keys that are looked at again.
type queue struct {
	mu      sync.Mutex // guards the following
	ready   []*item
	later   []*item
	working int           // items that are being looked at
	news    chan struct{} // closed and made anew when something has changed
}

func newQueue() *queue { return &queue{news: make(chan struct{})} }

// changed wakes whoever waits. The caller holds mu.
func (q *queue) changed() {
	close(q.news)
	q.news = make(chan struct{})
}

// put adds an item, as soon as there is room.
func (q *queue) put(ctx context.Context, it *item) error {
	for {
		q.mu.Lock()
		if len(q.ready)+len(q.later) < mostReady {
			q.ready = append(q.ready, it)
			q.changed()
			q.mu.Unlock()
			return nil
		}
		news := q.news
		q.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take returns items that are looked at together: of one kind, and as calm as the first. Each has to be given back, or
// settled.
func (q *queue) take(ctx context.Context) ([]*item, error) {
	for {
		q.mu.Lock()
		wait := q.promote()
		if len(q.ready) > 0 {
			group := q.group()
			q.working += len(group)
			q.changed()
			q.mu.Unlock()
			return group, nil
		}
		news := q.news
		q.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-news:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// promote makes those ready that are due, and returns when the next will be. The caller holds mu.
func (q *queue) promote() time.Duration {
	wait, now := time.Hour, time.Now()
	q.later = slices.DeleteFunc(q.later, func(it *item) bool {
		left := it.due.Sub(now)
		if left > 0 {
			wait = min(wait, left)
			return false
		}
		q.ready = append(q.ready, it)
		return true
	})
	return wait
}

// group takes the first that is ready, and others that are like it: a group is as good as its least calm key. The caller
// holds mu.
func (q *queue) group() []*item {
	first := q.ready[0]
	most := max(groupKeys>>(2*min(first.changes, 8)), 1)
	if first.big {
		most = 1
	}
	var group []*item
	q.ready = slices.DeleteFunc(q.ready, func(it *item) bool {
		if len(group) == most || it.big != first.big || it.changes != first.changes || min(it.tries, quickLooks) != min(first.tries, quickLooks) {
			return false
		}
		group = append(group, it)
		return true
	})
	return group
}

// back puts an item aside for a while.
func (q *queue) back(it *item, pause time.Duration) {
	it.due = time.Now().Add(pause)
	q.mu.Lock()
	q.later = append(q.later, it)
	q.working--
	q.changed()
	q.mu.Unlock()
}

// settle ends an item.
func (q *queue) settle(it *item) {
	it.step.done()
	q.mu.Lock()
	q.working--
	q.changed()
	q.mu.Unlock()
}

// size is how many items there are.
func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.ready) + len(q.later) + q.working
}

// drain returns when there is none left.
func (q *queue) drain(ctx context.Context) error {
	for {
		q.mu.Lock()
		left, news := len(q.ready)+len(q.later)+q.working, q.news
		q.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

package haul

import (
	"context"
	"slices"
	"sync"
)

// Pool is a bound in bytes that the channels of several links share. Each has a reserve that the others leave free, so
// that a link that stands still cannot keep another from going on. What no reserve needs is for whoever comes first.
type Pool struct {
	bound   int64
	reserve int64 // of each member

	mu      sync.Mutex // guards the following and what members have used
	used    int64
	members []*share
	waiting []*claim
}

// NewPool returns a pool of bound bytes (at least half of MinBound for each reserve) for some links. More may join later: up to twice as many keep their reserve.
func NewPool(bound int64, links int) *Pool {
	const least = 4 // links that are reserved for
	reserves := int64(2 * max(links, least))
	bound = max(bound, reserves*MinBound/2)
	return &Pool{bound: bound, reserve: bound / reserves}
}

// Channel returns a channel that takes part in the pool until Leave.
func (p *Pool) Channel() *Channel { return newChannel(p) }

// share is one member's part of a pool.
type share struct {
	pool *Pool
	used int64
}

// claim is a member that waits for n bytes.
type claim struct {
	share *share
	n     int64
	ready chan struct{}
}

func (p *Pool) join() *share {
	s := &share{pool: p}
	p.mu.Lock()
	p.members = append(p.members, s)
	p.mu.Unlock()
	return s
}

// leave gives the member's reserve to the others.
func (s *share) leave() {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	p.members = slices.DeleteFunc(p.members, func(m *share) bool { return m == s })
	p.grant()
}

// fits tells whether a member may have n bytes more. The pool must be locked.
func (s *share) fits(n int64) bool {
	p := s.pool
	if p.used+n > p.bound {
		return false
	}
	if s.used+n <= p.reserve {
		return true
	}
	committed := s.used + n
	for _, m := range p.members {
		if m != s {
			committed += max(m.used, p.reserve)
		}
	}
	return committed <= p.bound
}

// acquire takes n bytes, waiting until the pool has them. It returns the cause if ctx ends first.
func (s *share) acquire(ctx context.Context, n int64) error {
	p := s.pool
	p.mu.Lock()
	if !p.queued(s) && s.fits(n) {
		s.take(n)
		p.mu.Unlock()
		return nil
	}
	c := &claim{s, n, make(chan struct{})}
	p.waiting = append(p.waiting, c)
	p.mu.Unlock()
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.waiting, c)
	if i < 0 { // it was granted meanwhile
		s.take(-n)
	} else {
		p.waiting = slices.Delete(p.waiting, i, i+1)
	}
	p.grant()
	return context.Cause(ctx)
}

// queued tells whether a member waits already. The pool must be locked.
func (p *Pool) queued(s *share) bool {
	return slices.ContainsFunc(p.waiting, func(c *claim) bool { return c.share == s })
}

func (s *share) take(n int64) {
	s.used += n
	s.pool.used += n
}

func (s *share) release(n int64) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	s.take(-n)
	p.grant()
}

// grant gives those that wait what they may have, in the order in which they came. The pool must be locked.
func (p *Pool) grant() {
	left := p.waiting[:0]
	for _, c := range p.waiting {
		if c.share.fits(c.n) {
			c.share.take(c.n)
			close(c.ready)
		} else {
			left = append(left, c)
		}
	}
	clear(p.waiting[len(left):])
	p.waiting = left
}

package main

import (
	"context"
	"net"
	"sync"

	"golang.org/x/sync/semaphore"
)

// forks bounds how many snapshots the shards of a source make at once, since each is a fork there: so many in all, and one
// on each host.
type forks struct {
	all *semaphore.Weighted

	mu    sync.Mutex
	hosts map[string]*semaphore.Weighted
}

func newForks(most int) *forks {
	return &forks{all: semaphore.NewWeighted(int64(most)), hosts: make(map[string]*semaphore.Weighted)}
}

// acquire waits until the server at addr may be asked for a snapshot.
func (f *forks) acquire(ctx context.Context, addr string) (release func(), err error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr
	}
	f.mu.Lock()
	one := f.hosts[host]
	if one == nil {
		one = semaphore.NewWeighted(1)
		f.hosts[host] = one
	}
	f.mu.Unlock()
	if err := one.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	if err := f.all.Acquire(ctx, 1); err != nil {
		one.Release(1)
		return nil, context.Cause(ctx)
	}
	return func() {
		f.all.Release(1)
		one.Release(1)
	}, nil
}

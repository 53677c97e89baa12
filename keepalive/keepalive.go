// Package keepalive decides when a connection that has nothing to say is pinged, when one that does not answer is
// called dead, and how long to wait before the next try of one that failed.
package keepalive

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// Limits of the interval between pings.
const (
	MinInterval = time.Second
	MaxInterval = 30 * time.Second
)

// askEvery is how often the server is asked for its timeout again: an operator may have changed it.
const askEvery = time.Minute

// Interval returns the time between pings for a server that closes clients which were idle for timeout (its setting of
// that name; 0 means never): a third of it, within the limits.
func Interval(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return MaxInterval
	}
	return min(max(timeout/3, MinInterval), MaxInterval)
}

// Verdict is what a probe has found.
type Verdict uint8

// Verdicts. Busy is a server whose machine accepts connections while it does not answer: it works on a slow command,
// or is stopped. Alive is one that answers on another connection.
const (
	Busy Verdict = iota + 1
	Alive
	Unreachable
)

// Lane is a connection that is kept.
type Lane interface {
	// Ping queues a PING, unless something was written in the latter half of the interval, or the lane is in use.
	Ping()
	// AskTimeout queues the question for the server's timeout.
	AskTimeout()
	// Stalled returns for how long something was due from the server; 0 if nothing is.
	Stalled() time.Duration
	// Probe asks the server for a sign of life on a second connection.
	Probe(ctx context.Context) Verdict
}

// ErrDead says that a connection's path is dead: its server answers elsewhere, or cannot be reached any more.
var ErrDead = errors.New("connection is dead")

// Keeper keeps one lane.
type Keeper struct {
	ReplyTimeout time.Duration // a reply that is due for longer calls for a probe

	interval atomic.Int64
	fixed    bool
}

// NewKeeper returns a keeper. fixed, unless 0, is the interval between pings whatever the server says.
func NewKeeper(replyTimeout, fixed time.Duration) *Keeper {
	k := &Keeper{ReplyTimeout: replyTimeout, fixed: fixed > 0}
	k.interval.Store(int64(MaxInterval))
	if fixed > 0 {
		k.interval.Store(int64(fixed))
	}
	return k
}

// SetTimeout tells the keeper the server's timeout.
func (k *Keeper) SetTimeout(timeout time.Duration) {
	if !k.fixed {
		k.interval.Store(int64(Interval(timeout)))
	}
}

// Interval returns the time between pings, before jitter.
func (k *Keeper) Interval() time.Duration { return time.Duration(k.interval.Load()) }

// Run keeps the lane until ctx ends, and returns nil, or until it is dead, and returns ErrDead.
func (k *Keeper) Run(ctx context.Context, lane Lane) error {
	asked := time.Now()
	for {
		interval := k.Interval()
		wait := min(interval-time.Duration(rand.Int64N(int64(interval/10)+1)), max(k.ReplyTimeout/4, time.Millisecond))
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if stalled := lane.Stalled(); stalled >= k.ReplyTimeout {
			switch lane.Probe(ctx) {
			case Alive:
				return fmt.Errorf("%w: no reply for %v, though the server answers on another one", ErrDead, stalled.Round(time.Second))
			case Unreachable:
				return fmt.Errorf("%w: no reply for %v, and no new connection", ErrDead, stalled.Round(time.Second))
			}
			continue
		}
		if time.Since(asked) >= askEvery {
			lane.AskTimeout()
			asked = time.Now()
			continue
		}
		lane.Ping()
	}
}

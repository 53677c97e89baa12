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

// patience is how long a server that answers elsewhere may take to answer here as well.
const patience = time.Second

// Limits of the interval between pings.
const (
	MinInterval = time.Second
	MaxInterval = 30 * time.Second
)

// askEvery is how often the server is asked for its timeout again: an operator may have changed it.
const askEvery = time.Minute

// Interval returns the time between pings for a server that closes clients which were idle for timeout (its setting of
// that name; 0 means never): a third of it, within the limits, but never more than half of it.
func Interval(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return MaxInterval
	}
	return min(max(timeout/3, MinInterval), timeout/2, MaxInterval)
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

// Run keeps the lane until ctx ends, and returns nil, or until it is dead, and returns ErrDead. It looks after replies
// that do not come more often than it pings, if the interval between pings is a long one.
func (k *Keeper) Run(ctx context.Context, lane Lane) error {
	asked, pinged, early := time.Now(), time.Now(), rand.Float64()
	for {
		interval := k.Interval()
		interval -= time.Duration(early * float64(interval) * jitter)
		wait := min(interval-time.Since(pinged), k.ReplyTimeout/4)
		if !k.fixed {
			wait = min(wait, askEvery-time.Since(asked))
		}
		timer := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if err := k.examine(ctx, lane); err != nil {
			return err
		}
		switch {
		case !k.fixed && time.Since(asked) >= askEvery: // serves as a ping too
			lane.AskTimeout()
			asked = time.Now()
		case time.Since(pinged) >= interval:
			lane.Ping()
		default:
			continue
		}
		pinged, early = time.Now(), rand.Float64()
	}
}

// jitter is the part of an interval by which a ping may be early.
const jitter = 0.1

// examine returns ErrDead if a reply is due for too long and the server is not to blame for it.
func (k *Keeper) examine(ctx context.Context, lane Lane) error {
	if lane.Stalled() < max(k.ReplyTimeout, 1) {
		return nil
	}
	verdict := lane.Probe(ctx)
	stalled := lane.Stalled()
	if stalled < k.ReplyTimeout || ctx.Err() != nil { // the server went on when it was asked, or there is no lane any more
		return nil
	}
	if verdict == Alive { // what was answered on the other connection may be answered on this one a moment later
		select {
		case <-time.After(min(k.ReplyTimeout/4, patience)):
		case <-ctx.Done():
		}
		if lane.Stalled() < stalled {
			return nil
		}
	}
	switch verdict {
	case Alive:
		return fmt.Errorf("%w: no reply for %v, though the server answers on another one", ErrDead, stalled.Round(time.Second))
	case Unreachable:
		return fmt.Errorf("%w: no reply for %v, and no new connection", ErrDead, stalled.Round(time.Second))
	}
	return nil
}

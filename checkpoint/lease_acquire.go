package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/keepalive"
)

// heldError says that another worker has the lease.
type heldError struct{ claim }

func (e *heldError) Error() string { return "the lease is held by worker " + e.worker }

// watch is what a waiting worker has seen of the holder.
type watch struct {
	claim           // as last seen; no worker before the first look
	since time.Time // the counter stands still since then
	alone time.Time // since then no connection of the holder was seen; zero if one was
	asked time.Time // when connections were looked for
	blind bool      // the servers do not list connections
	free  bool      // the lease may be taken from this claim
	told  bool      // held was called
}

// Acquire takes the lease: at once if nobody has it, if it was released, or if its holder has no connection to any
// node; otherwise when the holder's counter has stood still for Silence. While the counter moves, the error is one of
// haul.ExitHeld, or with wait, held is called once and waiting goes on. When Acquire returns nil, the connections of
// all earlier workers are gone from every node, so that nothing of theirs is carried out any more. It tries until ctx
// ends.
func (l *Lease) Acquire(ctx context.Context, wait bool, held func(worker string)) error {
	l.mu.Lock()
	l.lost, l.held = nil, false
	l.mu.Unlock()
	var w watch
	backoff := keepalive.Backoff{}
	for {
		pause := min(l.cfg.Every/3, time.Second)
		err := l.take(ctx, &w)
		var other *heldError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("acquire the lease: %w", context.Cause(ctx))
		case errors.As(err, &other):
			backoff.Reset()
			if w.see(other.claim) {
				if !wait {
					return haul.Errorf(haul.ExitHeld, "stop that worker first, or let this one wait for it",
						"haul %q is being worked on by worker %s%s", l.store.cfg.Name, other.worker, l.where(ctx, other.worker))
				}
				if !w.told && held != nil {
					held(other.worker)
				}
				w.told = true
			}
			if l.abandoned(ctx, &w) {
				w.free = true
				continue
			}
			if !w.alone.IsZero() {
				pause = min(pause, secondLook)
			}
		case !heals(err) && !errors.Is(err, ErrTaken) && !errors.Is(err, ErrGone):
			return err
		default:
			pause = backoff.Next()
			l.cfg.Log.Warn().Err(err).Dur("wait", pause).Msg("cannot acquire the lease yet")
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("acquire the lease: %w", err)
		}
	}
}

// where says from where a worker is connected, if that can be known.
func (l *Lease) where(ctx context.Context, worker string) string {
	if from, _, err := l.store.connected(ctx, worker); err == nil && from != "" {
		return ", which is connected to the target from " + from
	}
	return ""
}

// secondLook is when a holder is looked for again that had no connection: after the first pauses of a worker whose
// target was restarted.
const secondLook = 300 * time.Millisecond

// see notes what the lease holds, and tells whether its holder has shown itself alive since the last look.
func (w *watch) see(c claim) (moved bool) {
	moved = w.worker != "" && c != w.claim
	if moved || w.worker == "" {
		*w = watch{claim: c, since: time.Now(), blind: w.blind, told: w.told}
	}
	return moved
}

// abandoned tells whether the lease may be taken from its holder. A holder is without connections for a moment also
// when the target was restarted, so they are looked for twice.
func (l *Lease) abandoned(ctx context.Context, w *watch) bool {
	if time.Since(w.since) > l.cfg.Silence {
		return true
	}
	again := min(l.cfg.Every/3, time.Second) / 2
	if !w.alone.IsZero() {
		again = min(again, secondLook/2)
	}
	if w.blind || time.Since(w.asked) < again {
		return false
	}
	asking := time.Now()
	from, known, err := l.store.connected(ctx, w.worker)
	w.asked, w.blind = time.Now(), !known
	if err != nil || from != "" || !known {
		w.alone = time.Time{}
		return false
	}
	if w.alone.IsZero() {
		w.alone = asking
		return false
	}
	return true
}

// take tries once to make the lease this worker's, and then ends the connections of its predecessors. The error is a
// *heldError if another worker has it.
func (l *Lease) take(ctx context.Context, w *watch) error {
	began := time.Now()
	err := l.swap(ctx, func(text string, found bool) (claim, error) {
		mine := claim{epoch: 1, worker: l.cfg.Worker, counter: 1}
		if !found {
			return mine, nil
		}
		is, err := parseClaim(text)
		if err != nil {
			return claim{}, l.store.unreadable(err)
		}
		mine.epoch = is.epoch + 1
		switch {
		case is.worker == l.cfg.Worker:
			mine.epoch, mine.counter = is.epoch, is.counter+1
		case is.worker != "" && (!w.free || is != w.claim):
			return claim{}, &heldError{is}
		}
		return mine, nil
	})
	if time.Since(began) > l.cfg.Every {
		w.since = time.Now() // the target stood still itself, and the holder could not renew
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	epoch, cleared := l.mine.epoch, l.cleared
	l.mu.Unlock()
	if epoch != cleared {
		if err := l.succeed(ctx); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.held, l.lost, l.cleared = true, nil, epoch
	l.mu.Unlock()
	l.store.lease.Store(l)
	return nil
}

// succeed ends the connections of earlier workers. It renews the lease meanwhile: a node may take long to answer, and
// the next one in line watches.
func (l *Lease) succeed(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	running := make(chan struct{})
	go func() {
		defer close(running)
		if err := l.Run(ctx); ctx.Err() == nil {
			cancel(err) // taken over by the next one
		}
	}()
	defer func() {
		cancel(nil)
		<-running
	}()
	backoff := keepalive.Backoff{}
	for {
		allowed, err := l.store.evictOthers(ctx, l.cfg.Worker)
		if err == nil && !allowed {
			l.cfg.Log.Warn().Msg("the target does not allow CLIENT LIST and CLIENT KILL: what an earlier worker has sent may still be carried out")
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		wait := backoff.Next()
		l.cfg.Log.Warn().Err(err).Dur("wait", wait).Msg("cannot end the connections of earlier workers yet")
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// swap reads the lease, and sets it to what decide says unless it was changed meanwhile; then it begins anew. Its
// connection is kept. An attempt takes no longer than Silence: what comes later confirms nothing.
func (l *Lease) swap(ctx context.Context, decide func(text string, found bool) (claim, error)) error {
	l.link.Lock()
	defer l.link.Unlock()
	ctx, cancel := context.WithTimeoutCause(ctx, l.cfg.Silence, fmt.Errorf("no answer within %v", l.cfg.Silence))
	defer cancel()
	for {
		if l.conn == nil {
			target, err := l.store.look(ctx, true)
			if err != nil {
				return err
			}
			if l.conn, err = l.store.dial(ctx, target.owner().addr, false); err != nil {
				return err
			}
		}
		broken, err := l.swapOnce(ctx, decide)
		if errors.Is(err, errAborted) {
			continue
		}
		if broken {
			l.drop()
		}
		return err
	}
}

// swapOnce also tells whether the connection must not be used any more.
func (l *Lease) swapOnce(ctx context.Context, decide func(text string, found bool) (claim, error)) (broken bool, err error) {
	if l.store.cfg.NoTransactions {
		return l.swapPlainly(ctx, decide)
	}
	key := l.store.Keys().Lease()
	var b batch
	b.add("WATCH", key)
	b.add("GET", key)
	b.add("MULTI") // refused before SET is sent, which would be carried out
	replies, err := l.conn.ask(ctx, &b)
	if err != nil {
		return true, l.conn.fail("read the lease", err)
	}
	next, err := decide(replies[1].Text, !replies[1].Null)
	if err != nil {
		_, failed := l.conn.do(ctx, "DISCARD")
		return failed != nil, err
	}
	sent := l.clock()
	if err := l.conn.finish(ctx, [][]string{{"SET", key, next.String()}}); err != nil {
		return !errors.Is(err, errAborted), err
	}
	l.confirmed(next, sent)
	return false, nil
}

// swapPlainly is swapOnce on a target without transactions: between reading and writing another worker may do the same.
func (l *Lease) swapPlainly(ctx context.Context, decide func(text string, found bool) (claim, error)) (broken bool, err error) {
	key := l.store.Keys().Lease()
	is, err := l.conn.do(ctx, "GET", key)
	if err != nil {
		return true, err
	}
	next, err := decide(is.Text, !is.Null)
	if err != nil {
		return false, err
	}
	sent := l.clock()
	if _, err := l.conn.do(ctx, "SET", key, next.String()); err != nil {
		return true, err
	}
	l.confirmed(next, sent)
	return false, nil
}

// confirmed notes that the target holds the lease as next, which was sent at a time.
func (l *Lease) confirmed(next claim, sent time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mine, l.at, l.sent = next, l.conn.addr, sent
}

// hangUp closes the lease's connection.
func (l *Lease) hangUp() {
	l.link.Lock()
	defer l.link.Unlock()
	l.drop()
}

// drop is hangUp for those who hold link.
func (l *Lease) drop() {
	if l.conn != nil {
		_ = l.conn.Close()
		l.conn = nil
	}
}

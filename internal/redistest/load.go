package redistest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	loadTick     = 10 * time.Millisecond
	loadBatch    = 200 // units in a batch at most
	loadPatience = 3 * time.Second
	loadAttempts = 8 // to deliver what a cluster redirects
)

// Mix is what a Load writes.
type Mix int

const (
	// MixPlain are the usual commands on a few types, spread evenly over the keys.
	MixPlain Mix = iota
	// MixHard are commands that are hard to replicate exactly once: about half of them change something twice when they
	// are repeated. Consumer groups, transactions, scripts, commands with several keys and sessions of 1 to 20 seconds
	// that are renewed are among them. Half of the choices fall on a few hot keys.
	MixHard
	// MixCross are commands whose keys are anywhere, among others that change the same keys twice when they are repeated.
	// It is for a server.
	MixCross
)

// Load are live writers with a mix of commands, for a server or a cluster. They go on when the server restarts or
// fails over, and follow redirections.
type Load struct {
	Endpoint  Endpoint
	Mix       Mix
	Tagged    bool   // commands with several keys, and transactions, keep to one hash tag: for a target that is a cluster
	Rate      int    // units a second over all writers (a unit is a command or a transaction); 0 is as fast as it goes
	Seed      uint64 // chooses commands, keys and values
	Writers   int    // connections; 2 if 0
	Keys      int    // of each type; 2000 if 0
	Databases int    // written to, from 0 up; 1 if 0. A cluster takes 1.

	clustered bool // the endpoint is a cluster
}

// LoadCounts are what a Load did.
type LoadCounts struct {
	Units       int64 // answered
	Errors      int64 // error replies that are no redirection
	FirstError  string
	Redirected  int64            // units sent again after MOVED, ASK, TRYAGAIN, LOADING and the like
	Refusals    map[string]int64 // errors, by their code
	Dropped     int64            // units given up after redirections, never executed
	Disconnects int64            // each may have left a batch executed in part
}

// Run writes until ctx ends, which is no error, and returns once what was sent is answered: what it wrote is in the
// server then. It fails only if the load cannot start.
func (l Load) Run(ctx context.Context) (LoadCounts, error) {
	to, err := newSide(ctx, "load", l.Endpoint)
	if err != nil {
		return LoadCounts{}, err
	}
	l.clustered = to.table != nil
	l.Tagged = l.Tagged || l.clustered
	writers := cmp.Or(l.Writers, 2)
	l.Keys = cmp.Or(l.Keys, 2000)
	l.Databases = cmp.Or(l.Databases, 1)
	var total LoadCounts
	var mu sync.Mutex // guards total
	var wg sync.WaitGroup
	for n := range writers {
		wg.Go(func() {
			w := &loadWriter{load: l, content: content{rand.New(rand.NewPCG(l.Seed, uint64(n)))}, ep: l.Endpoint, unacked: make(map[int][]pendingEntry)}
			w.run(ctx, float64(l.Rate)/float64(writers))
			mu.Lock()
			defer mu.Unlock()
			total.add(w.counts)
		})
	}
	wg.Wait()
	return total, nil
}

func (c *LoadCounts) add(o LoadCounts) {
	c.Units += o.Units
	c.Errors += o.Errors
	c.FirstError = cmp.Or(c.FirstError, o.FirstError)
	c.Redirected += o.Redirected
	if c.Refusals == nil {
		c.Refusals = make(map[string]int64)
	}
	for code, n := range o.Refusals {
		c.Refusals[code] += n
	}
	c.Dropped += o.Dropped
	c.Disconnects += o.Disconnects
}

// unit is what a writer sends as a whole to the owner of key: a command, a few, or MULTI to EXEC.
type unit struct {
	key      string
	commands [][]string
	expected []string                   // beginnings of error replies that are none: another writer was faster
	answered func(replies []resp.Reply) // called with the replies when it was executed, if set
}

// loadWriter is one writer of a Load.
type loadWriter struct {
	content
	load    Load
	ep      Endpoint // its addresses turn, so that a dead one is not asked for ever
	sess    *session
	db      int                    // that the next units are for
	unacked map[int][]pendingEntry // by database
	counts  LoadCounts
}

// run sends batches until ctx ends. What is on its way then is waited for.
func (w *loadWriter) run(ctx context.Context, rate float64) {
	defer w.hangUp()
	began, due := time.Now(), 0.0
	for ctx.Err() == nil {
		n := loadBatch
		if rate > 0 {
			if n = min(int(time.Since(began).Seconds()*rate-due), loadBatch); n <= 0 {
				sleep(ctx, loadTick)
				continue
			}
			due += float64(n)
		}
		if w.load.Databases > 1 {
			w.db = w.IntN(w.load.Databases)
		}
		next := w.next
		switch w.load.Mix {
		case MixHard:
			next = func() unit { return hardMix.pick(w) }
		case MixCross:
			next = func() unit { return crossMix.pick(w) }
		}
		units := make([]unit, n)
		for i := range units {
			units[i] = next()
		}
		if err := w.deliver(context.WithoutCancel(ctx), w.db, units); err != nil {
			w.counts.Disconnects++
			w.hangUp()
			sleep(ctx, 2*loadTick)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (w *loadWriter) hangUp() {
	if w.sess != nil {
		w.sess.close()
		w.sess = nil
	}
}

// deliver sends units, again where a server refuses to execute them for now.
func (w *loadWriter) deliver(ctx context.Context, db int, units []unit) error {
	for attempt := range loadAttempts {
		if attempt > 0 {
			w.counts.Redirected += int64(len(units))
			w.hangUp()
			time.Sleep(time.Duration(attempt) * loadTick)
		}
		bctx, cancel := context.WithTimeout(ctx, loadPatience)
		refused, err := w.send(bctx, db, units)
		cancel()
		if err != nil || len(refused) == 0 {
			return err
		}
		units = refused
	}
	w.counts.Dropped += int64(len(units))
	return nil
}

// send sends each unit once and returns those that were not executed.
func (w *loadWriter) send(ctx context.Context, db int, units []unit) ([]unit, error) {
	if w.sess == nil {
		w.ep.Addrs = append(w.ep.Addrs[1:len(w.ep.Addrs):len(w.ep.Addrs)], w.ep.Addrs[0])
		s, err := newSide(ctx, "load", w.ep)
		if err != nil {
			return nil, err
		}
		w.sess = s.session()
	}
	keys := make([]string, len(units))
	for i, u := range units {
		keys[i] = u.key
	}
	var refused []unit
	for addr, part := range w.sess.split(keys) {
		p, err := w.sess.node(ctx, addr, db)
		if err != nil {
			return nil, err
		}
		for _, i := range part {
			for _, command := range units[i].commands {
				p.add(command...)
			}
		}
		replies, err := p.exchange(ctx)
		if err != nil {
			return nil, err
		}
		for _, i := range part {
			u := units[i]
			mine := replies[:len(u.commands)]
			replies = replies[len(u.commands):]
			later, err := w.judge(ctx, u, mine)
			if err != nil {
				return nil, err
			}
			if later {
				refused = append(refused, u)
			}
		}
	}
	return refused, nil
}

// judge counts a unit by its replies, or tells that it has to be sent again. A single command follows ASK at once; a
// transaction waits for the end of the migration.
func (w *loadWriter) judge(ctx context.Context, u unit, replies []resp.Reply) (later bool, err error) {
	var failed *resp.Error
	for _, r := range replies {
		if errors.As(r.Err(), &failed) {
			if !slices.ContainsFunc(u.expected, func(text string) bool { return strings.HasPrefix(failed.Text, text) }) {
				break
			}
			failed = nil
		}
		for _, inner := range r.Array { // of EXEC
			if errors.As(inner.Err(), &failed) {
				break
			}
		}
	}
	if failed == nil {
		w.counts.Units++
		if u.answered != nil {
			u.answered(replies)
		}
		return false, nil
	}
	if w.counts.Refusals == nil {
		w.counts.Refusals = make(map[string]int64)
	}
	w.counts.Refusals[failed.Code]++
	switch failed.Code {
	case "ASK":
		if _, addr, ok := failed.Redirect(); ok && len(u.commands) == 1 {
			p, err := w.sess.node(ctx, addr, 0)
			if err != nil {
				return false, err
			}
			p.add("ASKING")
			p.add(u.commands[0]...)
			replies, err := p.exchange(ctx)
			if err != nil {
				return false, err
			}
			w.counts.Redirected++
			if replies[1].Err() == nil {
				w.counts.Units++
				return false, nil
			}
		}
		return true, nil
	case "MOVED", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "READONLY", "MASTERDOWN", "BUSY":
		return true, nil
	}
	w.counts.Errors++
	w.counts.FirstError = cmp.Or(w.counts.FirstError, fmt.Sprintf("%s: %s", u.commands[0][0], failed.Text))
	return false, nil
}

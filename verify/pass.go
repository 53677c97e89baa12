package verify

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
)

const (
	lookers  = 4 // connections to each node that read for the first time
	judges   = 8
	scanners = 4 // nodes that are read at once
)

// Verifier is one run, or one that goes on for ever.
type Verifier struct {
	cfg            Config
	source, target *side
	seeds          seeds
	track          *track
	queue          *queue
	pace           *pace
	state          *state
	sourceDBs      []int32 // that hold keys

	count struct{ source, target, total atomic.Int64 }
	pass  atomic.Int32

	mu        sync.Mutex // guards the following
	found     []Difference
	listed    map[haul.KeyName]bool
	uncounted int64
	kinds     map[Kind]int64

	// Of a watch:
	rounds, looked int64
	since          time.Time // when the last complete round began
	standing       []Difference
}

// New prepares a run.
func New(cfg Config) *Verifier {
	return &Verifier{
		cfg:    cfg,
		source: &side{name: "source", dialer: cfg.Source, cluster: cfg.SourceCluster},
		target: &side{name: "target", dialer: cfg.Target, cluster: cfg.TargetCluster},
		seeds:  newSeeds(), track: &track{store: cfg.Store, name: cfg.Name},
		queue: newQueue(), pace: &pace{rate: cfg.MaxRate},
		listed: map[haul.KeyName]bool{}, kinds: map[Kind]int64{},
	}
}

// rules are how facts are compared now.
func (v *Verifier) rules() rules {
	r := rules{
		tolerance: v.cfg.Tolerance.Milliseconds(), grace: v.track.held(),
		fieldTTLs: v.target.release().FieldTTLs(), unsupported: v.cfg.Unsupported,
	}
	s, _ := v.source.about()
	t, _ := v.target.about()
	if !(&conn{node: s}).whole() || !(&conn{node: t}).whole() {
		r.tolerance = max(r.tolerance, 2000)
	}
	return r
}

// Progress returns how far the run is. It may be called at any time.
func (v *Verifier) Progress() Progress {
	v.mu.Lock()
	kinds := maps.Clone(v.kinds)
	v.mu.Unlock()
	return Progress{
		Keys: v.count.source.Load() + v.count.target.Load(), Total: v.count.total.Load(), Pass: int(v.pass.Load()),
		Suspects: int64(v.queue.size()), ByKind: kinds, Paused: time.Duration(v.pace.pause.Load()),
	}
}

// suspect has a key looked at again.
func (v *Verifier) suspect(ctx context.Context, s *step, it *item) error {
	it.step = s
	s.left.Add(1)
	return v.queue.put(ctx, it)
}

// differs notes a difference.
func (v *Verifier) differs(it *item, kind Kind, x *verdict) error {
	d := Difference{Key: it.key, Kind: kind, Source: x.s.text(), Target: x.t.text()}
	err := v.note(d)
	v.queue.settle(it)
	return err
}

// note adds a difference to those that were found in this pass.
func (v *Verifier) note(d Difference) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.listed[d.Key]:
		return nil // SCAN may return a key twice
	case len(v.found) >= maxDifferences:
		v.uncounted++
		v.kinds[d.Kind]++
		return nil
	}
	v.listed[d.Key] = true
	v.found = append(v.found, d)
	v.kinds[d.Kind]++
	return v.state.note(d)
}

// takeFound returns what was found, and begins anew.
func (v *Verifier) takeFound() []Difference {
	v.mu.Lock()
	defer v.mu.Unlock()
	found := v.found
	v.found, v.listed, v.kinds = nil, map[haul.KeyName]bool{}, map[Kind]int64{}
	return found
}

// again calls fn until it succeeds, ctx ends, or an error comes that no later try can mend.
func (v *Verifier) again(ctx context.Context, s, t *wires, fn func() error) error {
	backoff, last := keepalive.Backoff{}, int64(0)
	for {
		err := fn()
		if err == nil {
			return nil
		}
		s.close()
		t.close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.As(err, new(*haul.Error)) {
			return err
		}
		for _, w := range []*wires{s, t} {
			if last := w.lasting(err); last != nil {
				return last
			}
		}
		if keys := v.count.source.Load() + v.count.target.Load(); keys != last { // it went on in between
			backoff, last = keepalive.Backoff{}, keys
		}
		wait := backoff.Next()
		v.cfg.Log.Warn().Err(err).Dur("wait", wait).Msg("the comparison waits for a server")
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		_ = s.refresh(ctx) // if it fails, so will the next try
		_ = t.refresh(ctx)
	}
}

// plan finds what there is to be read on an end.
func (v *Verifier) plan(ctx context.Context, s *side) (units []*unit, err error) {
	w := s.wires()
	defer w.close()
	err = v.again(ctx, w, v.target.wires(), func() error {
		units = nil
		if err := s.refresh(ctx); err != nil {
			return err
		}
		for _, addr := range s.nodes() {
			c, err := w.to(ctx, addr)
			if err != nil {
				return err
			}
			for db, keys := range c.node.Keyspace {
				if s == v.source && v.cfg.DBs.Of(int32(db)) == haul.DropDB {
					continue
				}
				v.count.total.Add(keys)
				if s == v.source && !slices.Contains(v.sourceDBs, int32(db)) {
					v.sourceDBs = append(v.sourceDBs, int32(db))
				}
				units = append(units, &unit{side: s, addr: addr, home: s.view().home(addr), db: int32(db), saved: v.state.unit(s.name, int32(db), c.node.RunID)})
			}
		}
		return nil
	})
	return units, err
}

// read reads all keys of both ends once. It returns when each is known to be the same, or to differ.
func (v *Verifier) read(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	errDone := errors.New("done")
	defer stop(errDone)
	helpers, hctx := errgroup.WithContext(ctx)
	for range judges {
		helpers.Go(func() error { return v.judge().run(hctx) })
	}
	helpers.Go(func() error { return v.pace.watch(hctx, v.source, v.target) })
	helpers.Go(func() error { return v.keepSaving(hctx) })
	err := v.readBoth(hctx)
	if err == nil {
		err = v.queue.drain(hctx)
	}
	stop(errDone)
	if helped := helpers.Wait(); err == nil || errors.Is(err, context.Canceled) {
		if helped != nil && !errors.Is(helped, errDone) {
			return helped
		}
	}
	return err
}

// readBoth reads the source, and then the target, of whose keys only those matter that the source lacks.
func (v *Verifier) readBoth(ctx context.Context) error {
	for _, s := range []*side{v.source, v.target} {
		if err := v.readSide(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// readSide reads all keys of one end. Those of slots that have moved meanwhile are read once more: they may have moved
// from a node that was not read yet to one that was.
func (v *Verifier) readSide(ctx context.Context, s *side) error {
	var moved *topology.SlotSet
	for {
		units, err := v.plan(ctx, s)
		if err != nil {
			return err
		}
		if moved != nil {
			for _, u := range units {
				u.slots, u.saved = moved, &savedUnit{Side: s.name, DB: u.db}
			}
		}
		before := s.view()
		if err := v.scan(ctx, units); err != nil {
			return err
		}
		if before.topo == nil {
			return nil
		}
		w := s.wires()
		if err := v.again(ctx, w, v.target.wires(), func() error { return s.refresh(ctx) }); err != nil {
			return err
		}
		if moved = before.moved(s.view()); moved.Len() == 0 {
			return nil
		}
	}
}

// moved returns the slots that have another owner now.
func (v view) moved(now view) *topology.SlotSet {
	var moved topology.SlotSet
	for slot := range uint16(topology.SlotCount) {
		was, _ := v.topo.Owner(slot)
		if is, _ := now.topo.Owner(slot); is != was {
			moved.Add(slot)
		}
	}
	return &moved
}

// scan hands out the keys of units, and returns when they were looked at.
func (v *Verifier) scan(ctx context.Context, units []*unit) error {
	chunks := make(chan chunk)
	group, ctx := errgroup.WithContext(ctx)
	for range lookers {
		group.Go(func() error { return v.looker().run(ctx, chunks) })
	}
	group.Go(func() error {
		defer close(chunks)
		readers, ctx := errgroup.WithContext(ctx)
		readers.SetLimit(scanners)
		for _, u := range units {
			u.cursor = u.saved.cursor()
			readers.Go(func() error {
				w := u.side.wires()
				defer w.close()
				return v.again(ctx, w, v.target.wires(), func() error { return u.scan(ctx, v, w, chunks) })
			})
		}
		return readers.Wait()
	})
	return group.Wait()
}

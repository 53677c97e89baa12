package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/haul"
)

// Run compares both ends, in as many passes as there is something to look at again.
func (v *Verifier) Run(ctx context.Context) (Result, error) {
	began := time.Now()
	if err := v.begin(ctx); err != nil {
		return Result{}, err
	}
	defer v.state.close()
	r := Result{ByKind: map[Kind]int64{}}
	passes := v.cfg.Passes
	if v.cfg.Repair != nil {
		passes = max(passes, 2) // one that proves it
	}
	for pass := 1; pass <= passes; pass++ {
		v.pass.Store(int32(pass))
		err := v.onePass(ctx, pass, r.Remaining)
		if err != nil {
			_ = v.save()
			return r, err
		}
		r.Passes, r.Remaining, r.Uncounted = pass, v.takeFound(), v.uncounted
		if len(r.Remaining) == 0 || pass == passes {
			break
		}
		if v.cfg.Repair != nil {
			if err := v.repair(ctx, &r); err != nil {
				return r, err
			}
		}
	}
	v.state.forget()
	for _, d := range r.Remaining {
		r.ByKind[d.Kind]++
	}
	r.Keys, r.TargetKeys = v.count.source.Load(), v.count.target.Load()
	r.NoPositions, r.Took = !v.track.known(), time.Since(began)
	return r, nil
}

// begin finds out what is compared, and goes on where an interrupted run has ended.
func (v *Verifier) begin(ctx context.Context) error {
	s, t := v.source.wires(), v.target.wires()
	err := v.again(ctx, s, t, func() error {
		for _, w := range []*wires{s, t} {
			if err := w.refresh(ctx); err != nil {
				return err
			}
			for _, addr := range w.nodes() {
				if _, err := w.to(ctx, addr); err != nil {
					return err
				}
			}
		}
		return v.track.read(ctx)
	})
	s.close()
	t.close()
	if err != nil {
		return err
	}
	if v.track.known() && !v.track.copied {
		return haul.Errorf(haul.ExitRefused, "run it again when keyhaul status says that the snapshot is complete", "the haul %q has not copied everything yet", v.cfg.Name)
	}
	of := fmt.Sprintf("%s %s %s %v %v %d", v.cfg.Source.Endpoint, v.cfg.Target.Endpoint, v.cfg.DBs, v.cfg.KeysOnly, v.cfg.Sample, v.cfg.BigValue)
	var last []Difference
	if v.state, last, err = openState(v.cfg.Dir, of); err != nil {
		return err
	}
	if v.state.Units != nil {
		v.cfg.Log.Info().Int64("keys", v.state.Keys+v.state.Target).Msg("goes on where an interrupted comparison has ended")
	}
	v.count.source.Store(v.state.Keys)
	v.count.target.Store(v.state.Target)
	for _, d := range last {
		v.listed[d.Key] = true
		v.found = append(v.found, d)
		v.kinds[d.Kind]++
	}
	return nil
}

// onePass reads everything, or looks at what the pass before has found.
func (v *Verifier) onePass(ctx context.Context, pass int, found []Difference) error {
	if pass > 1 {
		return v.recheck(ctx, found)
	}
	if err := v.read(ctx); err != nil {
		return err
	}
	return v.functions(ctx)
}

// recheck looks again at what was found.
func (v *Verifier) recheck(ctx context.Context, found []Difference) error {
	again := false
	group, gctx := errgroup.WithContext(ctx)
	jctx, stop := context.WithCancel(gctx)
	defer stop()
	for range judges {
		group.Go(func() error {
			if err := v.judge().run(jctx); jctx.Err() == nil || ctx.Err() != nil {
				return err
			}
			return nil
		})
	}
	group.Go(func() error {
		defer stop()
		for _, d := range found {
			if d.Kind == Function {
				again = true
				continue
			}
			if err := v.queue.put(gctx, keyOf(d)); err != nil {
				return err
			}
		}
		return v.queue.drain(gctx)
	})
	if err := group.Wait(); err != nil || !again {
		return err
	}
	return v.functions(ctx)
}

// repair has what differs written anew.
func (v *Verifier) repair(ctx context.Context, r *Result) error {
	var keys []haul.KeyName
	for _, d := range r.Remaining {
		if d.Kind != Function && d.Kind != Unsupported {
			keys = append(keys, d.Key)
		}
	}
	for len(keys) > 0 {
		n := min(repairKeys, len(keys))
		written, pruned, err := v.cfg.Repair.Repair(ctx, keys[:n], v.cfg.Prune)
		r.Written += written
		r.Pruned += pruned
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, new(*haul.Error)):
			return err
		default: // the next pass tells what is left
			v.cfg.Log.Warn().Err(err).Msg("some keys were not repaired")
		}
		keys = keys[n:]
	}
	return nil
}

package verify

import (
	"context"
	"slices"
	"time"
)

// roundPause is how long a watch rests between two rounds over the keys.
const roundPause = time.Second

// Standing is what a watch knows at a moment.
type Standing struct {
	Progress
	Rounds int64         // over all keys, that are complete
	Looked int64         // keys of the source, in all rounds
	Oldest time.Duration // no key was looked at longer ago; -1 before the first round is complete
	Found  []Difference  // that the last round has found, and looked at again
}

// Watch compares both ends for ever: round after round over all keys. What a round has found is looked at again at its end.
func (v *Verifier) Watch(ctx context.Context) error {
	if err := v.begin(ctx); err != nil {
		return err
	}
	defer v.state.close()
	for {
		began := time.Now()
		if err := v.onePass(ctx, 1, nil); err != nil {
			return err
		}
		if err := v.recheck(ctx, v.takeFound()); err != nil {
			return err
		}
		v.turn(began)
		if err := sleep(ctx, roundPause); err != nil {
			return err
		}
	}
}

// turn ends a round.
func (v *Verifier) turn(began time.Time) {
	found := v.takeFound()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rounds++
	v.looked += v.count.source.Load()
	v.since, v.standing = began, found
	v.count.source.Store(0)
	v.count.target.Store(0)
	v.count.total.Store(0)
	v.uncounted, v.sourceDBs = 0, nil
	v.state.restart()
}

// restart has the next round begin at the beginning.
func (s *state) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Units = nil
}

// Standing returns what a watch knows. It may be called at any time.
func (v *Verifier) Standing() Standing {
	s := Standing{Progress: v.Progress(), Oldest: -1}
	v.mu.Lock()
	defer v.mu.Unlock()
	s.Rounds, s.Looked = v.rounds, v.looked+v.count.source.Load()
	if v.rounds > 0 {
		s.Oldest = time.Since(v.since)
	}
	s.Found = slices.Clone(v.standing)
	s.ByKind = map[Kind]int64{} // of the round that is under way they may not last
	for _, d := range s.Found {
		s.ByKind[d.Kind]++
	}
	return s
}

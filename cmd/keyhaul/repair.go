package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/writer"
)

// repairAnswer says what has become of keys that were to be repaired.
type repairAnswer struct {
	Written int             `json:"written"`
	Pruned  int             `json:"pruned"`
	Left    int             `json:"left"` // not repaired: the source lacks them and prune was not asked for, or they are refused
	Refused []repairRefusal `json:"refused,omitempty"`
}

// repairRefusal is why one key was not repaired.
type repairRefusal struct {
	Index int    `json:"index"` // of the key in the request
	Error string `json:"error"`
	Again bool   `json:"again"` // a later try may succeed
}

// repair writes keys anew on the target, as the source has them and in order with what its links write. After an error
// some may be repaired.
func (m *monitor) repair(ctx context.Context, keys []haul.KeyName, prune bool) (repairAnswer, error) {
	var a repairAnswer
	byWriter := make(map[haul.Writer][]int)
	for i, k := range keys {
		w, err := m.writerOf(k)
		if err != nil {
			a.refuse(i, err)
			continue
		}
		byWriter[w] = append(byWriter[w], i)
	}
	for w, list := range byWriter {
		own := make([]haul.KeyName, len(list))
		for n, i := range list {
			own[n] = keys[i]
		}
		to, ok := w.(writer.Repairer)
		if !ok {
			return a, haul.Errorf(haul.ExitRefused, "repair a target that is a server or a cluster", "the target is a file")
		}
		done, err := to.Repair(ctx, own, prune)
		a.Written += done.Written
		a.Pruned += done.Pruned
		a.Left += done.Lacking
		for _, x := range done.Refused {
			a.refuse(list[x.Index], x.Err)
		}
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

func (a *repairAnswer) refuse(index int, err error) {
	a.Left++
	a.Refused = append(a.Refused, repairRefusal{index, err.Error(), errors.Is(err, writer.ErrRepairAgain)})
}

// writerOf returns the writer of the link that a key of the source belongs to.
func (m *monitor) writerOf(k haul.KeyName) (haul.Writer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.waiter:
		return nil, haul.Errorf(haul.ExitHeld, "ask that one", "another keyhaul runs this haul, and this one stands by")
	case len(m.links) == 0:
		return nil, fmt.Errorf("%w: the haul has not begun", writer.ErrRepairAgain)
	case m.slots == nil:
		return m.links[0].writer, nil
	}
	slot := command.Slot([]byte(k.Name))
	if name, ok := m.slots.linkOf(slot); ok {
		for _, w := range m.links {
			if w.name == name {
				return w.writer, nil
			}
		}
	}
	return nil, fmt.Errorf("%w: slot %d moves between shards of the source", writer.ErrRepairAgain, slot)
}

const (
	repairAtOnce   = 256              // keys that are asked for at once
	repairPatience = 30 * time.Second // with keys that cannot be repaired at the moment
	repairPause    = 300 * time.Millisecond
)

// repairOnce is one try to repair keys. After an error all of them may be tried again if it is a writer.ErrRepairAgain.
type repairOnce func(ctx context.Context, keys []haul.KeyName, prune bool) (repairAnswer, error)

// repairAll repairs keys, and tries for a while again what cannot be repaired at the moment. It returns how many were not, by
// the reason.
func repairAll(ctx context.Context, once repairOnce, keys []haul.KeyName, prune bool) (written, pruned int, refused map[string]int, err error) {
	refused = make(map[string]int)
	began := time.Now()
	for len(keys) > 0 {
		some := keys[:min(len(keys), repairAtOnce)]
		a, err := once(ctx, some, prune)
		written += a.Written
		pruned += a.Pruned
		wait := errors.Is(err, writer.ErrRepairAgain)
		if err != nil && (!wait || time.Since(began) > repairPatience) {
			return written, pruned, refused, err
		}
		var again []haul.KeyName
		for _, x := range a.Refused {
			if x.Again && time.Since(began) < repairPatience {
				again = append(again, some[x.Index])
			} else if err == nil {
				refused[x.Error]++
			}
		}
		if err == nil {
			keys = append(again, keys[len(some):]...)
		}
		if wait || len(again) > 0 {
			select {
			case <-time.After(repairPause):
			case <-ctx.Done():
				return written, pruned, refused, context.Cause(ctx)
			}
			continue
		}
		began = time.Now()
	}
	return written, pruned, refused, nil
}

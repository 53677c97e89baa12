package writer

import (
	"errors"
	"slices"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
)

// errBarrier says that a command concerns every node.
var errBarrier = errors.New("concerns every node")

// slotsOf returns the slots of a command's keys, each once, in order of appearance; none if it has no key and any node
// will do. Errors are errBarrier, and those of command.Spec.Keys.
func slotsOf(b *haul.Batch, c *haul.Command) ([]uint16, error) {
	arg := func(i int) []byte { return b.Arg(c, i) }
	keys, err := keyIndices(c.Spec, int(c.NArg), arg)
	if err != nil {
		return nil, err
	}
	return slotSet(keys, arg), nil
}

func slotSet(keys []int, arg func(int) []byte) []uint16 {
	var slots []uint16
	for _, k := range keys {
		if s := command.Slot(arg(k)); !slices.Contains(slots, s) {
			slots = append(slots, s)
		}
	}
	return slots
}

func keyIndices(spec *command.Spec, n int, arg func(int) []byte) ([]int, error) {
	if spec.Keyless() {
		if spec.Name == "PUBLISH" && n > 1 {
			return []int{1}, nil // any node will do, but always the same one for a channel
		}
		return nil, errBarrier
	}
	return spec.Keys(nil, n, arg)
}

// bigKeys returns the indices of the keys of a command that is read from the spool.
func bigKeys(e *haul.Entry, spec *command.Spec) ([]int, error) {
	var readErr error
	keys, err := keyIndices(spec, len(e.Big.Args), func(i int) []byte {
		p, err := bigArg(e.Big, i)
		if err != nil {
			readErr = err
		}
		return p
	})
	if readErr != nil {
		return nil, &spoolError{readErr}
	}
	return keys, err
}

// bigSlots is slotsOf for a command that is read from the spool.
func bigSlots(e *haul.Entry, spec *command.Spec) ([]uint16, error) {
	keys, err := bigKeys(e, spec)
	if err != nil {
		return nil, err
	}
	var readErr error
	slots := slotSet(keys, func(i int) []byte {
		p, err := bigArg(e.Big, i)
		if err != nil {
			readErr = err
		}
		return p
	})
	if readErr != nil {
		return nil, &spoolError{readErr}
	}
	return slots, nil
}

// entrySlots returns the slots of an entry, and whether each of its commands is either whole in one of them or may be
// split.
func entrySlots(b *haul.Batch, e *haul.Entry) (slots []uint16, apart bool, err error) {
	switch {
	case e.Kind == haul.KindKey:
		return []uint16{command.Slot(b.KeyOf(e).Name)}, true, nil
	case e.Kind == haul.KindFunction:
		return nil, false, errBarrier
	case e.Big != nil:
		spec := b.Commands[e.First].Spec
		slots, err = bigSlots(e, spec)
		return slots, len(slots) < 2 || canSplit(spec), err
	}
	apart = true
	var channels []uint16 // of PUBLISH, which every node takes: it goes with the rest where that is in one place
	cmds := b.CommandsOf(e)
	for i := range cmds {
		if cmds[i].Skip {
			continue
		}
		some, err := slotsOf(b, &cmds[i])
		if err != nil {
			return nil, false, err
		}
		if cmds[i].Spec.Keyless() {
			channels = append(channels, some...)
			continue
		}
		if len(some) > 1 && !canSplit(cmds[i].Spec) {
			apart = false
		}
		slots = addSlots(slots, some)
	}
	if len(slots) != 1 {
		slots = addSlots(slots, channels)
	}
	return slots, apart, nil
}

func addSlots(slots, more []uint16) []uint16 {
	for _, s := range more {
		if !slices.Contains(slots, s) {
			slots = append(slots, s)
		}
	}
	return slots
}

func canSplit(s *command.Spec) bool {
	step, _ := s.Split()
	return step > 0
}

package writer

import (
	"context"
	"errors"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// Some commands cannot be sent to a cluster: their keys are in several slots, or they would meet keys that are ahead of
// the stream. What they leave behind is read from the source and written in their place. A key that was read is ahead:
// it has what the commands up to an offset do to it. So each command is judged by the keys that it writes:
//
//	all of them have what it does       it is covered, and not sent
//	none of its keys is ahead           it is sent, unless its keys span slots
//	otherwise                           those that it writes and that lack it are read, so that it is covered

// uses is what a command does with keys.
type uses struct {
	keys    []haul.KeyName
	results []haul.KeyName // those that it may write
	whole   bool           // it cannot be sent as it is, nor split
}

// uses finds the keys of command i of an entry. A command without keys, of which the router knows what to do, has none.
func (c *cluster) uses(ctx context.Context, it item, i int) (uses, error) {
	b, e := it.batch, it.entry()
	cmd := &b.CommandsOf(e)[i]
	if cmd.Spec.Keyless() || cmd.Spec != nil && cmd.Spec.Name == "SPUBLISH" {
		return uses{}, nil
	}
	n, arg, readErr := argsOf(b, e, cmd)
	index, err := cmd.Spec.Keys(nil, n, arg)
	if *readErr != nil {
		return uses{}, &spoolError{*readErr}
	}
	if errors.Is(err, command.ErrNoSpec) {
		return c.usesUnknown(ctx, it)
	}
	if err != nil || len(index) == 0 {
		return uses{}, err
	}
	var u uses
	for _, k := range index {
		u.keys = append(u.keys, haul.KeyName{DB: cmd.DB, Name: string(arg(k))})
	}
	results := cmd.Spec.Results(index)
	u.results = u.keys
	if len(results) == 1 {
		u.results = nil
		for j, k := range index {
			if k == results[0] {
				u.results = u.keys[j : j+1]
				break
			}
		}
	}
	if to := cmd.Spec.OtherDB(n, arg); to > 0 {
		u.toOtherDB(cmd.Spec, arg(to))
	}
	u.whole = cmd.Spec.ReadsUnnamed(n, arg) && len(index) > 1 || !canSplit(cmd.Spec) && u.spans()
	if *readErr != nil {
		return uses{}, &spoolError{*readErr}
	}
	return u, nil
}

// toOtherDB is about MOVE, which writes its key in two databases, and COPY.
func (u *uses) toOtherDB(spec *command.Spec, db []byte) {
	to, ok := command.ParseDB(db)
	if !ok {
		return
	}
	last := u.keys[len(u.keys)-1]
	last.DB = to
	if spec.Name == "MOVE" {
		u.keys = append(u.keys, last)
		u.results = u.keys
		return
	}
	u.keys[len(u.keys)-1] = last // the result of COPY
}

// usesUnknown asks the target for the keys of a command that only it may know.
func (c *cluster) usesUnknown(ctx context.Context, it item) (uses, error) {
	names, err := c.askKeys(ctx, it)
	if err != nil {
		return uses{}, err
	}
	var u uses
	for _, name := range names {
		u.keys = append(u.keys, haul.KeyName{DB: it.entry().DB, Name: name})
	}
	u.results = u.keys
	u.whole = u.spans()
	return u, nil
}

func (u *uses) spans() bool {
	for _, k := range u.keys {
		if slotOf(k) != slotOf(u.keys[0]) {
			return true
		}
	}
	return false
}

// argsOf gives the arguments of a command, which may have to be read from the spool: then the error is what it leads to.
func argsOf(b *haul.Batch, e *haul.Entry, cmd *haul.Command) (n int, arg func(i int) []byte, readErr *error) {
	readErr = new(error)
	if e.Big == nil {
		return int(cmd.NArg), func(i int) []byte { return b.Arg(cmd, i) }, readErr
	}
	return len(e.Big.Args), func(i int) []byte {
		p, err := bigArg(e.Big, i)
		if err != nil {
			*readErr = err
		}
		return p
	}, readErr
}

// verdict is what becomes of an entry.
type verdict struct {
	need    keySet // keys to be read from the source
	covered []int  // commands that are not sent
	left    bool   // others are
}

// keySet is a set that keeps the order.
type keySet struct {
	list []haul.KeyName
	set  map[haul.KeyName]bool
}

func (s *keySet) has(k haul.KeyName) bool { return s.set[k] }

func (s *keySet) add(k haul.KeyName) {
	if s.set == nil {
		s.set = make(map[haul.KeyName]bool)
	}
	if !s.set[k] {
		s.set[k] = true
		s.list = append(s.list, k)
	}
}

// judge decides on an entry of the stream. Keys in more are going to be read before it, beside those that it needs.
func (c *cluster) judge(ctx context.Context, it item, more *keySet) (verdict, error) {
	b, e := it.batch, it.entry()
	cmds := b.CommandsOf(e)
	all := make([]uses, len(cmds))
	for i := range cmds {
		if cmds[i].Skip {
			continue
		}
		var err error
		if all[i], err = c.uses(ctx, it, i); err != nil {
			return verdict{}, err
		}
	}
	var v verdict
	ahead := func(k haul.KeyName) bool {
		return v.need.has(k) || more.has(k) || c.rereads.table.has(slotOf(k), k, e.End)
	}
	done := make([]bool, len(cmds))
	for again := true; again; { // keys that are read for a later command are read before the earlier ones, too
		again = false
		for i := range all {
			if u := &all[i]; !done[i] && len(u.keys) > 0 && c.covers(e, u, ahead, &v.need) {
				done[i], again = true, true
			}
		}
	}
	for i := range cmds {
		switch {
		case done[i]:
			v.covered = append(v.covered, i)
		case !cmds[i].Skip:
			v.left = true
		}
	}
	return v, nil
}

// covers reports whether a command is covered, once the keys are read that it adds to need.
func (c *cluster) covers(e *haul.Entry, u *uses, ahead func(haul.KeyName) bool, need *keySet) bool {
	lacking := func(k haul.KeyName) bool {
		return !ahead(k) && !c.d.isApplied(slotOf(k), e)
	}
	meets, lacks := false, false
	for _, k := range u.keys {
		meets = meets || ahead(k)
	}
	for _, k := range u.results {
		lacks = lacks || lacking(k)
	}
	if !lacks {
		return true
	}
	if !u.whole && !meets {
		return false
	}
	for _, k := range u.results {
		if lacking(k) {
			need.add(k)
		}
	}
	return true
}

// unjudged reports whether an entry is left to the router, which refuses it or does without knowing its keys.
func unjudged(err error) bool {
	return errors.Is(err, command.ErrNoSpec) || errors.Is(err, command.ErrBadArgs) || errors.As(err, new(*resp.Error))
}

package writer

import (
	"slices"
	"strings"

	"github.com/keyhaul/keyhaul/haul"
)

// rewriter gives commands of the stream the form in which this target takes them from an ordinary client. What becomes of
// an entry takes its place in the batch before slots and fences are thought of: whatever comes behind, sending again
// included, knows nothing else. It belongs to the dispatcher's goroutine.
type rewriter struct {
	d     *dispatcher
	rules []rule // by command.Spec.ID; nil for what passes as it is
	can   abilities

	// the command in hand
	batch *haul.Batch
	index int // of the entry
	cmd   *haul.Command
	big   *haul.Big // set if the entry is
	n     int       // arguments, name included
	err   error     // of reading the spool
	what  string    // the target lacks, if it does

	made draft
	list []madeCommand // what becomes of the entry
	lost bool          // something was left out that the target lacks

	opened bool   // the batch's buffer is in room, to be added to
	room   []byte // of one batch after the other
	old    []byte // the batch's own
}

// madeCommand is one command of what becomes of an entry. big is set if it is read from the spool.
type madeCommand struct {
	haul.Command
	big *haul.Big
}

// A rule looks at the command in hand. What takes its place it writes to made.
type rule func(r *rewriter) outcome

// outcome is what a rule has come to.
type outcome uint8

const (
	passes   outcome = iota // the target takes it as it is
	anew                    // made does the same
	needless                // nothing is left to be done
	lossy                   // made, which may be empty, is what is left without what the target lacks
	emptied                 // the same, but made removes what the command would have replaced: left out, it would go stale
)

func newRewriter(d *dispatcher) *rewriter {
	can := abilitiesOf(d.cfg.Node.Release())
	return &rewriter{d: d, rules: rulesFor(can), can: can}
}

// apply rewrites a batch. An error ends the run.
func (r *rewriter) apply(b *haul.Batch) error {
	r.batch = b
	defer r.close()
	for i := 0; i < len(b.Entries); i++ {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone {
			continue
		}
		if lacks, err := r.lacking(e); err != nil || lacks != "" {
			if err == nil {
				err = r.leaveOut(i, lacks)
			}
			if err != nil {
				return err
			}
			continue
		}
		if e.Kind != haul.KindCommand && e.Kind != haul.KindTransaction || !r.concerns(b, e) {
			continue
		}
		more, err := r.entry(i)
		if err != nil {
			return err
		}
		i += more
	}
	return nil
}

// own rewrites a batch of the writer's own: values that were read from the source.
func (r *rewriter) own(b *haul.Batch) {
	if err := r.apply(b); err != nil {
		r.d.fatal(err)
	}
}

// concerns reports whether there is a rule for a command of an entry.
func (r *rewriter) concerns(b *haul.Batch, e *haul.Entry) bool {
	for i := e.First; i < e.First+e.N; i++ {
		if spec := b.Commands[i].Spec; spec != nil && r.rules[spec.ID()] != nil {
			return true
		}
	}
	return false
}

// lacking names what the target lacks for an entry of the snapshot, whatever form that is given.
func (r *rewriter) lacking(e *haul.Entry) (string, error) {
	if e.Kind == haul.KindFunction && !r.can.functions {
		return lacksFunctions, nil
	}
	id, err := moduleID(r.batch, e)
	if err == nil && id != nil && !r.d.cfg.takesModule(id) {
		return lacksModule(id), nil
	}
	if err == nil && e.Big != nil && e.Kind == haul.KindKey && !e.Alone {
		return r.lacksRoom(e)
	}
	return "", err
}

// leaveOut decides on such an entry.
func (r *rewriter) leaveOut(i int, lacks string) error {
	it := item{batch: r.batch, first: uint32(i), n: 1}
	it.entry().Drop = haul.DropUnsupported
	x := lacking{item: it, command: "FUNCTION LOAD", what: lacks}
	if it.entry().Kind == haul.KindKey {
		x.command, x.keys = keysOf(it)
	}
	_, err := r.d.lacks(x)
	return err
}

// entry rewrites one entry, and returns how many more there are now.
func (r *rewriter) entry(i int) (more int, err error) {
	e := &r.batch.Entries[i]
	r.index, r.list, r.lost = i, r.list[:0], false
	changed := false
	for j := e.First; j < e.First+e.N; j++ {
		c := &r.batch.Commands[j]
		if c.Skip || c.Spec == nil || r.rules[c.Spec.ID()] == nil {
			r.list = append(r.list, madeCommand{*c, e.Big})
			continue
		}
		done, err := r.command(c)
		if err != nil {
			return 0, err
		}
		changed = changed || done
	}
	if !changed {
		return 0, nil
	}
	return r.replace(e), nil
}

// command rewrites one command, and reports whether another takes its place.
func (r *rewriter) command(c *haul.Command) (changed bool, err error) {
	e := &r.batch.Entries[r.index]
	r.cmd, r.big, r.n, r.err = c, e.Big, int(c.NArg), nil
	if r.big != nil {
		r.n = len(r.big.Args)
	}
	r.made.reset()
	out := r.rules[c.Spec.ID()](r)
	switch {
	case r.err != nil:
		return false, &spoolError{r.err}
	case out == passes:
		r.list = append(r.list, madeCommand{*c, r.big})
		return false, nil
	case out == lossy || out == emptied:
		it := item{batch: r.batch, first: uint32(r.index), n: 1}
		name, keys := namesOf(r.batch, e, c)
		how, err := r.d.lacks(lacking{item: it, command: name, keys: keys, what: r.what, rest: out == lossy && len(r.made.commands) > 0})
		if err != nil || how == leaveOut && (out == lossy || r.d.refuses()) {
			r.lost = true
			return true, err
		}
	}
	return true, r.place()
}

// replace puts what r.list holds in the place of an entry, and returns how many entries more there are.
func (r *rewriter) replace(e *haul.Entry) (more int) {
	b := r.batch
	left := slices.ContainsFunc(r.list, func(c madeCommand) bool { return !c.Skip })
	switch {
	case !left && b.Own:
		return 0 // all of those are sent: the target will say so
	case !left && r.lost:
		e.Drop = haul.DropUnsupported
		return 0
	case !left:
		e.Drop = haul.DropNeedless
		return 0
	case len(r.list) == 1 || e.Kind == haul.KindTransaction:
	case e.Big != nil || r.d.cfg.NoTransactions:
		return r.inPieces(*e)
	default:
		e.Kind = haul.KindTransaction
	}
	if n := uint32(len(r.list)); n != e.N {
		e.First, e.N = uint32(len(b.Commands)), n
		b.Commands = append(b.Commands, make([]haul.Command, n)...)
	}
	for i, c := range r.list {
		b.Commands[e.First+uint32(i)] = c.Command
	}
	e.Big = r.list[0].big
	return 0
}

// inPieces makes several entries of one, where they cannot be one transaction: one is read from the spool, or the target
// has none. Each of them may be repeated with those behind it, as happens if only the first were applied: the position
// stays in front of them all until the last.
func (r *rewriter) inPieces(e haul.Entry) (more int) {
	b := r.batch
	pieces := make([]haul.Entry, len(r.list))
	for i, c := range r.list {
		last := i == len(r.list)-1
		p := e
		p.Kind, p.First, p.N, p.Big = haul.KindCommand, uint32(len(b.Commands)), 1, c.big
		p.End = e.End - int64(len(r.list)-1-i)
		if !last && e.Resume > e.Start { // else it is of a transaction, at whose beginning the position stays
			p.Resume, p.After = e.Start, e.DB
		}
		b.Commands = append(b.Commands, c.Command)
		pieces[i] = p
	}
	more = len(pieces) - 1
	b.Expect(more)
	b.Entries = slices.Replace(b.Entries, r.index, r.index+1, pieces...)
	return more
}

// get returns an argument, which is read from the spool if the entry is.
func (r *rewriter) get(i int) []byte {
	if r.big == nil {
		return r.batch.Arg(r.cmd, i)
	}
	p, err := bigArg(r.big, i)
	if err != nil && r.err == nil {
		r.err = err
	}
	return p
}

// size is the number of bytes of an argument.
func (r *rewriter) size(i int) int64 {
	if r.big == nil {
		return int64(r.batch.Args[r.cmd.Arg+uint32(i)].Len)
	}
	return r.big.Args[i].Len
}

// is reports whether an argument is a word, in any letter case.
func (r *rewriter) is(i int, words ...string) bool {
	if i >= r.n || r.size(i) > 16 {
		return false
	}
	a := r.get(i)
	for _, w := range words {
		if len(w) == len(a) && strings.EqualFold(w, string(a)) {
			return true
		}
	}
	return false
}

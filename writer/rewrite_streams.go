package writer

import (
	"bytes"
	"math"
	"strconv"
)

// trimming is what XADD and XTRIM say before the id, or in all.
type trimming struct {
	alien  bool  // some of it is not for this target
	keep   []int // arguments that stay
	minID  int   // where MINID stands, if the target does not know it
	refs   bool  // DELREF or ACKED, which it does not know either
	behind int   // the first argument behind: of XADD the id
}

// trimming reads the options from argument 2 on. LIMIT, which the source adds to what it has trimmed, and IDMP are refused
// from an ordinary client.
func (r *rewriter) trimming() (t trimming) {
	i := 2
	for ; i < r.n; i++ {
		switch {
		case r.is(i, "NOMKSTREAM"):
			if !r.can.v62 {
				t.alien = true // the stream is there
				continue
			}
			t.keep = append(t.keep, i)
		case r.is(i, "KEEPREF", "DELREF", "ACKED"):
			if !r.can.entryRefs {
				t.alien = true
				t.refs = t.refs || !r.is(i, "KEEPREF")
				continue
			}
			t.keep = append(t.keep, i)
		case r.is(i, "IDMP"):
			t.alien = true
			i += 2
		case r.is(i, "IDMPAUTO"):
			t.alien = true
			i++
		case r.is(i, "LIMIT"):
			t.alien = true
			i++
		case r.is(i, "MAXLEN"), r.is(i, "MINID"):
			known := r.can.v62 || r.is(i, "MAXLEN")
			last := i + 1
			if r.is(i+1, "=", "~") {
				last++
			}
			if last >= r.n {
				t.behind = r.n
				return t
			}
			for k := i; known && k <= last; k++ {
				t.keep = append(t.keep, k)
			}
			if !known {
				t.alien, t.minID = true, last
			}
			i = last
		default:
			t.behind = i
			return t
		}
	}
	t.behind = i
	return t
}

// stream is about XADD key [options] id field value … and XTRIM key options.
func (r *rewriter) stream() outcome {
	t := r.trimming()
	if !t.alien {
		return passes
	}
	m := &r.made
	if t.minID > 0 { // before XADD, which may be repeated less than this
		last, ok := previousID(r.get(t.minID))
		if !ok {
			return passes
		}
		r.script(scriptTrim, []int{1}, nil)
		m.word(last)
	}
	if adds := t.behind < r.n; adds || t.minID == 0 {
		m.command(r.cmd.Spec.Name)
		m.args(1, 2)
		for _, i := range t.keep {
			m.args(i, i+1)
		}
		m.args(t.behind, r.n)
	}
	if t.refs {
		return r.without(lacksReferences, lossy)
	}
	return anew
}

// previousID is the id of a stream's entry in front of another one.
func previousID(id []byte) (string, bool) {
	left, right, _ := bytes.Cut(id, []byte("-"))
	ms, err := strconv.ParseUint(string(left), 10, 64)
	if err != nil {
		return "", false
	}
	seq := uint64(0)
	if len(right) > 0 {
		if seq, err = strconv.ParseUint(string(right), 10, 64); err != nil {
			return "", false
		}
	}
	switch {
	case seq > 0:
		seq--
	case ms > 0:
		ms, seq = ms-1, math.MaxUint64
	}
	return strconv.FormatUint(ms, 10) + "-" + strconv.FormatUint(seq, 10), true
}

// group is about XGROUP CREATE key group id [MKSTREAM] [ENTRIESREAD n], SETID, and CREATECONSUMER key group consumer.
func (r *rewriter) group() outcome {
	m := &r.made
	if r.is(1, "CREATECONSUMER") {
		if r.can.v62 || r.n != 5 {
			return passes
		}
		m.command("XREADGROUP") // which makes a consumer, and of the history of a new one gives nothing
		m.word("GROUP")
		m.args(3, 5)
		m.word("COUNT")
		m.number(1)
		m.word("STREAMS")
		m.args(2, 3)
		m.number(0)
		return anew
	}
	for i := 5; i < r.n; i++ {
		if r.is(i, "ENTRIESREAD") {
			m.command("XGROUP")
			m.args(1, i)
			m.args(i+2, r.n)
			return anew
		}
	}
	return passes
}

// setID is about XSETID key id [ENTRIESADDED n] [MAXDELETEDID id].
func (r *rewriter) setID() outcome {
	if r.n <= 3 {
		return passes
	}
	r.made.command("XSETID")
	r.made.args(1, 3)
	return anew
}

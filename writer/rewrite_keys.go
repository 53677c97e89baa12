package writer

import (
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/internal/command"
)

// A time to live of a source before 7.0 counts from when the command was received: it may be written much later.

// received is that time, in unix milliseconds.
func (r *rewriter) received() int64 {
	if told := r.batch.Received; told != nil {
		if at := told(r.batch.Entries[r.index].Start); !at.IsZero() {
			return at.UnixMilli()
		}
	}
	return time.Now().UnixMilli()
}

// deadline is the deadline that argument x says, in unix milliseconds.
func (r *rewriter) deadline(x command.Deadline) (at int64, ok bool) {
	n, err := strconv.ParseInt(string(r.get(x.Arg)), 10, 64)
	if err != nil {
		return 0, false // the target will refuse it as the source would have
	}
	if x.Seconds {
		if n > maxSeconds || n < -maxSeconds {
			return 0, false
		}
		n *= 1000
	}
	if x.Relative {
		n += r.received()
	}
	return n, true
}

// maxSeconds is as many as are some hundred million years. Redis takes no more milliseconds than an int64 holds.
const maxSeconds = 1 << 53

// deadlineOf finds the one deadline that the command in hand has.
func (r *rewriter) deadlineOf() (x command.Deadline, found bool) {
	var room [2]command.Deadline
	all := r.cmd.Spec.Deadlines(room[:0], r.n, r.get)
	if len(all) == 0 {
		return x, false
	}
	return all[len(all)-1], true
}

// setTo writes a SET of key and value, which are arguments, and a deadline. Where SET takes none it is set by a second
// command.
func (r *rewriter) setTo(key, value int, at int64) {
	m := &r.made
	m.command("SET")
	m.args(key, key+1)
	m.args(value, value+1)
	if r.can.pxat {
		m.word("PXAT")
		m.number(at)
		return
	}
	m.command("PEXPIREAT")
	m.args(key, key+1)
	m.number(at)
}

// set is about SET key value [options]. Conditions have held at the source, which sends nothing else.
func (r *rewriter) set() outcome {
	if r.n <= 3 {
		return passes
	}
	keep, alien := false, false
	for i := 3; i < r.n; i++ {
		switch {
		case r.is(i, "PXAT", "EXAT"):
			alien = alien || !r.can.v62
			i++
		case r.is(i, "EX", "PX"):
			alien = true
			i++
		case r.is(i, "KEEPTTL"):
			keep, alien = true, alien || !r.can.keepTTL
		case r.is(i, "GET"):
			alien = alien || !r.can.v70 // before, not together with NX
		case r.is(i, "IFEQ"):
			alien = alien || !r.can.ifEq
			i++
		case r.is(i, "IFNE", "IFDEQ", "IFDNE"):
			alien = alien || !r.can.ifNe
			i++
		case r.is(i, "NX", "XX"):
		default:
			return passes // unknown: the target decides
		}
	}
	if !alien {
		return passes
	}
	if x, ok := r.deadlineOf(); ok {
		at, ok := r.deadline(x)
		if !ok {
			return passes
		}
		r.setTo(1, 2, at)
		return anew
	}
	r.setKeeping(1, 2, keep)
	return anew
}

// setKeeping writes a SET without a deadline, or one that keeps that of the key.
func (r *rewriter) setKeeping(key, value int, keep bool) {
	m := &r.made
	if keep && !r.can.keepTTL {
		r.script(scriptKeepTTL, []int{key}, []int{value})
		return
	}
	m.command("SET")
	m.args(key, key+1)
	m.args(value, value+1)
	if keep {
		m.word("KEEPTTL")
	}
}

// setex is about SETEX key seconds value and PSETEX.
func (r *rewriter) setex() outcome {
	x, ok := r.deadlineOf()
	if !ok || r.n != 4 {
		return passes
	}
	at, ok := r.deadline(x)
	if !ok {
		return passes
	}
	r.setTo(1, 3, at)
	return anew
}

// expire is about EXPIRE key n [condition] and its like. A condition has held at the source.
func (r *rewriter) expire() outcome {
	x, ok := r.deadlineOf()
	if !ok || !x.Relative && r.n == 3 {
		return passes
	}
	at, ok := r.deadline(x)
	if !ok {
		return passes
	}
	r.made.command("PEXPIREAT")
	r.made.args(1, 2)
	r.made.number(at)
	if r.can.v70 {
		r.made.args(3, r.n)
	}
	return anew
}

// msetex is about MSETEX n key value … [NX|XX] [EX|PX|EXAT|PXAT n|KEEPTTL].
func (r *rewriter) msetex() outcome {
	pairs, err := strconv.Atoi(string(r.get(1)))
	if err != nil || pairs < 1 || 2+2*pairs > r.n {
		return passes
	}
	options := 2 + 2*pairs
	x, has := r.deadlineOf()
	at := int64(0)
	if has {
		var ok bool
		if at, ok = r.deadline(x); !ok {
			return passes
		}
	}
	keep := false
	for i := options; i < r.n; i++ {
		keep = keep || r.is(i, "KEEPTTL")
	}
	for k := 2; k < options; k += 2 {
		if has {
			r.setTo(k, k+1, at)
		} else {
			r.setKeeping(k, k+1, keep)
		}
	}
	return anew
}

// hsetex is about HSETEX key [NX|XX|FNX|FXX] [EX|PX|EXAT|PXAT n|KEEPTTL] FIELDS n field value …
func (r *rewriter) hsetex() outcome {
	until, keep, exists := 0, false, false
	unit := command.Deadline{}
	i := 2
	for ; i < r.n && !r.is(i, "FIELDS"); i++ {
		switch {
		case r.is(i, "EX", "PX", "EXAT", "PXAT"):
			unit = command.Deadline{Arg: i + 1, Seconds: r.is(i, "EX", "EXAT"), Relative: r.is(i, "EX", "PX")}
			i++
			until = i
		case r.is(i, "KEEPTTL"):
			keep = true
		case r.is(i, "NX", "XX"):
			exists = true
		}
	}
	if i+2 >= r.n || until >= r.n {
		return passes
	}
	fields := i + 2
	at := int64(0)
	if until > 0 {
		var ok bool
		if at, ok = r.deadline(unit); !ok {
			return passes
		}
	}
	late := at > r.can.lastFieldTTL && r.can.fieldTTL
	if r.can.hsetex && !late && (!exists || r.can.hsetexNX) {
		return passes
	}
	m, out := &r.made, anew
	if late {
		at, out = r.can.lastFieldTTL, r.without(lacksLateTTL, lossy)
	}
	if r.can.hsetex {
		m.command("HSETEX")
		m.args(1, 2)
		switch {
		case until > 0:
			m.word("PXAT")
			m.number(at)
		case keep:
			m.word("KEEPTTL")
		}
		m.args(i, r.n)
		return out
	}
	m.command("HSET")
	m.args(1, 2)
	m.args(fields, r.n)
	switch {
	case r.can.fieldTTL && keep:
		return r.without(lacksKeepTTL, lossy)
	case until == 0: // deadlines that the target does not have need not be kept
		return anew
	case !r.can.fieldTTL:
		return r.without(lacksFieldTTL, lossy)
	}
	m.command("HPEXPIREAT")
	m.args(1, 2)
	m.number(at)
	m.word("FIELDS")
	m.number(int64(r.n-fields) / 2)
	for k := fields; k < r.n; k += 2 {
		m.args(k, k+1)
	}
	return out
}

// expireField is about HPEXPIREAT key deadline [condition] FIELDS n field …
func (r *rewriter) expireField() outcome {
	at, ok := r.deadline(command.Deadline{Arg: 2})
	if !ok || at <= r.can.lastFieldTTL {
		return passes
	}
	r.made.command("HPEXPIREAT")
	r.made.args(1, 2)
	r.made.number(r.can.lastFieldTTL)
	r.made.args(3, r.n)
	return r.without(lacksLateTTL, lossy)
}

// hgetdel is about HGETDEL key FIELDS n field …, which Valkey sends as it was issued.
func (r *rewriter) hgetdel() outcome {
	if r.n < 5 {
		return passes
	}
	r.made.command("HDEL")
	r.made.args(1, 2)
	r.made.args(4, r.n)
	return anew
}

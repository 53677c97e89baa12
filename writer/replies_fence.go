package writer

import (
	"github.com/keyhaul/keyhaul/internal/resp"
)

// refusedOp is the first command of a transaction that was refused when it was queued.
type refusedOp struct {
	it  item // none if it is a command of keyhaul's own
	err *resp.Error
}

// queuedReply handles the reply to a command of an open transaction.
func (l *lane) queuedReply(o *op, b []byte) {
	if b[0] != resp.KindError && b[0] != resp.KindSimple || b[0] == resp.KindSimple && o.kind != opMulti && b[1] != 'Q' {
		l.d.fatal(ErrRewind) // MULTI was refused, and this was carried out without it: the fence tells how far it went
	}
	if b[0] != resp.KindError || l.abort != nil {
		return
	}
	l.abort = &refusedOp{err: errorOf(b)}
	if o.batch != nil {
		l.abort.it = o.entryOf(o.total - o.left - 1)
	}
}

// entryOf returns the entry that reply number i of an op is about.
func (o *op) entryOf(i int32) item {
	it := o.item
	if it.n > 1 {
		it.first += uint32(i)
		it.n = 1
	}
	return it
}

// execReply handles the last reply of a transaction.
func (l *lane) execReply(o *op, b []byte) {
	if b[0] != resp.KindArray || b[1] == '-' {
		l.aborted(b)
		return
	}
	q, left := 0, int32(0)
	for len(l.queued) > 0 && l.queued[0].kind == opMulti && q == 0 {
		q++
	}
	err := eachElement(b, func(e []byte) {
		for left == 0 && q < len(l.queued) {
			left = l.queued[q].total
			q++
		}
		if left == 0 {
			return // of what belongs to the fence
		}
		x := &l.queued[q-1]
		left--
		if e[0] == resp.KindError && x.batch != nil {
			it, e := x.entryOf(x.total-left-1), errorOf(e)
			if !l.d.replayed(it, e) && !l.d.torn(it, e) {
				x.bad++
			}
		}
	})
	if err != nil {
		l.d.fatal(err)
	}
	l.fenced.Store(max(l.fenced.Load(), o.fence))
}

// eachElement calls f for each element of an array reply.
func eachElement(b []byte, f func(element []byte)) error {
	n, at, err := resp.ArrayHeader(b)
	for ; n > 0 && err == nil; n-- {
		var size int
		if size, err = resp.Scan(b[at:]); err == nil {
			f(b[at : at+size])
			at += size
		}
	}
	return err
}

// aborted handles a transaction of which nothing was applied.
func (l *lane) aborted(b []byte) {
	why := l.abort
	if why == nil {
		why = &refusedOp{err: &resp.Error{Code: "ERR", Text: "EXEC was answered by nil"}}
		if b[0] == resp.KindError {
			why.err = abortCause(errorOf(b))
		}
	}
	act := classify(why.err)
	cause := &failure{addr: l.addr, act: act, err: why.err}
	l.redirected(why.err)
	var left item // is not sent again
	if act == actData && why.it.batch != nil {
		switch on := l.d.cfg.OnError; {
		case told(why.it, why.err):
			left, cause = why.it, nil
		case on == OnErrorSkip:
			if l.d.skip(why.it, why.err) {
				left, cause = why.it, nil
			}
		case on == OnErrorHold:
			cause.what = l.d.refusal(why.it, why.err)
		default:
			l.d.fatal(l.d.refusal(why.it, why.err))
		}
	}
	for i := range l.queued {
		l.giveBack(&l.queued[i], left, cause)
	}
}

// giveBack takes the entries of a queued op out of it, but for one, to be sent again.
func (l *lane) giveBack(q *op, left item, cause *failure) {
	if q.batch == nil {
		return
	}
	for i := q.first; i < q.first+q.n; i++ {
		it := item{q.batch, i, 1, q.part, q.slot}
		switch {
		case it == left:
		case cause != nil && cause.act == actSlot && l.moves(it):
			l.freeze(q, it, cause.err)
		default:
			l.d.route.note(l, it)
			l.giveOne(q, it, cause)
		}
	}
}

func (l *lane) giveOne(q *op, it item, cause *failure) {
	q.bad++
	l.mu.Lock()
	l.failed = append(l.failed, it)
	l.held = true
	if cause != nil && (l.cause == nil || cause.act > l.cause.act) {
		l.cause = cause
	}
	l.mu.Unlock()
	signal(l.d.trouble)
}

// discarded handles the end of a transaction that was given up.
func (l *lane) discarded() {
	for i := range l.queued {
		l.giveBack(&l.queued[i], item{}, nil)
	}
}

// decided accounts for the entries of a transaction that is over.
func (l *lane) decided() {
	for i := range l.queued {
		l.account(&l.queued[i])
	}
	clear(l.queued)
	l.queued, l.abort = l.queued[:0], nil
	l.mu.Lock()
	l.execs--
	l.mu.Unlock()
	signal(l.wake)
}

// undecided adds the entries of a transaction to s whose outcome is not known.
func (s *setback) undecided(q *op) {
	if q.batch == nil {
		return
	}
	s.rest = append(s.rest, q.item)
	s.unacked += int64(q.count)
}

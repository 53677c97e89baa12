package writer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	replyBuffer    = 32 << 10
	maxReplyBuffer = 1 << 20 // it may grow further for one reply
)

// read matches replies to the queue, in order, as long as the connection lives.
func (l *lane) read(conn *resp.Conn) error {
	buf := make([]byte, 0, replyBuffer)
	var skip int64 // bytes of a long bulk reply still to pass
	var cur op
	have := false
	defer func() {
		if have { // the lane is going down
			l.mu.Lock()
			l.partial = cur
			l.mu.Unlock()
		}
	}()
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, cap(buf))...)[:len(buf)]
		}
		n, err := conn.Reader.Read(buf[len(buf):cap(buf)])
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the target closed the connection")
			}
			return err
		}
		l.replied.Store(time.Now().UnixNano())
		l.answered()
		buf = buf[:len(buf)+n]
		pos := 0
		for pos < len(buf) {
			if skip > 0 {
				step := min(skip, int64(len(buf)-pos))
				skip -= step
				pos += int(step)
				continue
			}
			size, long, err := replyLength(buf[pos:])
			if errors.Is(err, resp.ErrShort) {
				break
			}
			if err != nil {
				return err
			}
			if !have {
				if cur, have = l.next(); !have {
					return &resp.ProtocolError{Reason: "a reply that nothing was sent for"}
				}
			}
			skip = long
			if have, err = l.reply(&cur, buf[pos:pos+size]); err != nil {
				return err
			}
			pos += size
		}
		if l.d.slots != nil {
			signal(l.wake) // what waits in a slot may go now
		}
		if pos == len(buf) && cap(buf) > maxReplyBuffer {
			buf = make([]byte, 0, replyBuffer) // it has grown for one long reply
		}
		buf = buf[:copy(buf, buf[min(pos, len(buf)):])]
	}
}

// replyLength returns the length of the first reply. Of a long bulk string that is only its header, and the rest is to
// be passed over.
func replyLength(b []byte) (n int, skip int64, err error) {
	switch b[0] {
	case resp.KindSimple, resp.KindInteger:
		if i := bytes.IndexByte(b, '\n'); i > 0 {
			return i + 1, 0, nil
		}
		return 0, 0, resp.ErrShort
	case resp.KindBulk:
		n, err = resp.Scan(b)
		if errors.Is(err, resp.ErrShort) && len(b) >= replyBuffer/2 {
			head := bytes.IndexByte(b, '\n') + 1
			if head < len("$0\r\n") {
				return 0, 0, &resp.ProtocolError{Reason: "a bulk reply without its length"}
			}
			size, err := resp.ParseInt(b[1 : head-2])
			return head, size + 2, err
		}
		return n, 0, err
	}
	n, err = resp.Scan(b)
	return n, 0, err
}

// next takes the oldest op out of the queue.
func (l *lane) next() (op, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flight.len() == 0 {
		return op{}, false
	}
	l.reading = true
	return l.flight.pop(), true
}

// reply handles one reply of o, and reports whether o expects more.
func (l *lane) reply(o *op, b []byte) (more bool, err error) {
	o.left--
	special := b[0] == resp.KindError || l.failing || l.shut.Load() > 0
	switch o.kind {
	case opEntries:
		if special {
			l.entryReply(o, o.entryOf(o.total-o.left-1), b)
		}
	case opOne:
		if special {
			l.entryReply(o, o.item, b)
		}
		if bytes.HasPrefix(b, []byte("$-1")) && o.batch.Snapshot { // of one that was refused, the batch may be gone
			l.d.count("existing_skipped", 1) // SET NX has answered nil
		}
	case opStrings:
		if special {
			l.stringsReply(o, b)
		}
	case opTx:
		l.txReply(o, b)
	case opBuild:
		l.buildReply(b)
	case opBuilt, opUnbuilt:
		l.builtReply(o, b)
	case opSelect:
		if b[0] == resp.KindError {
			return true, fmt.Errorf("SELECT: %w", errorOf(b))
		}
	case opMulti, opBody, opBodyDB:
		l.queuedReply(o, b)
	case opExec:
		if o.left > 0 {
			l.queuedReply(o, b)
		} else {
			l.execReply(o, b)
		}
	case opDiscard:
		l.discarded()
	case opPing: // any reply proves life
	case opTouch:
		l.touchReply(o, b)
	case opWait:
		if err := l.waitReply(b); err != nil {
			return true, err
		}
	case opMark:
		if b[0] == resp.KindError {
			l.markRefused(errorOf(b))
		}
	case opTimeout:
		l.setTimeout(b)
	}
	if o.left > 0 {
		return true, nil
	}
	l.finish(o)
	return false, nil
}

// finish accounts for an op whose replies are all in, and only then lets the lane be quiet.
func (l *lane) finish(o *op) {
	switch {
	case o.kind.queued():
		l.queued = append(l.queued, *o)
	case o.kind == opExec, o.kind == opDiscard:
		l.decided()
	default:
		l.account(o)
	}
	l.settled.Add(1)
	l.mu.Lock()
	l.reading = false
	empty := l.flight.len() == 0
	l.mu.Unlock()
	if empty {
		signal(l.drained)
		signal(l.d.idle)
	}
}

// account takes the entries of an op out of flight.
func (l *lane) account(o *op) {
	l.entries.Add(-int64(o.count))
	l.bytes.Add(-int64(o.size))
	if n := int(o.count - o.bad); o.batch != nil && n > 0 {
		l.acked.Add(int64(n))
		l.d.progress()
		l.done(o.batch, n)
	}
}

func errorOf(b []byte) *resp.Error {
	return resp.NewError(string(bytes.TrimRight(b[1:], "\r\n")))
}

// entryReply handles the reply of one entry when it is an error, or when an earlier one was.
func (l *lane) entryReply(o *op, it item, b []byte) {
	if b[0] == resp.KindError {
		l.refused(o, it, errorOf(b))
		return
	}
	switch {
	case l.frozen(it):
		l.freeze(o, it, nil)
	case l.d.route.behind(l, it):
		l.again(o, it, nil)
	}
}

// refused decides on an entry that the target has refused.
func (l *lane) refused(o *op, it item, e *resp.Error) {
	act := classify(e)
	l.redirected(e)
	if l.frozen(it) {
		l.freeze(o, it, e) // whatever is wrong with it, it goes again behind an earlier one
		return
	}
	behind := l.failing && l.d.route.behind(l, it)
	if act == actData && behind {
		l.again(o, it, nil) // it may be refused because an earlier one was
		return
	}
	if act == actData && l.d.replayed(it, e) {
		return
	}
	if act == actSlot && !behind && l.moves(it) {
		l.freeze(o, it, e)
		return
	}
	if act != actData {
		l.again(o, it, &failure{addr: l.addr, act: act, err: e})
		return
	}
	if l.d.existing(it, e) || told(it, e) {
		return
	}
	switch l.d.cfg.OnError {
	case OnErrorHold:
		l.again(o, it, &failure{addr: l.addr, act: actData, err: e, what: l.d.refusal(it, e)})
	case OnErrorSkip:
		if !l.d.skip(it, e) {
			o.bad++
		}
	default:
		l.d.fatal(l.d.refusal(it, e))
		l.again(o, it, &failure{addr: l.addr, act: actData, err: e})
	}
}

// again takes an entry out of its op, to be sent again by the dispatcher. From now on whatever follows it in its slot
// is sent again too, acknowledged or not, so that order holds.
func (l *lane) again(o *op, it item, why *failure) {
	o.bad++
	l.failing = true
	l.d.route.note(l, it)
	l.mu.Lock()
	l.failed = append(l.failed, it)
	if why == nil && !it.batch.Snapshot {
		l.repeats++
	}
	l.held = true
	if why != nil && (l.cause == nil || why.act > l.cause.act) {
		l.cause = why
	}
	l.mu.Unlock()
	signal(l.d.trouble)
}

// stringsReply handles the reply of an MSET of the snapshot. If it was refused its keys are sent again one by one, so
// that what is wrong with one of them is neither laid to another nor kept from the operator.
func (l *lane) stringsReply(o *op, b []byte) {
	if b[0] != resp.KindError {
		return // keys of the snapshot do not depend on each other
	}
	var why *failure
	if e := errorOf(b); classify(e) != actData {
		why = &failure{addr: l.addr, act: classify(e), err: e}
	}
	for i := o.first; i < o.first+o.n; i++ {
		if e := &o.batch.Entries[i]; isPlainString(o.batch, e, o.batch.KeyOf(e)) {
			l.again(o, item{batch: o.batch, first: i, n: 1}, why)
		}
	}
}

// txReply handles the replies of a transaction: MULTI, one for each command, EXEC.
func (l *lane) txReply(o *op, b []byte) {
	if b[0] == resp.KindError && o.failed == nil {
		o.failed = abortCause(errorOf(b))
	}
	if o.left > 0 {
		return
	}
	switch {
	case b[0] == resp.KindError: // EXECABORT: the answer is the error of the command that was refused
		l.refused(o, o.item, o.failed)
	case l.frozen(o.item):
		l.freeze(o, o.item, nil)
	case l.failing && l.d.route.behind(l, o.item):
		l.again(o, o.item, nil)
	default:
		if e := nestedError(b); e != nil && !l.d.expired(o, e) && !l.d.torn(o.item, e) {
			o.bad++
		}
	}
}

// abortCause returns what an error of a transaction is about: EXEC may be refused for a reason of its own.
func abortCause(e *resp.Error) *resp.Error {
	if _, why, ok := strings.Cut(e.Text, "EXECABORT Transaction discarded because of: "); ok {
		return resp.NewError(why)
	}
	return e
}

// nestedError returns the first error among the replies of a transaction.
func nestedError(b []byte) *resp.Error {
	if bytes.IndexByte(b, resp.KindError) < 0 {
		return nil
	}
	r, _, err := resp.Decode(b)
	if err != nil {
		return nil
	}
	for _, e := range r.Array {
		if e.Kind == resp.KindError {
			return resp.NewError(e.Text)
		}
	}
	return nil
}

// markRefused handles the refusal of a mark, which is written again a second later: where its slot has moved to another
// node, after a look at where slots are.
func (l *lane) markRefused(e *resp.Error) {
	l.d.unmarked.Store(true)
	if e.Code == "MOVED" && l.d.frozen != nil {
		l.d.frozen.doubt()
	}
}

// setTimeout reads the reply to CONFIG GET timeout. An error means that it is not allowed.
func (l *lane) setTimeout(b []byte) {
	r, _, err := resp.Decode(b)
	if err == nil && len(r.Array) == 2 {
		l.setTimeoutText(r.Array[1].Text)
	}
}

// setTimeoutText takes the target's timeout, in seconds.
func (l *lane) setTimeoutText(text string) {
	if n, err := strconv.Atoi(text); err == nil {
		l.keep.SetTimeout(time.Duration(n) * time.Second)
	}
}

// isNetwork reports whether an error is one of a connection.
func isNetwork(err error) bool {
	return errors.As(err, new(net.Error)) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled)
}

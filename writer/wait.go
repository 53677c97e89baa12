package writer

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// replicas makes a lane wait for the replicas of its node. What the node has answered is kept, and complete only when a
// later WAIT on the same connection has counted enough of them: so the watermark, marks and what the source is told
// speak of what survives the node. One WAIT at a time is on its way; it stands for everything before it, and the server
// carries out nothing of the connection meanwhile.
//
// WAIT counts from its connection's own last write. What other connections have written is covered by a write of the
// lane's that comes behind it: a touch. A new connection begins with one, for what is kept from the last.
//
// The fields are guarded by the lane's mutex.
type replicas struct {
	kept      []keptEntries // answered, and not counted on replicas
	spare     []keptEntries
	behind    bool      // something was sent or kept behind the last WAIT
	asking    bool      // a WAIT is on its way
	touches   uint64    // that were asked for
	touched   uint64    // the last of them that was answered
	sent      uint64    // the last of them that was sent
	notBefore time.Time // is the next touch sent
}

// keptEntries is entries of a batch, which is not reused as long as they are not Done.
type keptEntries struct {
	batch *haul.Batch
	n     int
}

const (
	waitFor    = time.Second // for which the server holds a WAIT that too few replicas satisfy
	touchAgain = time.Second // after which a touch that was refused is tried again
)

// done completes entries that the node has answered, as soon as enough replicas have them.
func (l *lane) done(b *haul.Batch, n int) {
	if l.d.cfg.WaitReplicas == 0 {
		b.Done(n)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doneLocked(b, n)
}

// doneLocked is done with the lane's mutex held.
func (l *lane) doneLocked(b *haul.Batch, n int) {
	r := &l.replicas
	if l.d.cfg.WaitReplicas == 0 {
		b.Done(n)
		return
	}
	if last := len(r.kept) - 1; last >= 0 && r.kept[last].batch == b {
		r.kept[last].n += n
		return
	}
	r.kept = append(r.kept, keptEntries{b, n})
}

// complete is done for entries that the node has had before.
func (l *lane) complete(b *haul.Batch, n int) {
	l.done(b, n)
	if l.d.cfg.WaitReplicas > 0 {
		l.mu.Lock()
		l.replicas.behind = true
		l.mu.Unlock()
		signal(l.wake)
	}
}

// touch makes the lane's next WAIT count for what other connections have written until now.
func (l *lane) touch() {
	if l.d.cfg.WaitReplicas == 0 {
		return
	}
	l.mu.Lock()
	l.replicas.touches++
	l.mu.Unlock()
	signal(l.wake)
}

// completeEverywhere completes entries that any node may have, and that lanes have not written themselves.
func (d *dispatcher) completeEverywhere(b *haul.Batch, n int) {
	if d.cfg.WaitReplicas == 0 {
		b.Done(n)
		return
	}
	d.mu.Lock()
	lanes := d.lanes
	d.mu.Unlock()
	b.Expect(n * (len(lanes) - 1))
	for _, l := range lanes {
		l.touch()
		l.complete(b, n)
	}
}

// completeAt completes an item that the node at addr has taken on a connection that is no lane's.
func (d *dispatcher) completeAt(addr string, it item) {
	l := d.laneTo(addr)
	if l == nil { // it has no slot yet
		d.completeEverywhere(it.batch, 1)
		return
	}
	l.touch()
	l.complete(it.batch, 1)
}

// laneTo returns the lane to a node, or nil. Any goroutine may call it.
func (d *dispatcher) laneTo(addr string) *lane {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.lanes {
		if l.addr == addr {
			return l
		}
	}
	return nil
}

// inherit takes over what a lane has kept whose node has no slots any more: they went to others, and its entries with
// them.
func (d *dispatcher) inherit(l *lane) {
	l.mu.Lock()
	all := l.replicas.kept
	l.replicas.kept = nil
	l.mu.Unlock()
	for _, k := range all {
		d.completeEverywhere(k.batch, k.n)
	}
}

// begun is called with the lane's mutex held, when it gets a connection.
func (r *replicas) begun() {
	r.asking, r.behind = false, len(r.kept) > 0
	r.touches++
	r.sent, r.notBefore = r.touched, time.Time{}
}

// askReplicas appends a WAIT for what goes before it, unless one is on its way or nothing is to be waited for.
func (l *lane) askReplicas(o *outbox) {
	if l.d.cfg.WaitReplicas == 0 || o.multi {
		return
	}
	l.mu.Lock()
	r := &l.replicas
	due := !l.held && !r.asking && (r.behind || holdsEntries(o.ops)) && !time.Now().Before(r.notBefore)
	touch := uint64(0)
	if due && r.sent < r.touches {
		touch = r.touches
	}
	mark := l.marked
	l.mu.Unlock()
	if !due {
		return
	}
	if touch > 0 {
		o.touch(checkpoint.Touch(cmp.Or(mark, l.d.cfg.Store.Keys().WholeMark())), touch)
	}
	o.control(opWait, "WAIT", strconv.Itoa(l.d.cfg.WaitReplicas), strconv.FormatInt(waitFor.Milliseconds(), 10))
}

// touch appends a write that leaves nothing behind.
func (o *outbox) touch(key string, number uint64) {
	o.selectDB(0)
	n := len(o.arena)
	for _, args := range [][]string{{"MULTI"}, {"SET", key, ""}, {"DEL", key}, {"EXEC"}} {
		o.arena = resp.AppendCommand(o.arena, args...)
	}
	o.grown(n)
	o.ops = append(o.ops, op{kind: opTouch, left: 4, total: 4, fence: int64(number)})
}

// holdsEntries reports whether one of ops, when it is answered, decides on entries.
func holdsEntries(ops []op) bool {
	for i := range ops {
		if k := ops[i].kind; k == opExec || ops[i].count > 0 && !k.queued() {
			return true
		}
	}
	return false
}

// launched notes an op that is put in flight. The lane must be locked.
func (r *replicas) launched(o *op) {
	switch {
	case o.kind == opWait:
		r.asking, r.behind = true, false
	case o.kind == opTouch:
		r.sent = uint64(o.fence)
	case o.kind == opExec, o.count > 0 && !o.kind.queued():
		r.behind = true
	}
}

// touchReply handles a reply of a touch.
func (l *lane) touchReply(o *op, b []byte) {
	if b[0] == resp.KindError && o.failed == nil {
		o.failed = errorOf(b)
	}
	if o.left > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r := &l.replicas; o.failed == nil {
		r.touched = uint64(o.fence)
	} else { // its slot may be on the move
		r.sent, r.notBefore = r.touched, time.Now().Add(touchAgain)
		time.AfterFunc(touchAgain, func() { signal(l.wake) })
	}
}

// waitReply handles the reply to a WAIT. What is kept was answered before it.
func (l *lane) waitReply(b []byte) error {
	if b[0] == resp.KindError {
		return fmt.Errorf("WAIT: %w", errorOf(b))
	}
	has, err := resp.ParseInt(bytes.TrimRight(b[1:], "\r\n"))
	if err != nil {
		return fmt.Errorf("WAIT: %w", err)
	}
	l.sayReplicas(has)
	for _, k := range l.awaited(has >= int64(l.d.cfg.WaitReplicas)) {
		k.batch.Done(k.n)
	}
	signal(l.wake)
	return nil
}

// awaited returns what is complete after a WAIT that enough replicas have satisfied, or not.
func (l *lane) awaited(enough bool) (complete []keptEntries) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.replicas
	r.asking = false
	if !enough || r.touched < r.touches {
		r.behind = true
		return nil
	}
	complete, r.kept, r.spare = r.kept, r.spare[:0], r.kept
	return complete
}

// sayReplicas tells the operator how many replicas have acknowledged, where they are too few.
func (l *lane) sayReplicas(has int64) {
	who := "replicas of target " + l.addr
	if want := l.d.cfg.WaitReplicas; has < int64(want) {
		l.d.cfg.Waits.Set(who, fmt.Sprintf("%d of %d replicas have acknowledged", has, want),
			"bring its replicas back, or start keyhaul with a lower --wait-replicas; writes go on, and are not reported as applied")
		l.few.Store(true)
	} else if l.few.CompareAndSwap(true, false) {
		l.d.cfg.Waits.Clear(who)
	}
}

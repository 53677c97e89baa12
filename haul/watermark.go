package haul

import (
	"context"
	"sync"
	"time"
)

// Watermark follows which batches the target has acknowledged. Everything up to its position is applied there; above
// it some entries may be and others not.
type Watermark struct {
	mu       sync.Mutex
	queue    []*ticket // in the order of the link, oldest first
	head     int
	stream   Position
	snapshot int64 // bytes of the RDB
	keys     int64 // keys of the snapshot that are applied
	entries  int64 // entries of the stream that are applied
	waiters  []waiter
}

// ticket stands for a batch that was sent; it outlives the batch, whose buffers are reused as soon as it is complete.
type ticket struct {
	end      Position
	entries  int64
	read     time.Time
	snapshot bool
	own      bool // of no batch: see Hold
	done     bool
	passed   bool // and all before it are done
}

type waiter struct {
	offset int64   // stream offset, or -1: until nothing is outstanding
	last   *ticket // if set, until this one and all before it are complete
	ready  chan struct{}
}

func newWatermark() *Watermark { return &Watermark{stream: Position{Offset: -1}} }

func (w *Watermark) add(t *ticket) {
	w.mu.Lock()
	w.queue = append(w.queue, t)
	w.mu.Unlock()
}

func (w *Watermark) complete(t *ticket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t.done = true
	if w.queue[w.head] != t {
		return
	}
	for w.head < len(w.queue) && w.queue[w.head].done {
		w.advance(w.queue[w.head])
		w.queue[w.head].passed = true
		w.queue[w.head] = nil
		w.head++
	}
	if w.head > 256 && w.head*2 > len(w.queue) {
		n := copy(w.queue, w.queue[w.head:])
		clear(w.queue[n:])
		w.queue, w.head = w.queue[:n], 0
	}
	w.wake()
}

func (w *Watermark) advance(t *ticket) {
	if t.own {
		return
	}
	if t.snapshot {
		w.snapshot = t.end.Offset
		w.keys += t.entries
		return
	}
	w.stream = t.end
	w.entries += t.entries
}

func (w *Watermark) wake() {
	left := w.waiters[:0]
	for _, x := range w.waiters {
		if x.last != nil && x.last.passed || x.last == nil && w.reached(x.offset) {
			close(x.ready)
		} else {
			left = append(left, x)
		}
	}
	w.waiters = left
}

func (w *Watermark) reached(offset int64) bool {
	if offset < 0 {
		return w.head == len(w.queue)
	}
	return w.stream.Offset >= offset
}

// Start sets the position that the stream begins at: everything before it is on the target.
func (w *Watermark) Start(p Position) {
	w.mu.Lock()
	w.stream = p
	w.wake()
	w.mu.Unlock()
}

// Restart forgets what was applied: a new snapshot is going to be sent. Nothing may be outstanding.
func (w *Watermark) Restart() {
	w.mu.Lock()
	w.snapshot, w.keys = 0, 0
	w.stream = Position{Offset: -1}
	w.mu.Unlock()
}

// Stream returns the position up to which the stream is applied. Its offset is -1 while there is none, because the
// snapshot is not on the target yet.
func (w *Watermark) Stream() Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.stream
}

// Progress counts what is applied.
type Progress struct {
	SnapshotBytes int64 // of the RDB
	SnapshotKeys  int64
	Entries       int64     // of the stream
	Oldest        time.Time // when the oldest batch not yet acknowledged was handed on; zero if there is none
}

// Progress returns what is applied so far.
func (w *Watermark) Progress() Progress {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := Progress{SnapshotBytes: w.snapshot, SnapshotKeys: w.keys, Entries: w.entries}
	if w.head < len(w.queue) {
		p.Oldest = w.queue[w.head].read
	}
	return p
}

// Reached returns a channel that is closed once the stream is applied up to offset.
func (w *Watermark) Reached(offset int64) <-chan struct{} { return w.wait(max(offset, 0)) }

// Sent returns a channel that is closed once everything that was sent up to now is applied.
func (w *Watermark) Sent() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	ready := make(chan struct{})
	if w.head == len(w.queue) {
		close(ready)
	} else {
		w.waiters = append(w.waiters, waiter{last: w.queue[len(w.queue)-1], ready: ready})
	}
	return ready
}

// Hold keeps the watermark from passing what was sent up to now, until release is called: beside that, something of the
// writer's own is on its way.
func (w *Watermark) Hold() (release func()) {
	t := &ticket{own: true, read: time.Now()}
	w.add(t)
	return func() { w.complete(t) }
}

// Drain waits until nothing that was sent is outstanding.
func (w *Watermark) Drain(ctx context.Context) error {
	select {
	case <-w.wait(-1):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (w *Watermark) wait(offset int64) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	ready := make(chan struct{})
	if w.reached(offset) {
		close(ready)
	} else {
		w.waiters = append(w.waiters, waiter{offset: offset, ready: ready})
	}
	return ready
}

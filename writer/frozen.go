package writer

import (
	"slices"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// A slot that moves is frozen, and no other. Its life as a frozen one:
//
//   - A lane meets a redirect, TRYAGAIN or CLUSTERDOWN. Its reading goroutine puts the entry aside, and what follows it in
//     the slot; its writing goroutine sends nothing more of the slot (freeze.go).
//   - The dispatcher hears of it, keeps later entries of the slot here, and sends a marker down the lane. When the marker
//     has arrived and everything that was sent of the slot is answered, the lane hands over what it has of it: that
//     comes before what the dispatcher has kept. Now all entries of the slot are here, in order.
//   - A resolver tries the oldest of them, on a connection of its own, at whichever node takes it, until none is left or a
//     node has shown that the slot is its own (resolve.go).
//   - The dispatcher gives the rest to that node's lane, and later entries after it (thaw.go).
//
// A recovery takes everything from here and starts afresh.

// frozenSlots are the slots of a target cluster that move.
type frozenSlots struct {
	c       *cluster
	sending sync.RWMutex  // held for reading while an entry is sent: who locks it has stopped that
	due     chan struct{} // there is something to resolve

	mu      sync.Mutex
	slots   map[uint16]*frozenSlot
	down    time.Time     // until then the cluster is taken to be down
	notices []notice      // for the dispatcher: slots to freeze
	thawing []*frozenSlot // for the dispatcher: slots to give to a lane
	doubts  bool          // for the dispatcher: it is not known where a slot is
	found   *survey       // for the dispatcher: what a look at the cluster has found
}

// frozenSlot is one of them.
type frozenSlot struct {
	slot    uint16
	from    string // the node that it was frozen at
	home    string // the node that has it, as far as is known
	to      string // where the last redirect has led
	lost    bool   // home was not reached
	err     *resp.Error
	since   time.Time // it is frozen
	moved   time.Time // an entry was taken last
	queue   []item
	whole   bool          // the lane has handed over: everything is in queue
	busy    bool          // a resolver is at it
	thawing bool          // the dispatcher is to give it back
	calm    int           // entries that home has taken one after the other
	next    time.Time     // when to try again
	wait    time.Duration // between tries
}

// notice tells the dispatcher of a slot that was redirected.
type notice struct {
	slot uint16
	l    *lane
	err  *resp.Error
}

func newFrozenSlots(c *cluster) *frozenSlots {
	return &frozenSlots{c: c, due: make(chan struct{}, 1), slots: make(map[uint16]*frozenSlot)}
}

// none reports whether no slot is frozen.
func (f *frozenSlots) none() bool {
	if f == nil {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.slots) == 0 && len(f.notices) == 0
}

// notice has the dispatcher freeze a slot.
func (f *frozenSlots) notice(slot uint16, l *lane, err *resp.Error) {
	f.mu.Lock()
	f.notices = append(f.notices, notice{slot, l, err})
	f.mu.Unlock()
	signal(f.c.d.moves)
}

// doubt has the dispatcher look where slots are.
func (f *frozenSlots) doubt() {
	f.mu.Lock()
	f.doubts = true
	f.mu.Unlock()
	signal(f.c.d.moves)
}

// get returns a slot, frozen from now on if it was not. The mutex must be held.
func (f *frozenSlots) get(slot uint16, addr string, err *resp.Error) *frozenSlot {
	fs := f.slots[slot]
	if fs == nil {
		now := time.Now()
		fs = &frozenSlot{slot: slot, from: addr, home: addr, since: now, moved: now}
		f.slots[slot] = fs
	}
	if err != nil {
		fs.note(err, addr)
	}
	return fs
}

// note remembers what a node has said last.
func (fs *frozenSlot) note(err *resp.Error, addr string) {
	fs.err = err
	if _, to, ok := err.Redirect(); ok {
		fs.to = topology.Complete(to, addr)
		if err.Code == "MOVED" {
			fs.home = fs.to
		}
	}
}

// add takes a key of the snapshot, which depends on no other.
func (f *frozenSlots) add(it item, addr string, err *resp.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.slots)
	fs := f.get(it.slot, addr, err)
	fs.queue = append(fs.queue, it)
	fs.whole = fs.whole || len(f.slots) > before
	signal(f.due)
}

// freeze is the dispatcher's: it keeps what comes from now on, and waits for what the lane has.
func (f *frozenSlots) freeze(slot uint16, addr, home string, err *resp.Error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fs := f.get(slot, addr, err)
	fs.whole, fs.thawing = false, false
	if home != "" {
		fs.home = home
	}
}

// keep puts an entry behind the others of its slot.
func (f *frozenSlots) keep(it item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fs := f.slots[it.slot]
	if len(fs.queue) == 0 {
		fs.moved = time.Now()
		signal(f.due)
	}
	fs.queue = append(fs.queue, it)
}

// takeOver takes what a lane had of a slot, which goes before what was kept.
func (f *frozenSlots) takeOver(slot uint16, items []item) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fs := f.slots[slot]
	first := 0
	if fs.busy { // with a key of the snapshot
		first = 1
	}
	fs.queue = slices.Insert(fs.queue, first, items...)
	fs.whole = true
	signal(f.due)
}

// collect ends it all, and returns the entries that are left. The lanes must be quiet; the dispatcher calls it.
func (f *frozenSlots) collect() (items []item) {
	f.sending.Lock()
	defer f.sending.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, fs := range f.slots {
		items = append(items, fs.queue...)
	}
	clear(f.slots)
	f.notices, f.thawing = nil, nil
	f.c.shut = [command.Slots]bool{}
	return items
}

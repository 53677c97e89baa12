package writer

import "github.com/keyhaul/keyhaul/checkpoint"

// wholeTx is how a standalone target gets its entries exactly once: all of them in transactions with the one fence, of
// which one at a time is executed. A second one that is executed before the first is answered would commit its fence
// although the first was refused. Its commands are sent ahead all the same, for until EXEC they only wait: so the target
// need not, and what comes while one is executed goes into the next, which grows with the round trip.
// It belongs to a lane's writing goroutine.
type wholeTx struct {
	open    bool
	size    int // bytes
	fence   checkpoint.Fence
	flushes [][]string // what writes keyhaul's own keys anew
}

const (
	wholeBytes = 256 << 10 // of a transaction, when no more is added
	wholeTake  = 4         // items (a batch each, mostly) at once
)

func (w *wholeTx) appetite() int {
	if w.size >= wholeBytes {
		return 0
	}
	return wholeTake
}

func (w *wholeTx) deliver(l *lane, o *outbox, t turn, current *int) (sent bool, err error) {
	if w.open && t.held {
		o.discard()
		*w = wholeTx{}
		return true, nil
	}
	if w.open && !t.executing { // the target waits for this: what has come since goes into the next one
		w.exec(l, o)
		sent, t.executing = true, true
		if err := o.flush(); err != nil {
			return false, err
		}
	}
	for i, it := range t.items {
		*current = i + 1
		if !w.open {
			w.open = true
			o.begin()
		}
		before := o.size
		if err := l.d.enc.encode(o, it); err != nil {
			return false, err
		}
		w.size += max(o.size-before, 0)
		w.note(l, it)
		if o.size >= flushBytes {
			if err := o.flush(); err != nil {
				return false, err
			}
		}
	}
	if w.open && !t.executing {
		w.exec(l, o)
		sent = true
	}
	return sent, nil
}

func (w *wholeTx) exec(l *lane, o *outbox) {
	o.exec(l.d.cfg.Store.Keys().Whole(), w.fence, w.flushes)
	l.askReplicas(o)
	*w = wholeTx{}
}

// note remembers what the fence has to say behind an item.
func (w *wholeTx) note(l *lane, it item) {
	last := it
	last.first += it.n - 1
	e := last.entry()
	w.fence = fenceAt(it.batch, e)
	if e.Big != nil {
		w.size += int(min(e.Big.Len, wholeBytes))
	}
	for i := it.first; i < it.first+it.n; i++ {
		e := &it.batch.Entries[i]
		cmds := it.batch.CommandsOf(e)
		for j := range cmds {
			if cmds[j].Spec.Flushes() && !cmds[j].Skip {
				w.flushes = append(w.flushes, l.d.enc.restand(it.batch, &cmds[j])...)
			}
		}
	}
}

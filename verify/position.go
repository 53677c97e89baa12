package verify

import (
	"context"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// track is what the target's record says of the haul: where its positions are.
type track struct {
	store *checkpoint.Store
	name  string

	mu     sync.Mutex // guards the following
	at     time.Time
	found  bool
	copied bool // its first copy is whole
	grace  int64
	links  []linkTrack
	still  map[string]stillAt // by link: where it does not move on
}

// linkTrack is one of the haul's links, or the only one.
type linkTrack struct {
	keys       checkpoint.Keys
	generation uint64
	slots      *topology.SlotSet // nil for all
}

// stillAt is a position that did not change for as long as patience lasts.
type stillAt struct{ offset int64 }

// recordEvery is how often the record is read at most.
const recordEvery = time.Second

// read reads the record, and those of the links, unless that was done just now.
func (t *track) read(ctx context.Context) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.at) < recordEvery {
		return nil
	}
	r, found, err := t.store.Look(ctx, "")
	if err != nil {
		return err
	}
	t.at, t.found, t.grace, t.links, t.copied = time.Now(), found, r.Grace, nil, found
	if !found {
		return nil
	}
	if len(r.Links) == 0 {
		t.links = []linkTrack{{checkpoint.Keys{Name: t.name}, r.Generation, nil}}
		t.copied = r.Phase == checkpoint.PhaseStreaming
		return nil
	}
	for _, link := range r.Links {
		lr, found, err := t.store.Look(ctx, link)
		if err != nil {
			return err
		}
		if !found || lr.Phase != checkpoint.PhaseStreaming {
			t.copied = false
			continue
		}
		t.links = append(t.links, linkTrack{checkpoint.Keys{Name: t.name, Link: link}, lr.Generation, lr.Slots})
	}
	return nil
}

// known tells whether there is a haul whose positions can be read.
func (t *track) known() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.found
}

// held is by how much deadlines are held back, in ms.
func (t *track) held() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.grace
}

// link returns who writes a key's slot; false while nobody does.
func (t *track) link(key []byte) (linkTrack, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := command.Slot(key)
	for _, l := range t.links {
		if l.slots == nil || l.slots.Has(slot) {
			return l, true
		}
	}
	return linkTrack{}, false
}

// stands tells whether a link was seen not to move on from an offset.
func (t *track) stands(l linkTrack, offset int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	at, ok := t.still[l.keys.Link]
	return ok && at.offset == offset
}

func (t *track) stand(l linkTrack, offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.still == nil {
		t.still = map[string]stillAt{}
	}
	t.still[l.keys.Link] = stillAt{offset}
}

// askPosition asks a node of the target up to where it has a key's slot: by the fence of the slot, and by the node's mark.
func (l linkTrack) askPosition(c *conn, v view, key string) {
	if v.topo == nil {
		c.add("GET", l.keys.Whole())
		c.add("GET", l.keys.WholeMark())
		return
	}
	slot := command.Slot([]byte(key))
	c.add("GET", l.keys.Fence(slot))
	c.add("GET", l.keys.Mark(v.first(slot)))
}

// readPosition reads the replies: the higher offset of those that are of the source's history, -1 if none is.
func (l linkTrack) readPosition(c *conn, source topology.Node) (int64, error) {
	offset := int64(-1)
	for range 2 {
		raw, err := c.next()
		if err != nil {
			return -1, err
		}
		if e := refused(raw); e != nil {
			if !passing(e) {
				return -1, op(c, "GET", e)
			}
			continue
		}
		text, there := bulk(raw)
		if !there {
			continue
		}
		f, err := checkpoint.ParseFence(string(text))
		if err != nil {
			return -1, haul.Errorf(haul.ExitRefused, "use the keyhaul that runs the haul", "a position of haul %q: %w", l.keys.Name, err)
		}
		if f.Generation == l.generation && (f.At.ReplID == source.ReplID || f.At.ReplID == source.ReplID2) {
			offset = max(offset, f.Applied())
		}
	}
	return offset, nil
}

package writer

import (
	"context"

	"github.com/keyhaul/keyhaul/haul"
)

// standalone is the router of a target that is one server. The stream has one lane; the keys of the snapshot, which do
// not depend on each other, have several.
type standalone struct {
	d    *dispatcher
	next int // lane of the next batch of the snapshot
}

func (s *standalone) mode() string { return "standalone" }

// open implements router. The server may have got another address since: that of a replica which was promoted. All lanes
// lead to one server.
func (s *standalone) open(ctx context.Context) error {
	if len(s.d.lanes) == 0 {
		lanes := make([]*lane, max(s.d.cfg.SnapshotLanes, 1))
		for i := range lanes {
			lanes[i] = newLane(s.d, s.addr())
			if i == 0 && s.d.cfg.Store != nil {
				lanes[i].marked = s.d.cfg.Store.Keys().WholeMark()
			}
		}
		s.d.setLanes(lanes)
	}
	for {
		if err := s.d.connectAll(ctx, s.d.lanes); err != nil || s.together() {
			return err
		}
	}
}

// addr is what a lane shows before it is connected for the first time.
func (s *standalone) addr() string {
	if e := s.d.cfg.Dialer.Endpoint; e.Sentinels == nil {
		return e.Addrs[0]
	}
	return s.d.cfg.Dialer.Endpoint.String()
}

// together closes the lanes that lead to another server than the one that was connected to last, and reports whether
// there was none.
func (s *standalone) together() bool {
	all := true
	for _, l := range s.d.lanes {
		if l.addr != s.d.reached {
			l.close()
			all = false
		}
	}
	return all
}

// connectAll brings up those lanes that are down.
func (d *dispatcher) connectAll(ctx context.Context, lanes []*lane) error {
	for _, l := range lanes {
		if l.up() {
			continue
		}
		if err := d.connect(ctx, l, false); err != nil {
			return err
		}
	}
	return nil
}

func (s *standalone) dispatch(ctx context.Context, b *haul.Batch, from, to int) error {
	l := s.d.lanes[0]
	if b.Snapshot {
		l = s.d.lanes[s.next%len(s.d.lanes)]
		s.next++
	}
	if err := s.d.hasDBs(ctx, b); err != nil {
		return err
	}
	if applied := s.d.skipApplied(b); applied > 0 {
		if applied == len(b.Entries) {
			s.d.alreadyApplied(s.d.lanes[0], b, applied)
			return nil
		}
		defer s.d.alreadyApplied(s.d.lanes[0], b, applied)
	}
	eachRun(b, from, to, func(first, n uint32) {
		if b.Entries[first].Alone { // all are built under one name
			s.d.lanes[0].push(item{batch: b, first: first, n: n})
			return
		}
		l.push(item{batch: b, first: first, n: n})
	})
	return nil
}

// own implements router.
func (s *standalone) own(b *haul.Batch, _ uint16) {
	s.d.lanes[0].push(item{batch: b, n: uint32(len(b.Entries))})
}

// inRun reports whether an entry travels together with its neighbours.
func inRun(e *haul.Entry) bool { return e.Big == nil && !e.Alone }

// eachRun calls f for each longest run of entries that pass, from one index to another. A big one is a run of its own.
// Once f was called for the last run the batch may be gone.
func eachRun(b *haul.Batch, from, end int, f func(first, n uint32)) {
	begin := from
	flush := func(to int) {
		if to > from {
			f(uint32(from), uint32(to-from))
		}
	}
	for i := begin; i < end; i++ {
		e := &b.Entries[i]
		drop := e.Drop != haul.DropNone
		if !drop && inRun(e) {
			continue
		}
		flush(i)
		from = i + 1
		if !drop {
			f(uint32(i), 1)
		}
	}
	flush(end)
}

func (s *standalone) again(items []item) {
	left := items[:0]
	for _, it := range items {
		for ; it.n > 0 && s.d.isThere(0, it); it.n-- {
			it.first++
			s.d.lanes[0].complete(it.batch, 1)
		}
		if it.n > 0 {
			left = append(left, it)
		}
	}
	s.d.lanes[0].push(left...)
}

// attend implements router: nothing moves here.
func (s *standalone) attend() error { return nil }

// tick implements router.
func (s *standalone) tick() {}

// slotsOf implements router.
func (s *standalone) slotsOf(*lane) []uint16 { return nil }

// behind implements router: on one server everything of the stream keeps its order.
func (s *standalone) behind(_ *lane, it item) bool { return !it.batch.Snapshot }

func (s *standalone) note(*lane, item) {}

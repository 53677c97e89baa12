package main

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/reader"
)

// shard is the link to one shard of a cluster source. The shard is known by its replication history: which server has it
// may change.
type shard struct {
	link

	all    *shards
	number int32
	stop   context.CancelCauseFunc // ends it

	mu     sync.Mutex
	addr   string    // of the primary, as it was seen last
	id     string    // replication id of the history that is followed; empty before the first full sync
	orphan time.Time // since when no primary has that history
	reader haul.Reader
	haul   *haul.Haul       // the pipeline that runs; nil between two
	early  topology.SlotSet // the link's already, and the target does not know yet
}

// orphanPatience is how long a failover may take before a history that no primary has counts as lost.
const orphanPatience = 15 * time.Second

// run follows the shard, with a folder of its own.
func (l *shard) run(ctx context.Context) error {
	if l.dir != "" {
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return haul.Errorf(haul.ExitUsage, "choose another --state-dir", "state directory: %w", err)
		}
	}
	return l.follow(ctx)
}

// Mine implements writer.Shard.
func (l *shard) Mine(slot uint16) bool { return l.all.slots.Owner(slot) == l.number }

// Moved implements writer.Shard.
func (l *shard) Moved(ctx context.Context, slots []uint16) error { return l.all.release(ctx, slots) }

// at says where the link's shard is, before it begins.
func (l *shard) at(addr string, node topology.Node) { l.addr, l.ends.source = addr, node }

// mySlots returns the link's slots.
func (l *shard) mySlots() *topology.SlotSet {
	var set topology.SlotSet
	for slot := range uint16(topology.SlotCount) {
		if l.Mine(slot) {
			set.Add(slot)
		}
	}
	return &set
}

// history is the replication id under which the link goes on.
func (l *shard) history() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.reader != nil {
		if id := l.reader.Status().ReplID; id != "" {
			l.id = id
		}
	}
	return l.id
}

// find returns the address of the server that goes on with the link's history, or that has its slots if there is none.
func (l *shard) find(ctx context.Context, h *reader.History) ([]string, error) {
	v, err := l.all.look.look(ctx)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var addr string
	var found bool
	if h != nil {
		addr, found = v.heir(h.ID)
	} else if addr, found = l.successor(v); !found {
		_, found = v.nodes[l.addr]
		addr = l.addr
	}
	if found {
		l.orphan = time.Time{}
	} else {
		if l.orphan.IsZero() {
			l.orphan = time.Now()
		}
		if time.Since(l.orphan) > orphanPatience && v.whole() == nil && v.missing == nil {
			addr, found = l.successor(v) // which shows that the history is lost
		}
		if !found {
			return nil, errNoHeir
		}
	}
	l.addr = addr
	node, err := inspectAt(ctx, l.source, addr) // what the others were told may be older than what was received
	if err != nil {
		return nil, err
	}
	all := []reader.Candidate{{Addr: addr, Node: node}}
	if l.cfg.PreferReplica {
		all = append(all, l.all.look.replicas(ctx, v, addr)...)
	}
	chosen, err := reader.Choose(all, nil, l.cfg.PreferReplica, h)
	return []string{chosen.Addr}, err
}

// successor returns the primary that has most of the link's slots.
func (l *shard) successor(v *survey) (addr string, ok bool) {
	counts, most := make(map[string]int), 0
	for slot := range uint16(topology.SlotCount) {
		if owner, has := v.Owner(slot); has && l.Mine(slot) {
			counts[owner]++
			if counts[owner] > most {
				addr, most = owner, counts[owner]
			}
		}
	}
	return addr, most > 0
}

// open decides what the link's generations begin with.
func (l *shard) open(book *ledger) {
	first := l.all.first
	book.first.Databases = first.Databases
	book.first.Began, book.first.Grace, book.first.Import = first.Began, first.Grace, first.Import
	book.slots, book.streaming = l.known, l.all.streaming
}

// regain compares the link's slots with what the target has, when a pipeline is going to begin. A target that was restarted
// or failed over may have lost what was settled, or that it was: that is settled anew. And it may know of slots that
// have been taken since.
func (l *shard) regain(ctx context.Context, st *checkpoint.State) error {
	if !st.Found || st.Lost != nil || st.Record.Phase != checkpoint.PhaseStreaming || st.Record.Slots == nil {
		return nil
	}
	lost := slices.DeleteFunc(st.Unsettled, func(slot uint16) bool { return !l.Mine(slot) })
	l.mySlots().Each(func(slot uint16) {
		if !st.Record.Slots.Has(slot) {
			lost = append(lost, slot)
		}
	})
	if err := l.all.release(ctx, lost); err != nil {
		return err
	}
	return l.saveSlots(ctx)
}

// begins hears of a new pipeline of the link.
func (l *shard) begins(h *haul.Haul) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reader, l.haul = h.Reader, h
}

// ended hears that the pipeline has ended.
func (l *shard) ended() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.haul = nil
}

// running returns the pipeline that runs; nil if none does.
func (l *shard) running() *haul.Haul {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.haul
}

// streaming hears that a link's snapshot is on the target: with the last of them, the copy is whole.
func (s *shards) streaming(ctx context.Context) error {
	for _, l := range s.all() {
		if l.store.Record().Phase != checkpoint.PhaseStreaming {
			return nil
		}
	}
	return s.store.Update(ctx, func(r *checkpoint.Record) { r.Phase = checkpoint.PhaseStreaming })
}

// together waits until all links have reached the goal.
func (l *shard) together(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !l.all.reached(l) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// reached notes that a link has reached the goal, and reports whether all have, with no slot on the move.
func (s *shards) reached(l *shard) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.goals[l] = true
	moving := s.unsettled()
	s.finished = s.finished || len(s.goals) == len(s.links) && moving.Len() == 0
	return s.finished // and so for all, whatever moves then
}

// unsettled returns the slots that no link writes.
func (s *shards) unsettled() (moving topology.SlotSet) {
	for slot := range uint16(topology.SlotCount) {
		if s.slots.Owner(slot) == 0 {
			moving.Add(slot)
		}
	}
	return moving
}

// linkOf names the link that a slot belongs to, if it belongs to one.
func (s *shards) linkOf(slot uint16) (name string, ok bool) {
	number := s.slots.Owner(slot)
	for _, l := range s.all() {
		if l.number == number {
			return l.name, true
		}
	}
	return "", false
}

// slotsOf counts the slots of a link.
func (s *shards) slotsOf(name string) int {
	for _, l := range s.all() {
		if l.name == name {
			return l.mySlots().Len()
		}
	}
	return 0
}

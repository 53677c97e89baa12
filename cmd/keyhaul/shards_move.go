package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// surveyEvery is how often a cluster source is asked who has which slots.
const surveyEvery = 500 * time.Millisecond

// supervise follows the shards of the source until over ends: it starts links in ctx, and takes slots from links that have
// lost them.
func (s *shards) supervise(over, ctx context.Context) {
	const who = "source cluster"
	defer s.waits.Clear(whoMoves)
	tick := time.NewTicker(surveyEvery)
	defer tick.Stop()
	defer s.settling.Wait()
	for {
		select {
		case <-tick.C:
		case <-over.Done():
			return
		}
		v, err := s.look.look(over)
		if err == nil {
			err = v.whole()
		}
		if err == nil {
			err = s.compare(ctx, v)
		}
		if err == nil {
			s.settle(over, v)
		}
		s.tellMoves(v)
		switch {
		case over.Err() != nil:
			return
		case err != nil:
			s.waits.Set(who, err.Error(), sourceRemedy(err, "none needed if the cluster is failing over; else look at CLUSTER NODES there"))
		default:
			s.waits.Clear(who)
		}
	}
}

// whoMoves is who waits for slots that do not arrive anywhere.
const whoMoves = "slots of the source"

// tellMoves tells the operator of slots that have been on the move for long.
func (s *shards) tellMoves(v *survey) {
	const long = 10 * time.Second
	moving := s.unsettled()
	switch {
	case moving.Len() == 0:
		s.moves = time.Time{}
	case s.moves.IsZero():
		s.moves = time.Now()
	}
	if s.moves.IsZero() || time.Since(s.moves) < long {
		s.waits.Clear(whoMoves)
		return
	}
	why := "their keys are being read"
	open := 0
	moving.Each(func(slot uint16) {
		if v != nil && v.open.Has(slot) {
			open++
		}
	})
	if open > 0 {
		why = fmt.Sprintf("%d of them are open on the source (migrating or importing)", open)
	}
	s.waits.Set(whoMoves, fmt.Sprintf("%d slots are on the move between shards, %s: what the target has of them may be old", moving.Len(), why),
		"none while slots are moved; else close them on the source: redis-cli --cluster fix")
}

// compare compares what the source says with what the links have.
func (s *shards) compare(ctx context.Context, v *survey) error {
	links := s.all()
	at, others := v.linksOf(links) // asked once: a link may learn its history meanwhile
	for _, sh := range v.Shards {
		if node, ok := v.nodes[sh.Primary]; ok && at[sh.Primary] == nil && s.isNew(others, sh.Primary, v) {
			l, err := s.adopt(ctx, sh.Primary, node)
			if err != nil {
				return err
			}
			at[sh.Primary] = l
		}
	}
	var moved []uint16
	for slot := range uint16(topology.SlotCount) {
		addr, _ := v.Owner(slot)
		if l := at[addr]; l != nil && s.slots.Owner(slot) != 0 && !l.Mine(slot) {
			moved = append(moved, slot)
		}
	}
	if err := s.release(ctx, moved); err != nil {
		return err
	}
	for _, l := range links {
		if v.missing == nil && s.isGone(l, v) {
			l.stop(errShardGone)
		}
	}
	return nil
}

// linksOf returns the links by the addresses of the primaries that they are about, and the others: no primary has their
// history, or they have none yet.
func (v *survey) linksOf(links []*shard) (at map[string]*shard, others []*shard) {
	at = make(map[string]*shard)
	for _, l := range links {
		if addr, ok := v.heir(l.history()); ok {
			at[addr] = l
		} else {
			others = append(others, l)
		}
	}
	return at, others
}

// isNew reports whether a primary that no link is about is a shard of its own: none of the other links was there, or has
// slots that are there.
func (s *shards) isNew(others []*shard, addr string, v *survey) bool {
	there := v.slotsOf(addr)
	for _, l := range others {
		l.mu.Lock()
		known := l.addr == addr
		l.mu.Unlock()
		mine := l.mySlots()
		there.Each(func(slot uint16) { known = known || mine.Has(slot) })
		if known {
			return false
		}
	}
	return true
}

// adopt starts a link to a shard that has appeared.
func (s *shards) adopt(ctx context.Context, addr string, node topology.Node) (*shard, error) {
	l := s.newShard(node.ReplID[:min(12, len(node.ReplID))])
	l.at(addr, node)
	err := s.store.Update(ctx, func(r *checkpoint.Record) { r.Links = append(r.Links, l.name) })
	if err == nil {
		s.start(ctx, l)
	}
	return l, err
}

// isGone reports whether a link's shard has left the source: it has no slots, and nobody its history.
func (s *shards) isGone(l *shard, v *survey) bool {
	id := l.history()
	if id == "" || l.mySlots().Len() > 0 {
		return false
	}
	_, lives := v.heir(id)
	return !lives
}

// release takes slots from the links that have them: they are on the move. When it returns without an error the target
// knows. After one it does not, even of slots that are no one's by then: it is to be called again.
func (s *shards) release(ctx context.Context, slots []uint16) error {
	s.moving.Lock()
	defer s.moving.Unlock()
	news := false
	for _, slot := range slots {
		if owner := s.slots.Owner(slot); owner != 0 {
			s.losers[owner], news = true, true
			s.slots.Give(slot, 0)
		}
	}
	if news {
		s.log.Info().Int("slots", len(slots)).Uint16("first", slots[0]).Msg("slots of the source are on the move")
	}
	for _, l := range s.all() {
		if s.losers[l.number] {
			if err := l.saveSlots(ctx); err != nil {
				return err
			}
			delete(s.losers, l.number)
		}
	}
	return nil
}

// saveSlots notes in the link's record which slots are its to write. A link that has no record yet begins with one.
func (l *shard) saveSlots(ctx context.Context) error {
	if l.store.Record().Generation == 0 {
		return nil
	}
	return l.store.Update(ctx, func(r *checkpoint.Record) { r.Slots = l.known() })
}

// sourceRemedy is what to do about an error of the source: permissions, or what else it may be.
func sourceRemedy(err error, other string) string {
	if refused := (*resp.Error)(nil); errors.As(err, &refused) && refused.Code == "NOPERM" {
		return "give the source's user the permissions that the README names for a cluster source"
	}
	return other
}

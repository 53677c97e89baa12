package main

import (
	"fmt"
	"strings"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// move moves a slot, and waits until it is settled.
func (s *shardsTrial) move(slot int, from, to *rt.Server) {
	s.t.Helper()
	_, before, err := s.look(s.keyhaul)
	if err != nil {
		s.t.Fatal(err)
	}
	s.from.MoveSlotWhile(slot, from, to, nil)
	s.from.WaitOK()
	s.settled(before)
}

// settled waits until all slots are settled, and keys were read for that.
func (s *shardsTrial) settled(before report) {
	s.t.Helper()
	const keys = "settled_keys"
	rt.Eventually(s.t, patience, func() error {
		_, r, err := s.look(s.keyhaul)
		if err == nil && (r.Unsettled > 0 || r.Target.Counts[keys] == before.Target.Counts[keys]) {
			err = fmt.Errorf("%d slots unsettled, %v", r.Unsettled, r.Target.Counts)
		}
		return err
	})
}

// TestShardsOthersKeys: when a slot of the source moves, keys of the target that are not the haul's stay, and keys of the
// source that are reserved are not copied.
func TestShardsOthersKeys(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target, "--existing", "replace")
			p := s.from.Primaries()
			slot := s.fillSlots(p[0], 1)[0]
			tag := s.tags[slot]
			at := s.nodes[0]
			if s.whole != nil {
				at = s.whole.NodeFor(slot)
			}
			at.MustDo("SET", tag+"another", "stays")
			reserved := "keyhaul:elsewhere:" + strings.TrimPrefix(tag, "move:")
			p[0].MustDo("SET", reserved, "a")
			s.begin()
			s.stopLoad()
			s.move(slot, p[0], p[1])
			p[1].MustDo("SET", tag+"late", "b")
			s.level()
			if got := at.MustDo("GET", tag+"another").Text; got != "stays" {
				t.Errorf("a key of the target's own has become %q", got)
			}
			if got := at.MustDo("EXISTS", reserved).Int; got != 0 {
				t.Error("a reserved key of the source was copied")
			}
			if got := at.MustDo("GET", tag+"late").Text; got != "b" {
				t.Errorf("a late key is %q", got)
			}
		})
	}
}

// TestShardsKilledWhileCopying: keyhaul is killed before all links have begun to copy, and when a shard was just added.
func TestShardsKilledWhileCopying(t *testing.T) {
	t.Parallel()
	s := newShardsTrial(t, rt.ClusterOptions{}, 3)
	s.start()
	rt.Eventually(t, patience, func() error {
		_, r, err := s.look(s.keyhaul)
		if err == nil && len(r.Links) < 3 {
			err = fmt.Errorf("%d links", len(r.Links))
		}
		return err
	})
	s.kill()
	s.start()
	s.streaming(3)
	added := s.from.AddPrimary()
	slot := s.fillSlots(s.from.NodeFor(0), 1)[0]
	s.from.MoveSlotWhile(slot, s.from.NodeFor(slot), added, nil)
	rt.Eventually(t, patience, func() error {
		_, r, err := s.look(s.keyhaul)
		if err == nil && len(r.Links) < 4 {
			err = fmt.Errorf("%d links", len(r.Links))
		}
		return err
	})
	s.kill()
	s.start()
	s.streaming(4)
	s.equal()
}

// TestShardFlushedWithin: a FLUSHALL within a transaction of one shard empties that shard only.
func TestShardFlushedWithin(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			slot := s.fillSlots(s.from.Primaries()[0], 1)[0]
			s.begin()
			c := s.from.Primaries()[0].Dial()
			defer c.Close()
			for _, args := range [][]string{{"MULTI"}, {"SET", s.tags[slot] + "before", "a"}, {"FLUSHALL"}, {"SET", s.tags[slot] + "behind", "b"}, {"EXEC"}} {
				if _, err := c.Do(t.Context(), patience, args...); err != nil {
					t.Fatal(err)
				}
			}
			s.equal()
		})
	}
}

// TestShardsFromReplicas: links read from replicas while slots move.
func TestShardsFromReplicas(t *testing.T) {
	t.Parallel()
	s := newShardsTrial(t, rt.ClusterOptions{Replicas: 1}, 3, "--source-prefer-replica")
	p := s.from.Primaries()
	slot := s.fillSlots(p[0], 1)[0]
	s.begin()
	s.move(slot, p[0], p[1])
	s.stopLoad()
	at := p[1].Offset()
	rt.Eventually(t, patience, func() error {
		_, r, err := s.look(s.keyhaul)
		for _, l := range r.Links {
			if err == nil && l.Applied >= at && r.Unsettled == 0 {
				return nil
			}
		}
		return fmt.Errorf("not level: %v", err)
	})
}

// TestShardsAcross: a script of the source writes to several slots at once while one of them moves.
func TestShardsAcross(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			p := s.from.Primaries()
			slots := s.fillSlots(p[0], 1)
			moves, tag := slots[0], s.tags[slots[0]]
			stays := s.fillSlots(p[1], 1)
			other := s.tags[stays[0]]
			s.begin()
			s.stopLoad()
			for i := range 3000 { // so that reading takes a while
				p[0].MustDo("SET", tag+fmt.Sprint("x", i), i)
			}
			const script = "#!lua flags=allow-cross-slot-keys\nfor i = 1, 3 do redis.call('INCR', ARGV[1]..'count') redis.call('INCR', ARGV[2]..'count') end"
			from, to := p[0], p[1]
			for range 6 {
				s.from.MoveSlotWhile(moves, from, to, nil)
				for range 300 {
					if to == p[1] {
						to.MustDo("EVAL", script, 0, tag, other)
					}
				}
				from, to = to, from
			}
			s.from.WaitOK()
			s.equal()
		})
	}
}

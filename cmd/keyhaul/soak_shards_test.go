package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// moved is a way in which slots move from one shard of the source to another, each while it is written.
type moved func(s *shardsTrial, slots []int, from, to *rt.Server)

var waysToMove = map[string]moved{
	"classic": func(s *shardsTrial, slots []int, from, to *rt.Server) {
		for _, slot := range slots {
			s.from.MoveSlotWhile(slot, from, to, func() { s.writeOpen(slot, from, to) })
		}
	},
	"atomic": func(s *shardsTrial, slots []int, from, to *rt.Server) {
		const atOnce = 50
		for len(slots) > 0 {
			n := min(atOnce, len(slots))
			s.from.MigrateSlots(slots[:n], from, to)
			slots = slots[n:]
		}
	},
}

// writeOpen writes into a slot that is being moved: to keys that are still there, to some that have gone, and to new
// ones.
func (s *shardsTrial) writeOpen(slot int, from, to *rt.Server) {
	s.t.Helper()
	target := to.Dial()
	defer target.Close()
	key := s.tags[slot]
	if key == "" {
		return
	}
	for _, args := range [][]any{
		{"APPEND", key + "text", rand.IntN(1000)},
		{"RPUSH", key + "list", rand.IntN(10)},
		{"INCR", key + "count"},
		{"SET", key + strconv.Itoa(rand.IntN(100)), "new"},
		{"DEL", key + strconv.Itoa(rand.IntN(100))},
	} {
		if r := from.Do(args...); r.Err() == nil || resp.NewError(r.Text).Code != "ASK" {
			continue
		}
		words := make([]string, len(args))
		for i, a := range args {
			words[i] = fmt.Sprint(a)
		}
		if _, err := target.Do(context.Background(), patience, "ASKING"); err != nil {
			s.t.Fatal(err)
		}
		_, _ = target.Do(context.Background(), patience, words...) // it may be refused until the slot is closed
	}
}

// fillSlots writes keys into so many slots of a primary, and returns them.
func (s *shardsTrial) fillSlots(p *rt.Server, n int) []int {
	s.t.Helper()
	var slots []int
	s.tags = make(map[int]string)
	for i := 0; len(slots) < n; i++ {
		tag := fmt.Sprintf("move:{%d}:", i)
		slot := rt.Slot(tag)
		if s.tags[slot] != "" || s.from.NodeFor(slot) != p {
			continue
		}
		slots, s.tags[slot] = append(slots, slot), tag
		for k := range 6 {
			p.MustDo("SET", tag+strconv.Itoa(k), k)
		}
		p.MustDo("RPUSH", tag+"list", "a")
		p.MustDo("SET", tag+"text", "")
	}
	return slots
}

// TestSoakShardsReshard moves slots between the shards of the source, there and back, while 10,000 entries a second are
// written: 1,000 of them in the long form.
func TestSoakShardsReshard(t *testing.T) {
	for name, move := range waysToMove {
		t.Run(name, func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, 3)
			if name == "atomic" && !s.from.MovesAtomically() {
				t.Skip("this release cannot")
			}
			p := s.from.Primaries()
			slots := s.fillSlots(p[0], int(lasting(40, 1000)))
			s.begin()
			probes := s.startProbes()
			move(s, slots, p[0], p[1])
			move(s, slots[:len(slots)/2], p[1], p[2])
			move(s, slots[len(slots)/2:], p[1], p[0])
			move(s, slots[:len(slots)/2], p[2], p[0])
			s.from.WaitOK()
			longest, answer := probes.stop()
			r := s.equal()
			all := r.overall()
			t.Logf("%d slots moved between three shards, there and back: %d keys settled, %d entries of moving slots passed over; the longest stall of a slot that stays: %v; the longest answer of a server: %v",
				len(slots), r.Target.Counts["settled_keys"], r.Target.Counts["dropped_moved-slot"], longest, answer)
			if longest-answer > mostStalled {
				t.Errorf("a slot that stays was stalled for %v", longest-answer)
			}
			if all.FullSyncs != 3 || all.PartialSyncs != 0 {
				t.Errorf("%d full and %d partial copies", all.FullSyncs, all.PartialSyncs)
			}
		})
	}
}

// TestSoakShardsKill kills keyhaul while slots move between the shards of the source.
func TestSoakShardsKill(t *testing.T) {
	for _, target := range []int{3, 0} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			p := s.from.Primaries()
			slots := s.fillSlots(p[0], 10*rounds())
			s.begin()
			for i := range rounds() {
				some := slots[i*10 : (i+1)*10]
				waysToMove["classic"](s, some[:5], p[0], p[1])
				s.kill()
				waysToMove["classic"](s, some[5:], p[0], p[1])
				s.start()
				waysToMove["classic"](s, some[:3], p[1], p[2])
				s.streaming(3)
			}
			s.from.WaitOK()
			if r := s.equal(); r.overall().FullSyncs != 0 {
				t.Errorf("%d full copies by a resumed keyhaul", r.overall().FullSyncs)
			}
		})
	}
}

// TestSoakShardsCancelled gives up moving slots half-way.
func TestSoakShardsCancelled(t *testing.T) {
	s := newShardsTrial(t, rt.ClusterOptions{}, 3)
	p := s.from.Primaries()
	slots := s.fillSlots(p[0], 5*rounds())
	s.begin()
	for _, slot := range slots {
		s.from.CancelSlot(slot, p[0], p[1], func() { s.writeOpen(slot, p[0], p[1]) })
	}
	if s.from.MovesAtomically() {
		for range rounds() {
			s.from.CancelMigration(slots, p[0], p[1])
		}
	}
	s.from.WaitOK()
	if r := s.equal(); r.overall().FullSyncs != 3 {
		t.Errorf("%d full copies", r.overall().FullSyncs)
	}
}

// TestSoakShardsGrow: two shards are added to the source, get slots, and leave it again.
func TestSoakShardsGrow(t *testing.T) {
	for _, target := range []int{3, 0} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target)
			s.begin()
			old := s.from.Primaries()
			added := []*rt.Server{s.from.AddPrimary(), s.from.AddPrimary()}
			moves := make(map[int]*rt.Server)
			for i := 0; i < 16384; i += int(lasting(200, 20)) {
				from := s.from.NodeFor(i)
				moves[i] = from
				s.from.MoveSlotWhile(i, from, added[i/200%2], func() {})
			}
			s.from.WaitOK()
			s.streaming(5)
			s.equal()
			s.loadInto(s.from.Endpoint(), 3000)
			for slot, back := range moves {
				s.from.MoveSlotWhile(slot, s.from.NodeFor(slot), back, func() {})
			}
			s.from.WaitOK()
			s.equal()
			for _, n := range added {
				s.from.Remove(n)
			}
			s.streaming(len(old))
			s.loadInto(s.from.Endpoint(), 3000)
			pause(100e6, 300e6)
			s.equal()
		})
	}
}

// TestSoakShardFailover: primaries of the source fail over under 10,000 entries a second, on command and by being killed.
func TestSoakShardFailover(t *testing.T) {
	s := newShardsTrial(t, rt.ClusterOptions{Replicas: 1}, 3)
	s.begin()
	n := rounds()
	if n >= longRounds {
		n = 20
	}
	var longest time.Duration
	for i := range n {
		primary := s.from.Primaries()[i%3]
		replica := s.from.ReplicaOf(primary)
		began := time.Now()
		if i%2 == 0 {
			s.from.Failover(replica)
		} else {
			primary.Kill()
		}
		rt.Eventually(t, patience, func() error {
			if role := replica.Info("replication")["role"]; role != "master" {
				return fmt.Errorf("it is %s", role)
			}
			return nil
		})
		promoted := time.Now()
		s.until(s.keyhaul, "linked", func(haul.LinkStatus) bool {
			_, r, err := s.look(s.keyhaul)
			return err == nil && s.reads(r, replica.Addr)
		})
		longest = max(longest, time.Since(promoted))
		t.Logf("failover %d: promoted after %v, linked %v later", i, promoted.Sub(began).Round(time.Millisecond), time.Since(promoted).Round(time.Millisecond))
		if i%2 == 1 {
			primary.Restart()
		}
		s.from.WaitOK()
	}
	r := s.equal()
	if all := r.overall(); all.FullSyncs != 3 {
		t.Errorf("%d full copies", all.FullSyncs)
	}
	t.Logf("%d failovers, at most %v from a promotion until keyhaul reads from the new primary", n, longest)
}

// startProbes writes to a slot of each shard, as probes of a standalone source do.
func (s *shardsTrial) startProbes() *probes {
	p := newProbes()
	for _, primary := range s.from.Primaries() {
		p.start(s.trial, primary, s.from, primary)
	}
	return p
}

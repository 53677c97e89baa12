package main

import (
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestSoakResumeInOpenSlot: keyhaul is killed while a slot is being migrated whose fence has gone ahead and whose mark
// has not. It goes on before the slot is closed.
func TestSoakResumeInOpenSlot(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true, drift: 100 * time.Millisecond}) // MIGRATE sends the time that is left
	s.startLoad()
	s.start()
	from, to, slot := s.nodes[0], s.nodes[1], uint16(0)
	fence := checkpoint.Keys{Name: "default"}.Fence(slot)
	s.strike(func() {
		from.MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", to.MustDo("CLUSTER", "MYID").Text)
		to.MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", from.MustDo("CLUSTER", "MYID").Text)
		from.MustDo("MIGRATE", "127.0.0.1", to.Port, fence, 0, 5000)
		s.kill()
	})
	s.start()
	t.Logf("entries flow again after %v", s.moving(s.keyhaul))
	if r := from.Do("GET", fence); !strings.HasPrefix(r.Text, "ASK ") {
		t.Errorf("the slot is not open any more: %s", r.Text)
	}
	s.whole.MoveSlot(int(slot), from, to)
	s.equal(1)
}

// TestSoakNewPrimary: while keyhaul is down a primary is added, gets slots of the others, and the marks of two of them
// go with their first slots.
func TestSoakNewPrimary(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true, drift: 100 * time.Millisecond}) // MIGRATE sends the time that is left
	s.startLoad()
	s.start()
	s.strike(s.kill)
	added := s.whole.AddPrimary()
	for slot := 100; slot < 16384; slot += 400 { // that of the third node has no mark
		s.whole.MoveSlot(slot, s.whole.NodeFor(slot), added)
	}
	for _, node := range s.nodes[:2] {
		s.whole.MoveSlot(firstSlot(t, node), node, s.nodes[2])
	}
	s.start()
	s.moving(s.keyhaul)
	s.target = s.whole.Endpoint()
	s.equal(1)
}

// firstSlot returns the lowest slot of a node, where its mark is.
func firstSlot(t *testing.T, node *rt.Server) int {
	t.Helper()
	for slot := range 16384 {
		key := checkpoint.Keys{Name: "default"}.Mark(uint16(slot))
		if r := node.Do("EXISTS", key); r.Err() == nil && r.Int == 1 {
			return slot
		}
	}
	t.Fatalf("%s has no mark", node.Addr)
	return 0
}

package checkpoint

import (
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// openSlot begins to migrate a slot, and sends some keys of it ahead.
func openSlot(slot uint16, from, to *redistest.Server, keys ...string) {
	from.MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", to.MustDo("CLUSTER", "MYID").Text)
	to.MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", from.MustDo("CLUSTER", "MYID").Text)
	for _, key := range keys {
		from.MustDo("MIGRATE", "127.0.0.1", to.Port, key, 0, 5000)
	}
}

// TestLoadWhileSlotsAreOpen: fence and mark of a slot may be on both sides of a migration.
func TestLoadWhileSlotsAreOpen(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	begun(t, s)
	ctx, k := testContext(t), s.Keys()
	must(t, s.Mark(ctx, at(200)))
	for slot, offset := range []int64{500, 600, 700, 800} {
		key := k.Fence(uint16(slot))
		c.MustDo(key, "SET", key, at(offset).text())
	}
	from, to := c.Nodes[0], c.Nodes[1]
	openSlot(0, from, to, k.Fence(0)) // its mark stays
	openSlot(1, from, to, k.Fence(1))
	openSlot(2, from, to)
	st := load(t, newStore(t, c.Endpoint(), true, "w2"))
	if st.Lost != nil || st.Base.Offset != 200 || st.Applied[0] != 500 || st.Applied[1] != 600 || st.Applied[2] != 700 || st.Applied[3] != 800 {
		t.Errorf("lost %v, base %d, applied %v", st.Lost, st.Base.Offset, st.Applied[:4])
	}
	into := make([]int64, 16384)
	must(t, s.Applied(ctx, from.Addr, []uint16{0, 1, 2, 3}, into))
	if into[0] != 500 || into[1] != 600 || into[2] != 700 || into[3] != 800 {
		t.Error(into[:4])
	}
	from.MustDo("MIGRATE", "127.0.0.1", to.Port, k.Mark(0), 0, 5000) // the other way round
	if st := load(t, newStore(t, c.Endpoint(), true, "w3")); st.Lost != nil || st.Base.Offset != 200 || st.Nodes[0].Mark.Applied() != 200 {
		t.Errorf("lost %v, base %d", st.Lost, st.Base.Offset)
	}
	from.MustDo("DEL", k.Fence(3))
	openSlot(3, from, to)
	if st := load(t, newStore(t, c.Endpoint(), true, "w4")); st.Lost == nil || !strings.Contains(st.Lost.Error(), "fence of slot 3") {
		t.Errorf("a fence that is on neither side: %v", st.Lost)
	}
}

// TestNodeWithoutMark: it may take that of others as long as nobody has lost anything.
func TestNodeWithoutMark(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	begun(t, s)
	ctx, k := testContext(t), s.Keys()
	var holders []string
	for _, n := range load(t, s).Nodes {
		holders = append(holders, n.Holder)
	}
	first := k.Mark(uint16(5461))
	if c.MustDo(first, "DEL", first).Int != 1 {
		t.Fatal("no mark of the second node")
	}
	lost := func(want string) {
		t.Helper()
		st := load(t, newStore(t, c.Endpoint(), true, "w2"))
		if want == "" && (st.Lost != nil || st.Base.Offset != 100) || want != "" && (st.Lost == nil || !strings.Contains(st.Lost.Error(), want)) {
			t.Errorf("lost %v, base %d, want %q", st.Lost, st.Base.Offset, want)
		}
	}
	lost("the mark on") // nobody knows who was written to
	must(t, s.Hold(ctx, holders))
	lost("")
	must(t, s.Hold(ctx, holders[:2])) // the third one is new
	lost("")
	other := k.Mark(0)
	c.MustDo(other, "SET", other, at(90).text())
	if st := load(t, newStore(t, c.Endpoint(), true, "w3")); st.Base.Offset != 90 || st.Nodes[1].Mark.Applied() != 90 {
		t.Errorf("base %d, mark of the second node %d", st.Base.Offset, st.Nodes[1].Mark.Applied())
	}
	must(t, s.Hold(ctx, append(holders[:2:2], "another/one")))
	lost("the mark on")
	if r := s.Record(); r.Phase != PhaseStreaming || len(r.Holders) != 3 {
		t.Errorf("%+v", r)
	}
}

package writer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// openSlot opens a slot with key 0 on the importing side and key 1 on the other, and returns what closes it.
func openSlot(c *rt.Cluster, tag string, to *rt.Server) (closeIt func()) {
	slot := rt.Slot("{" + tag + "}")
	from := c.NodeFor(slot)
	fromID, toID := from.MustDo("CLUSTER", "MYID").Text, to.MustDo("CLUSTER", "MYID").Text
	to.MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	from.MustDo("MIGRATE", "127.0.0.1", to.Port, "{"+tag+"}0", 0, 5000)
	return func() { c.MoveSlot(slot, from, to) }
}

// TestFrozenSlots: slots that wait are shown, and delay neither other open slots nor those that stay.
func TestFrozenSlots(t *testing.T) {
	c := rt.StartCluster(t, rt.ClusterOptions{})
	r := exactRig(t, c.Nodes[0].Addr, nil)
	tags := []string{"x", "y", "z"} // the node of each is another one
	for _, tag := range tags {
		r.do("SET {"+tag+"}0 0", "SET {"+tag+"}1 0", "INCR {"+tag+"}count")
	}
	r.drained()
	var closing []func()
	for _, tag := range tags {
		from := c.NodeFor(rt.Slot("{" + tag + "}"))
		closing = append(closing, openSlot(c, tag, next(c, from, 1)))
	}
	r.do("MSET {x}0 1 {x}1 1", "APPEND {x}0 2") // neither side takes it
	stuck := rt.Slot("{x}")
	r.waitsFor(fmt.Sprintf("slot %d takes nothing", stuck))
	s := r.w.Status()
	if s.FrozenSlots != 1 || len(s.Slots) != 1 || int(s.Slots[0].Slot) != stuck || s.Slots[0].Cause != "TRYAGAIN" || s.Slots[0].Waiting != 2 ||
		s.Slots[0].From != c.NodeFor(stuck).Addr || s.Slots[0].Since.IsZero() || s.Slots[0].Waits <= 0 {
		t.Errorf("%+v", s.Slots)
	}
	for _, tag := range tags[1:] { // either side takes a part of it, one entry after the other
		for i := range 50 {
			r.do(fmt.Sprintf("SET {%s}0 %d", tag, i), fmt.Sprintf("SET {%s}1 %d", tag, i), fmt.Sprintf("SET {%s}new%d %d", tag, i, i))
		}
	}
	r.do("INCR elsewhere")
	arrives := func(key, want string, nodes ...*rt.Server) {
		t.Helper()
		rt.Eventually(t, limit, func() error {
			var got []string
			for _, n := range nodes {
				n.Do("ASKING")
				got = append(got, answerOf(n.Do("GET", key)))
			}
			if !strings.Contains(strings.Join(got, " "), want) {
				return fmt.Errorf("%s is %q, want %s; %+v", key, got, want, r.w.Status())
			}
			return nil
		})
	}
	arrives("{y}new49", "49", c.Nodes...)
	arrives("{z}new49", "49", c.Nodes...)
	arrives("elsewhere", "1", c.Nodes...)
	if r.ch.Watermark.Stream().Offset == r.offset {
		t.Error("the watermark has passed an entry that waits")
	}
	for _, f := range closing {
		f()
	}
	r.drained()
	r.waitsNoMore()
	for key, want := range map[string]string{"{x}0": "12", "{x}1": "1", "{y}0": "49", "{y}1": "49", "{z}0": "49", "{z}1": "49"} {
		if got := answerOf(c.MustDo(key, "GET", key)); got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}

// TestOpenSlotTimeout: a slot that is left open for too long ends the run, after a warning.
func TestOpenSlotTimeout(t *testing.T) {
	c := rt.StartCluster(t, rt.ClusterOptions{})
	r := exactRig(t, c.Nodes[0].Addr, func(cfg *Config) { cfg.OpenSlots = time.Second })
	r.do("SET {x}0 0", "SET {x}1 0")
	r.drained()
	openSlot(c, "x", next(c, c.NodeFor(rt.Slot("{x}")), 1))
	r.do("MSET {x}0 1 {x}1 1")
	err := r.end()
	var failed *haul.Error
	if !errors.As(err, &failed) || failed.Exit != haul.ExitFailed || !strings.Contains(err.Error(), fmt.Sprintf("slot %d", rt.Slot("{x}"))) ||
		!strings.Contains(err.Error(), "TRYAGAIN") {
		t.Errorf("it ends with %v", err)
	}
	if !strings.Contains(r.log.String(), "a slot of the target takes nothing") {
		t.Error("there was no warning")
	}
}

// TestBarrierWaitsForFrozenSlots: what concerns every node comes behind entries that wait for their slot.
func TestBarrierWaitsForFrozenSlots(t *testing.T) {
	c := rt.StartCluster(t, rt.ClusterOptions{})
	r := exactRig(t, c.Nodes[0].Addr, nil)
	r.do("SET {x}0 0", "SET {x}1 0")
	r.drained()
	closeIt := openSlot(c, "x", next(c, c.NodeFor(rt.Slot("{x}")), 1))
	r.do("MSET {x}0 1 {x}1 1", "FLUSHALL", "SET {x}1 2")
	r.waitsFor("takes nothing")
	closeIt()
	r.drained()
	for key, want := range map[string]string{"{x}0": "", "{x}1": "2"} {
		if got := c.MustDo(key, "GET", key).Text; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
}

// TestPrimaryAddedAndRemoved: a primary that was never a replica may lack nothing, so that the stream goes on.
func TestPrimaryAddedAndRemoved(t *testing.T) {
	c := rt.StartCluster(t, rt.ClusterOptions{})
	extra := addPrimary(t, c)
	g := target{c.Nodes[0].Addr, c.MustDo, c.Nodes}
	r := exactRig(t, c.Nodes[0].Addr, nil)
	load := &counter{keys: 40}
	load.send(r)
	r.drained()
	slots := make([]int, load.keys)
	homes := make([]*rt.Server, load.keys)
	lanes := func(want int) {
		t.Helper()
		rt.Eventually(t, limit, func() error {
			if n := len(r.w.Status().Lanes); n != want {
				return fmt.Errorf("there are %d lanes, want %d: %+v", n, want, r.w.Status())
			}
			return nil
		})
	}
	move := func(i int, from, to *rt.Server) {
		c.MoveSlotWhile(slots[i], from, to, func() { load.send(r) })
		load.send(r)
	}
	for i := range slots {
		slots[i] = rt.Slot(fmt.Sprintf("{%d}", i))
		homes[i] = c.NodeFor(slots[i])
		move(i, homes[i], extra)
	}
	lanes(4)
	c.WaitOK()
	for i := range slots {
		move(i, extra, homes[i])
	}
	r.drained()
	lanes(3)
	load.check(t, g)
	r.waitsNoMore()
}

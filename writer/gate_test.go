package writer

import (
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// TestGateClosesBeforeItOpens: an entry is refused between the moment when the writing goroutine looks whether the lane
// is held and the moment when it looks what is answered. Nothing more of the slot may go.
func TestGateClosesBeforeItOpens(t *testing.T) {
	const down = "-OOM command not allowed\r\n"
	aborted := []string{"+OK\r\n", down, "+QUEUED\r\n", "-EXECABORT because of that\r\n"}
	for _, c := range []struct {
		first, second string
		replies       []string
	}{
		{"SET {a}x 1", "INCR {a}x", []string{down}}, // a second SET may go, and is sent again
		{"INCR {a}x", "INCR {a}x", aborted},
		{"INCR {a}x", "SET {a}x 2", aborted},
	} {
		t.Run(c.first+", "+c.second, func(t *testing.T) {
			store := checkpoint.New(checkpoint.Config{Dialer: topology.NewDialer(topology.Endpoint{}), Name: "test", Cluster: true})
			d := newDispatcher(Config{Node: topology.Node{Cluster: true}, Exact: true, Store: store, Log: zerolog.Nop()})
			newCluster(d)
			l := newLane(d, "")
			l.begin(&resp.Conn{})
			o := &outbox{conn: nowhere{}, push: func(ops []op) { l.launch(ops, 0) }}
			r := &rig{t: t, ch: haul.NewChannel(1 << 20)}
			b := r.batch(false)
			b.words(c.first)
			b.words(c.second)
			deliver := func(x turn) int {
				before := l.sent
				if _, err := l.throughGate(o, x, new(int)); err != nil {
					t.Fatal(err)
				}
				if err := o.flush(); err != nil {
					t.Fatal(err)
				}
				return int(l.sent - before)
			}
			it := item{batch: b.b, n: 1, slot: command.Slot([]byte("a"))}
			l.push(it)
			if n := deliver(l.take(16)); n == 0 {
				t.Fatal("nothing was sent")
			}
			l.rest()
			it.first = 1
			l.push(it)
			x := l.take(16)
			var cur op
			more := false
			for _, text := range c.replies {
				if !more {
					cur, _ = l.next()
				}
				var err error
				if more, err = l.reply(&cur, []byte(text)); err != nil {
					t.Fatal(err)
				}
			}
			if l.waiting() || len(l.failed) != 1 || !l.held {
				t.Fatalf("the refusal was not noted: waiting %t, %d failed", l.waiting(), len(l.failed))
			}
			if n := deliver(x); n != 0 {
				t.Errorf("%d ops are sent behind an entry that was refused", n)
			}
			var s setback
			l.rest()
			l.collect(&s)
			var order []string
			for _, it := range s.items() {
				order = append(order, string(it.batch.Arg(&it.batch.Commands[it.first], 0)))
			}
			if want := strings.Fields(c.first)[0] + " " + strings.Fields(c.second)[0]; strings.Join(order, " ") != want {
				t.Errorf("%v is sent again, want %s", order, want)
			}
		})
	}
}

// TestSlotsForgetLanes: what a slot knows is in numbers of the lane that has it, which may be another one after a recovery.
func TestSlotsForgetLanes(t *testing.T) {
	store := checkpoint.New(checkpoint.Config{Dialer: topology.NewDialer(topology.Endpoint{}), Name: "test", Cluster: true})
	d := newDispatcher(Config{Node: topology.Node{Cluster: true}, Exact: true, Store: store, Log: zerolog.Nop()})
	newCluster(d)
	d.slots[7].last, d.slots[7].fenced = 1000, true
	d.slots[8].last = unsent
	d.lanes = []*lane{newLane(d, "")}
	d.collect()
	for s := range d.slots {
		if st := &d.slots[s]; st.last != 0 || st.fenced {
			t.Errorf("slot %d: %+v", s, st)
		}
	}
}

// TestRefusedMultiRewinds: where MULTI is refused, what follows is carried out one by one.
func TestRefusedMultiRewinds(t *testing.T) {
	p := rt.NewPeer(t, script(
		exactLogin(7), expectAll("MULTI", "INCR a"), rt.Expect("SET", wholeFence, rt.Any), rt.Expect("EXEC"),
		replyAll("-BUSY Redis is busy running a script.", ":1", "+OK", "-ERR EXEC without MULTI"), rt.ExpectEOF(),
	))
	r := exactPeerRig(t, p, false)
	r.do("INCR a")
	if err := r.end(); !errors.Is(err, ErrRewind) {
		t.Errorf("it ends with %v", err)
	}
	p.Wait()
}

package writer

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// reshard writes to slots, in rounds, while they move.
type reshard struct {
	r      *rig
	c      *rt.Cluster
	slots  []int
	still  string // a tag whose slot stays where it is
	rounds atomic.Int64
	stop   chan struct{}
	done   chan struct{}
}

// newReshard begins with n slots that have keys, a third of them at each node, and these next to each other.
func newReshard(t *testing.T, c *rt.Cluster, n int, change func(*Config)) *reshard {
	t.Helper()
	for _, node := range c.Nodes {
		node.Do("FLUSHALL")
	}
	s := &reshard{r: exactRig(t, c.Nodes[0].Addr, change), c: c, still: checkpoint.Tag(16000), stop: make(chan struct{}), done: make(chan struct{})}
	for i := range n {
		s.slots = append(s.slots, i*3/n*5462+i)
	}
	s.send()
	s.r.drained()
	go func() {
		defer close(s.done)
		tick := time.NewTicker(3 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-tick.C:
				s.send()
			}
		}
	}()
	return s
}

// send sends one round: what may be repeated and what not, several keys at once, transactions, a large value.
func (s *reshard) send() {
	n := s.rounds.Load()
	b := s.r.batch(false)
	for i, slot := range s.slots {
		tag := "{" + checkpoint.Tag(uint16(slot)) + "}"
		b.words(fmt.Sprintf("APPEND %s:text %d,", tag, n))
		b.words(fmt.Sprintf("SET %s:%d %d", tag, n%6, n))
		b.words(fmt.Sprintf("MSET %s:a %d %s:b %d %s:c %d", tag, n, tag, n, tag, n))
		b.words(fmt.Sprintf("RPUSH %s:list %d", tag, n))
		b.tx(0, fmt.Sprintf("INCRBY %s:sum %d", tag, n), fmt.Sprintf("APPEND %s:log %d,", tag, n))
		if i == int(n)%len(s.slots) {
			b.words(fmt.Sprintf("SET %s:large %s", tag, strings.Repeat(strconv.Itoa(int(n%10)), 20_000)))
		}
	}
	b.words(fmt.Sprintf("INCR {%s}:still", s.still))
	b.send()
	s.rounds.Add(1)
}

// flows waits until slots that stay where they are have taken what is sent from now on.
func (s *reshard) flows() {
	t := s.r.t
	t.Helper()
	want := s.rounds.Load() + 3
	rt.Eventually(t, limit, func() error {
		key := "{" + s.still + "}:still"
		if got, _ := strconv.ParseInt(answerOf(s.c.Nodes[2].MustDo("GET", key)), 10, 64); got < want {
			return fmt.Errorf("%s is %d, want %d; %+v", key, got, want, s.r.w.Status())
		}
		return nil
	})
}

// check ends it and compares every key with what one delivery of each round, in order, leads to.
func (s *reshard) check(wanted ...string) {
	t := s.r.t
	t.Helper()
	close(s.stop)
	<-s.done
	s.r.drainedIn(time.Minute)
	s.c.WaitOK()
	list, sum, n := "", 0, int(s.rounds.Load())
	for i := range n {
		list += strconv.Itoa(i) + ","
		sum += i
	}
	for _, slot := range s.slots {
		tag := "{" + checkpoint.Tag(uint16(slot)) + "}"
		node := s.c.NodeFor(slot)
		last := strconv.Itoa(n - 1)
		for key, want := range map[string]string{"text": list, "log": list, "sum": strconv.Itoa(sum), "a": last, "b": last, "c": last, strconv.Itoa((n - 1) % 6): last} {
			if got := answerOf(node.MustDo("GET", tag+":"+key)); got != want {
				t.Errorf("slot %d: %s is %.100q of %d bytes, want %.100q of %d", slot, key, got, len(got), want, len(want))
			}
		}
		if got := answerOf(node.MustDo("LRANGE", tag+":list", 0, -1)); got != strings.ReplaceAll(strings.TrimRight(list, ","), ",", " ") {
			t.Errorf("slot %d: the list is %.100s", slot, got)
		}
	}
	status := s.r.w.Status()
	t.Logf("%d rounds, %v, %d resends", n, status.Counts, status.Resends)
	for _, what := range wanted {
		if status.Counts[what] == 0 {
			t.Errorf("there was no %s", what)
		}
	}
	if status.FrozenSlots != 0 || len(status.Slots) != 0 {
		t.Errorf("slots are still frozen: %+v", status.Slots)
	}
	for _, l := range status.Lanes {
		if l.Reconnects != 0 {
			t.Errorf("a connection was lost: %+v", l)
		}
	}
	s.r.waitsNoMore()
}

// TestReshard moves slots there and back while they and others are written.
func TestReshard(t *testing.T) {
	c := rt.StartCluster(t, rt.ClusterOptions{})
	t.Run("classic", func(t *testing.T) {
		s := newReshard(t, c, 30, nil)
		for pass := range 2 {
			for _, slot := range s.slots {
				from := c.NodeFor(slot)
				c.MoveSlotWhile(slot, from, next(c, from, 1+pass), s.flows)
			}
			c.WaitOK()
		}
		s.check("moved", "ask", "tryagain")
	})
	t.Run("atomic", func(t *testing.T) {
		if !c.MovesAtomically() {
			t.Skip("this release cannot")
		}
		s := newReshard(t, c, 90, nil)
		for pass := range 2 {
			for i := range 3 {
				from := c.NodeFor(s.slots[i*30])
				c.MigrateSlots(s.slots[i*30:(i+1)*30], from, next(c, from, 1+pass))
				s.flows()
			}
		}
		s.check("moved")
	})
}

// next returns the node that is n after another.
func next(c *rt.Cluster, node *rt.Server, n int) *rt.Server {
	for i := range c.Nodes {
		if c.Nodes[i] == node {
			return c.Nodes[(i+n)%len(c.Nodes)]
		}
	}
	return nil
}

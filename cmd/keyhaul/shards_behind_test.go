package main

import (
	"fmt"
	"strconv"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// TestShardsBehind: a slot is settled while its new link is far behind the source, so that much of what the link still
// brings is in what was read.
func TestShardsBehind(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 3} {
		t.Run(fmt.Sprintf("to %d", target), func(t *testing.T) {
			s := newShardsTrial(t, rt.ClusterOptions{}, target, "--buffer-max-bytes", "4mb") // the rest of what is behind stays in the spool
			p := s.from.Primaries()
			slot := s.fillSlots(p[0], 1)[0]
			s.begin()
			s.stopLoad()
			s.eachNode((*rt.Server).Freeze)
			s.from.MoveSlotWhile(slot, p[0], p[1], nil)
			s.writeMuch(p[1], s.tags[slot], s.keyOf(p[1]))
			s.eachNode((*rt.Server).Thaw)
			r := s.equal()
			if r.Target.Counts["dropped_covered"] == 0 {
				t.Errorf("nothing was in what was read: %v", r.Target.Counts)
			}
		})
	}
}

// writeMuch writes what must not be applied twice to a key of a slot, and much else to another one.
func (s *shardsTrial) writeMuch(p *rt.Server, tag, other string) {
	s.t.Helper()
	const rounds, batch = 1500, 500
	c := p.Dial()
	defer c.Close()
	for i := range rounds {
		var out []byte
		for j := range batch {
			out = resp.AppendCommand(out, "INCR", other+strconv.Itoa(j))
		}
		out = resp.AppendCommand(out, "RPUSH", tag+"list", strconv.Itoa(i))
		out = resp.AppendCommand(out, "INCR", tag+"count")
		if _, err := c.Write(out); err != nil {
			s.t.Fatal(err)
		}
		for range batch + 2 {
			if r, err := c.ReadReply(); err != nil || r.Err() != nil {
				s.t.Fatalf("%v, %v", err, r.Err())
			}
		}
	}
}

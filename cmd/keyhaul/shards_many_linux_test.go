package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestShardsMany: sixteen links keep to one bound of memory, also while a slot of many large values is settled, and while
// some of them cannot go on the others do.
func TestShardsMany(t *testing.T) {
	const (
		shards = 16
		buffer = 16 << 20
		most   = buffer + headroom + shards*linkRoom + 16<<20 // what Go has not given back yet
		value  = 64 << 10
	)
	patient := map[string]string{"cluster-node-timeout": "60000", "cluster-require-full-coverage": "no"}
	s := newShardsTrialTo(t, rt.ClusterOptions{Primaries: shards}, 3, rt.Options{Config: patient})
	s.args = append(s.args, "--buffer-max-bytes", strconv.Itoa(buffer))
	p := s.from.Primaries()
	slot := s.fillSlots(p[2], 1)[0]
	large := strings.Repeat("x", value)
	for i := range 1000 {
		p[2].MustDo("SET", s.tags[slot]+"large"+strconv.Itoa(i), large)
	}
	s.start()
	s.streaming(shards)
	s.move(slot, p[2], p[3])

	tag := s.keyOf(p[0])
	frozen := s.whole.NodeFor(rt.Slot(tag))
	frozen.Freeze()
	thawed := false
	defer func() {
		if !thawed {
			frozen.Thaw()
		}
	}()
	for i := range 2000 { // eight times the bound
		p[0].MustDo("SET", tag+strconv.Itoa(i), large)
	}
	free := p[shards/2:] // their slots are on other nodes
	for _, n := range free {
		key := s.keyOf(n)
		for i := range 20 {
			n.MustDo("SET", key+strconv.Itoa(i), large)
		}
	}
	for _, n := range free {
		s.reached(n)
	}
	_, r, err := s.look(s.keyhaul)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range r.Links {
		if l.Address == p[0].Addr && l.Applied >= p[0].Offset() {
			t.Error("the link to a node that is frozen has gone on: the test shows nothing")
		}
	}
	frozen.Thaw()
	thawed = true
	s.equal()
	if kb := s.peak(); kb<<10 > most && len(buildFlags) == 0 {
		t.Errorf("keyhaul has used %d MiB at most, with a buffer of %d MiB", kb>>10, buffer>>20)
	} else {
		t.Logf("%d links have used %d MiB at most", shards, kb>>10)
	}
}

// keyOf returns the beginning of a key in a slot of a primary of the source.
func (s *shardsTrial) keyOf(p *rt.Server) string {
	for i := 0; ; i++ {
		if tag := fmt.Sprintf("many:{%d}:", i); s.from.NodeFor(rt.Slot(tag)) == p {
			return tag
		}
	}
}

// peak returns the most memory that keyhaul has used, in KiB.
func (s *trial) peak() (kb int64) {
	s.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.keyhaul.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb
		}
	}
	s.t.Fatal("the system does not tell what keyhaul has used")
	return 0
}

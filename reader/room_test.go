package reader

import (
	"testing"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
)

// TestRoomMadeMeanwhile: a spool that was full a moment ago, and that something else has trimmed since, has room. Else the
// connection would be closed for nothing.
func TestRoomMadeMeanwhile(t *testing.T) {
	budget := &aof.Budget{Max: 1 << 20}
	stream := aof.NewSpool(aof.SpoolConfig{Kind: aof.SpoolStream, Budget: budget}, aof.Lineage{}, 0)
	p := &PSYNC{budget: budget, out: haul.NewChannel(haul.MinBound)}
	p.spool.Store(stream)
	s := &fullSync{stream: stream}
	s.applied.Store(true)
	if !p.makeRoom(s) {
		t.Error("there is room, and it was not found")
	}
}

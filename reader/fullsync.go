package reader

import (
	"sync/atomic"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
)

// fullSync is what one generation shares.
type fullSync struct {
	generation uint64
	header     payload
	start      haul.Position // of the stream
	base       haul.Position // where the stream is read from: an earlier run has applied what is before it
	clean      Clean
	fresh      bool       // it begins on a connection of its own, and is not recorded yet
	snapshot   *aof.Spool // nil if it is on the target
	stream     *aof.Spool
	whole      chan struct{} // closed when the snapshot was received to its end
	applied    atomic.Bool   // the snapshot is on the target

	received      func() // is told that the source has no more to send of the snapshot; nil if it has not been asked for it
	closeSnapshot func() // gives up what the snapshot's spool holds
}

// close leaves what the spools hold to a later run.
func (s *fullSync) close() {
	s.stream.Close()
	if s.snapshot != nil && !s.applied.Load() {
		s.snapshot.Close()
	}
}

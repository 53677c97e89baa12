package haul

import (
	"sync/atomic"

	"github.com/keyhaul/keyhaul/internal/command"
)

// Slots tells which link of a cluster source writes which slot. A slot that moves between shards is no link's until it
// is settled. It may be used by many goroutines.
type Slots struct {
	owner [command.Slots]atomic.Int32 // number of the link, from 1 on; 0 for none
}

// Owner returns the number of the link that writes slot, 0 if none does.
func (s *Slots) Owner(slot uint16) int32 { return s.owner[slot].Load() }

// Give makes slot the link's of this number, or no link's if it is 0.
func (s *Slots) Give(slot uint16, link int32) { s.owner[slot].Store(link) }

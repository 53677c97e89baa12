package checkpoint

import (
	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/internal/topology"
)

// Config says whose state a Store keeps, and where.
type Config struct {
	// Dialer opens connections to the target. Its ClientName is keyhaul:<name>:<worker>; each connection gets it.
	Dialer  *topology.Dialer
	Name    string // of the haul
	Cluster bool   // the target runs in cluster mode
	Log     zerolog.Logger
}

// Store keeps a haul's state on its target. Its methods may run at once.
type Store struct{ cfg Config }

// New returns a Store. It connects when it is used.
func New(cfg Config) *Store { return &Store{cfg: cfg} }

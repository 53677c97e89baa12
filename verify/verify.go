// Package verify compares what two servers or clusters hold while clients write to the first and a haul takes their writes
// to the second. A difference counts only when it cannot be one of what is still on its way (docs/verify.md).
package verify

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// Kind says in what a key differs.
type Kind string

// Kinds of differences.
const (
	Missing     Kind = "missing"     // the target lacks the key
	Extra       Kind = "extra"       // only the target has it
	Type        Kind = "type"        // it is of another type there
	Value       Kind = "value"       // it has another value
	TTL         Kind = "ttl"         // it has another deadline
	FieldTTL    Kind = "field-ttl"   // a field of a hash has another deadline
	Group       Kind = "group"       // a stream's consumer groups differ
	Function    Kind = "function"    // a library of functions differs; the key is its name
	Unsettled   Kind = "unsettled"   // it changed whenever it was looked at
	Behind      Kind = "behind"      // it differs, and the haul has not come so far, and does not move
	Unsupported Kind = "unsupported" // the target's release cannot hold it, or only its module can read it
)

// Kinds are all of them, in the order of reports.
var Kinds = []Kind{Missing, Extra, Type, Value, TTL, FieldTTL, Group, Function, Unsettled, Behind, Unsupported}

// Difference is a key that is not the same on both ends. It never holds a value.
type Difference struct {
	Key            haul.KeyName // the database is the source's
	Kind           Kind
	Source, Target string // digests; empty where there is none
}

// Config says what is compared, and how.
type Config struct {
	Source, Target               *topology.Dialer
	SourceCluster, TargetCluster bool

	Name  string            // of the haul whose positions on the target are read
	Store *checkpoint.Store // that reads the haul's record
	DBs   haul.DBMap

	KeysOnly    bool    // existence, type and deadline, and no values
	Sample      float64 // the part of the keys that is looked at; 1 for all
	BigValue    int64   // bytes in memory from which on a value is compared in pieces
	Tolerance   time.Duration
	Settle      time.Duration // how long a difference must last where no haul's positions are known
	Passes      int
	MaxRate     int  // keys a second; 0 for any
	Unsupported bool // the haul was told to go without what the target's release lacks

	Dir string // where an interrupted run leaves how far it was; empty for nowhere

	Repair Repairer // nil: nothing is written
	Prune  bool     // the repair removes what the source lacks

	Log zerolog.Logger
}

// Limits that are no settings.
const (
	patience       = 5 * time.Second // without any advance of the haul after which it stands still
	mostWait       = time.Minute     // for the haul to reach an offset
	mostTries      = 16              // looks at a key that changes
	maxDifferences = 100_000         // that are kept by key; more are counted
	repairKeys     = 256             // at once
)

// Result is what a run has found.
type Result struct {
	Keys        int64          // of the source that were compared
	TargetKeys  int64          // that were looked up on the source
	Remaining   []Difference   // what differs, or is unsettled, after the last pass
	Uncounted   int64          // differences beyond those that are kept
	ByKind      map[Kind]int64 // of what remains
	Passes      int
	Written     int // keys by the repair
	Pruned      int
	NoPositions bool // no haul's positions were found
	Took        time.Duration
}

// Equal tells whether nothing differs and nothing is unsettled.
func (r Result) Equal() bool { return len(r.Remaining) == 0 && r.Uncounted == 0 }

// Progress is how far a run is.
type Progress struct {
	Keys, Total int64 // looked at in this pass, on both ends; 0 if not known
	Pass        int
	Suspects    int64          // keys that are looked at again
	ByKind      map[Kind]int64 // differences that were found
	Paused      time.Duration  // that is waited between reads, because a server's latency has risen
}

// Run compares both ends until ctx ends.
func Run(ctx context.Context, cfg Config) (Result, error) { return New(cfg).Run(ctx) }

package reader

import (
	"context"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// PSYNCConfig describes a link to a source.
type PSYNCConfig struct {
	Dialer         *topology.Dialer
	PreferReplica  bool   // read from a replica of the source, if there is one
	Dir            string // of the spool; empty: memory only
	SpoolMax       int64  // bytes
	SpoolWindow    int64  // bytes in memory for a decoder that keeps up
	Retain         time.Duration
	RetainBytes    int64
	ReplyTimeout   time.Duration // a source that is silent for so long is dialled again
	Until          Until
	Patience       time.Duration // how long a missing permission to run PSYNC is waited for at first; 0: for ever
	AckReceived    bool          // acknowledge what was received instead of what is applied
	RepeatSnapshot Repeat
	OnLostHistory  LostHistory
	Resume         *Resume // where an earlier run has stopped; nil: nowhere
	First          Clean   // how the target is made ready for this run's first full sync, if it needs one
	Checkpoint     Checkpoint

	// Find returns the address of the server to read from, which can continue a history unless that is nil: the link
	// follows a shard of a cluster. It is asked anew before each round of dials. nil: what the package's Find returns.
	Find func(ctx context.Context, h *History) ([]string, error)
	// Fork waits until a server may be asked for a snapshot; release is called when it was received, or broke off. nil:
	// at any time.
	Fork func(ctx context.Context, addr string) (release func(), err error)
	// Together is called when the goal is reached, and returns when all other links have reached theirs; nil: there are
	// no others.
	Together func(ctx context.Context) error

	Waits *haul.Waits
	Log   zerolog.Logger
}

// Until is the goal of a one-shot.
type Until string

// Goals. UntilStopped is that of a daemon.
const (
	UntilStopped  Until = ""
	UntilSnapshot Until = "snapshot"
	UntilCaughtUp Until = "caught-up"
)

// Repeat says what a second full sync does with the keys that the first one wrote.
type Repeat string

// RepeatFlush empties the target first: it held nothing but this haul's keys. RepeatOver writes over them.
const (
	RepeatFlush Repeat = "flush"
	RepeatOver  Repeat = "over"
)

// LostHistory says what happens when the source no longer has the writes that follow.
type LostHistory string

// Answers to a lost history.
const (
	LostFail   LostHistory = "fail"   // the run ends with exit code 5
	LostResync LostHistory = "resync" // a new copy over the old one; what the source lacks is removed behind it
	LostFlush  LostHistory = "flush"  // the target is emptied, then a new copy
)

// Resume is what the target says of an earlier run.
type Resume struct {
	Generation uint64        // of all positions
	Streaming  bool          // its snapshot is on the target
	Again      bool          // yet only a new full sync helps
	Start      haul.Position // where its stream begins
	Base       haul.Position // everything before it is applied
	Highest    int64         // nothing behind it is
	Syncs      []time.Time   // when full syncs began
}

// Clean says how the keys of an earlier copy leave the target.
type Clean uint8

// CleanNone leaves them, CleanFlush empties the target before the copy, CleanPrune removes behind it what it lacks.
const (
	CleanNone Clean = iota
	CleanFlush
	CleanPrune
)

// Checkpoint is what a link keeps on the target. Its methods try until they succeed or ctx ends.
type Checkpoint interface {
	// Begin records that a full sync begins, before its first key is written, and cleans the target if need be.
	Begin(ctx context.Context, start haul.Position, clean Clean, syncs []time.Time) error
	// Seen hears of every key of the snapshot.
	Seen(db int32, name []byte) error
	// Streaming records that the snapshot is on the target, before the first entry of the stream is written.
	Streaming(ctx context.Context, at haul.Position) error
}

// SpoolDir is where the segments of the haul with this state directory are.
func SpoolDir(stateDir string) string { return filepath.Join(stateDir, "spool") }

// Package writer takes entries to a target, standalone or cluster, over lanes: connections on which commands are
// pipelined and replies are matched to them in order.
package writer

import (
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// Existing says what happens to a key of the snapshot that the target holds already.
type Existing string

// Ways to treat existing keys.
const (
	ExistingReplace Existing = "replace"
	ExistingSkip    Existing = "skip"
)

// OnError says what happens when the target refuses an entry for what it is.
type OnError string

// Ways to treat refused entries.
const (
	OnErrorStop OnError = "stop" // the run fails
	OnErrorHold OnError = "hold" // it is tried again until the operator has mended the target
	OnErrorSkip OnError = "skip" // it is written to errors.log and counted
)

// Unsupported says what happens to what the target has no form for, such as the deadline of a hash's field before Redis
// 7.4.
type Unsupported string

// Ways to treat what the target lacks.
const (
	UnsupportedFail    Unsupported = "fail"    // it is refused, and OnError decides
	UnsupportedDrop    Unsupported = "drop"    // it is left out, counted and listed
	UnsupportedDegrade Unsupported = "degrade" // it is done without what the target lacks, counted and listed
)

// Config describes a writer.
type Config struct {
	Dialer         *topology.Dialer
	Node           topology.Node // what the target said of itself
	Modules        []string      // that the target has; nil if it does not tell
	MaxBulk        int64         // bytes of a string that the target takes at most (proto-max-bulk-len); 0: any
	Filters        []haul.Filter
	DBs            haul.DBMap
	Existing       Existing
	OnError        OnError
	MaxSkipped     int64
	ErrorsLog      string      // path; empty: skipped entries are only logged
	Unsupported    Unsupported // empty: UnsupportedFail
	UnsupportedLog string      // path; empty: what the target lacks is only logged
	SnapshotLanes  int         // lanes per standalone target that carry the snapshot
	BigValue       int64       // bytes of a value of the snapshot from which on it is built in pieces; 0: never. It needs Store
	ReplyTimeout   time.Duration
	WaitReplicas   int                // replicas of a node that must have an entry before it counts as acknowledged; Store is needed then
	Exact          bool               // with fences: what may not be repeated is applied once
	Store          *checkpoint.Store  // where fences and marks are kept; nil: nowhere, which Exact does not allow
	Lease          *checkpoint.Lease  // the right to write; nil: not asked for
	Source         KeyReader          // reads what cannot be sent to a cluster as it is; nil: that is refused
	Values         ValueReader        // reads keys that are to be repaired; nil: none can be
	Dir            string             // for values on their way that are too large for memory; empty: those are not repaired
	Ahead          []checkpoint.Ahead // keys that are ahead of the stream, as in checkpoint.State
	Applied        []int64            // what the target has from an earlier run, as in checkpoint.State; nil for nothing
	RunIDs         []string           // of the servers that Applied was read from
	ReplayUntil    int64              // the source's offset when an earlier run is continued: until then errors of replays are expected
	Shard          Shard              // of a cluster source that the link is to; nil for a standalone source
	Grace          int64              // ms by which deadlines of keys are held back
	PutOff         *checkpoint.PutOff // is told which deadlines are; may be nil
	ImportSource   bool               // the target is in import mode
	Keepalive      bool
	PingInterval   time.Duration // 0: tuned to the target's timeout
	OpenSlots      time.Duration // how long a slot of a cluster may take nothing, because it moves; 0: for ever
	Waits          *haul.Waits
	Log            zerolog.Logger

	// NoTransactions says that a target which is no cluster takes no transaction over several keys: it is a proxy, or
	// a node of a cluster behind one. The source's transactions go there command by command. Exact does not allow it.
	NoTransactions bool
}

// New returns a writer for the target that cfg.Node describes.
func New(cfg Config) haul.Writer {
	d := newDispatcher(cfg)
	if cfg.Node.Cluster {
		newCluster(d)
	} else {
		d.route = &standalone{d: d}
	}
	return d
}

package haul

import (
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// Phase is what a link does at the moment.
type Phase string

// Phases of a link.
const (
	PhaseConnecting Phase = "connecting"
	PhaseSnapshot   Phase = "snapshot"
	PhaseStreaming  Phase = "streaming"
	PhaseCaughtUp   Phase = "caught-up"
	PhaseWaiting    Phase = "waiting"
)

// LinkStatus is the state of one link. Offsets are positions in the source's replication stream; -1 means none yet.
type LinkStatus struct {
	Name            string  `json:"name,omitempty"` // of a cluster source's link
	Source          string  `json:"source"`
	Address         string  `json:"address,omitempty"` // of the server that it is connected to, or was last
	Slots           int     `json:"slots,omitempty"`   // of a cluster source's link: how many it writes
	Phase           Phase   `json:"phase"`
	ReplID          string  `json:"replication_id"`
	SnapshotBytes   int64   `json:"snapshot_bytes"`
	SnapshotTotal   int64   `json:"snapshot_bytes_total"` // 0: the source does not say (diskless)
	SnapshotKeys    int64   `json:"snapshot_keys"`
	SnapshotKeysAll int64   `json:"snapshot_keys_total"`
	SnapshotDone    bool    `json:"snapshot_done"`
	SourceOffset    int64   `json:"source_offset"`
	Received        int64   `json:"received_offset"`
	Applied         int64   `json:"applied_offset"`
	DB              int32   `json:"applied_db"`
	Spooled         int64   `json:"spooled_bytes"`
	LagBytes        int64   `json:"lag_bytes"`
	LagSeconds      float64 `json:"lag_seconds"`
	RunwaySeconds   float64 `json:"backlog_runway_seconds"` // until the source's backlog is overrun; -1: unknown
	RunwayShort     bool    `json:"backlog_runway_short"`   // a disconnection of a minute would lose history
	TransactionsCut int64   `json:"transactions_cut"`       // too large to be kept whole
	Entries         int64   `json:"entries_applied"`
	Reconnects      int64   `json:"reconnects"`
	FullSyncs       int64   `json:"full_syncs"`
	PartialSyncs    int64   `json:"partial_syncs"`
	Connected       bool    `json:"connected"`
}

// LaneStatus is the state of one connection to the target.
type LaneStatus struct {
	Link       string  `json:"link,omitempty"` // of a cluster source
	Address    string  `json:"address"`
	State      string  `json:"state"`
	Entries    int64   `json:"entries_in_flight"`
	Bytes      int64   `json:"bytes_in_flight"`
	Written    int64   `json:"bytes_written"`
	LastReply  float64 `json:"seconds_since_reply"`
	Pings      int64   `json:"pings"`
	Reconnects int64   `json:"reconnects"`
	Redirects  int64   `json:"redirects"`
}

// SlotStatus is a slot of a target cluster that moves: its entries wait, or take the way that the target names.
type SlotStatus struct {
	Slot    uint16    `json:"slot"`
	Cause   string    `json:"cause"` // MOVED, ASK, TRYAGAIN or CLUSTERDOWN
	Since   time.Time `json:"since"`
	From    string    `json:"from"`
	To      string    `json:"to,omitempty"` // as far as the target has told
	Waiting int       `json:"entries_waiting"`
	Waits   float64   `json:"seconds_without_progress"`
}

// WriterStatus is the state of a writer.
type WriterStatus struct {
	Target  string           `json:"target"`
	Mode    string           `json:"mode"` // standalone, cluster or file
	Ready   bool             `json:"ready"`
	Lanes   []LaneStatus     `json:"lanes"`
	Counts  map[string]int64 `json:"counts"` // what was not simply applied, by name
	Resends int64            `json:"resends"`

	FrozenSlots int          `json:"frozen_slots"`
	Slots       []SlotStatus `json:"slots,omitempty"` // some of those, the ones that wait longest first
}

// Wait is something that keyhaul waits for.
type Wait struct {
	Who    string    `json:"who"`
	Cause  string    `json:"cause"`
	Remedy string    `json:"remedy"`
	Since  time.Time `json:"since"`
}

// Waits is the set of things waited for, one for each who. It may be used by many goroutines.
type Waits struct {
	whole  *Waits // that this is a part of; nil if it is the whole
	prefix string // of who, there

	mu   sync.Mutex
	list map[string]Wait
}

// Of returns the part of w that one of several links uses, whose name precedes who there.
func (w *Waits) Of(link string) *Waits { return &Waits{whole: w, prefix: "link " + link + ": "} }

// Set notes what who waits for; the time stays that of the first call since Clear.
func (w *Waits) Set(who, cause, remedy string) {
	if w.whole != nil {
		w.whole.Set(w.prefix+who, cause, remedy)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.list == nil {
		w.list = make(map[string]Wait)
	}
	since := time.Now()
	if old, ok := w.list[who]; ok {
		since = old.Since
	}
	w.list[who] = Wait{Who: who, Cause: cause, Remedy: remedy, Since: since}
}

// Clear says that who waits no longer.
func (w *Waits) Clear(who string) {
	if w.whole != nil {
		w.whole.Clear(w.prefix + who)
		return
	}
	w.mu.Lock()
	delete(w.list, who)
	w.mu.Unlock()
}

// End says that nobody of a link waits any longer.
func (w *Waits) End() {
	for _, x := range w.List() {
		w.whole.Clear(x.Who)
	}
}

// List returns what is waited for, oldest first.
func (w *Waits) List() []Wait {
	if w.whole != nil {
		return slices.DeleteFunc(w.whole.List(), func(x Wait) bool { return !strings.HasPrefix(x.Who, w.prefix) })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]Wait, 0, len(w.list))
	for _, x := range w.list {
		all = append(all, x)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Since.Before(all[j].Since) })
	return all
}

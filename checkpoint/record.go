package checkpoint

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

const (
	recordVersion = 1
	maxSyncs      = 10 // full syncs that are remembered
)

// Phase is how far a generation has come.
type Phase string

// Phases of a generation.
const (
	PhaseSnapshot  Phase = "snapshot"  // its snapshot is being applied; a crash repeats it
	PhaseStreaming Phase = "streaming" // fences and marks are valid
)

// Began is what the target held when the haul began.
type Began string

// Beginnings of a haul.
const (
	BeganEmpty   Began = "empty"   // nothing
	BeganFlushed Began = "flushed" // nothing any more, because the operator had it emptied
	BeganReplace Began = "replace" // keys that the haul may replace
	BeganSkip    Began = "skip"    // keys that the haul keeps
)

// Steps of Finish that were begun.
const (
	finishingRaise = "raise"
	finishingLower = "lower"
)

// Record describes the haul. It is kept as JSON at Keys.Record.
type Record struct {
	Version    int           `json:"version"`
	Generation uint64        `json:"generation"` // grows with each full sync
	Phase      Phase         `json:"phase"`
	Start      haul.Position `json:"start"`           // where the stream of this generation begins
	Prune      bool          `json:"prune,omitempty"` // behind the snapshot, what it lacks is removed from the target
	Flush      bool          `json:"flush,omitempty"` // the target has still to be emptied for the snapshot
	Began      Began         `json:"began"`
	Holders    []string      `json:"holders,omitempty"`   // of the primaries that are written to, on a cluster
	Syncs      []int64       `json:"syncs"`               // unix seconds of the last full syncs, at most 10
	Grace      int64         `json:"grace_ms"`            // deadlines on the target are later by this many ms; 0: true deadlines
	Import     bool          `json:"import"`              // deadlines are held back by import-mode instead
	Finishing  string        `json:"finishing,omitempty"` // step of Finish that was begun: "", "raise" or "lower"
	Finished   int64         `json:"finished,omitempty"`  // unix seconds when true deadlines were set
	Databases  string        `json:"databases,omitempty"` // where those go that do not keep their number, as haul.DBMap prints it

	// Of a haul whose source is a cluster: the links, each of which has a record of its own.
	Links []string `json:"links,omitempty"`

	// Of a link to a cluster source: the slots that are its to write.
	Slots *topology.SlotSet `json:"slots,omitempty"`
	// Those of them that have been settled since the stream began, and what their fences said then at least: one that says
	// less is on a node that has lost what was written of its slot.
	Settled []Settled `json:"settled,omitempty"`
}

// Settled is a set of slots that have moved to a link's shard, and an offset that their fences are not behind.
type Settled struct {
	Slots *topology.SlotSet `json:"slots"`
	At    int64             `json:"at"`
}

// maxSettled is how many of them a record has. Older ones are put together: of their slots some may then be settled once
// more at a resume.
const maxSettled = 128

// Settle notes that slots are settled behind offset at, and forgets what is not the link's any more.
func (r *Record) Settle(slots *topology.SlotSet, at int64) {
	all := []Settled{}
	for _, x := range append(slices.Clone(r.Settled), Settled{slots, at}) {
		var left topology.SlotSet
		x.Slots.Each(func(slot uint16) {
			if r.Slots.Has(slot) && (x.Slots == slots || !slots.Has(slot)) {
				left.Add(slot)
			}
		})
		if left.Len() > 0 {
			all = append(all, Settled{&left, x.At})
		}
	}
	if len(all) > maxSettled {
		all[0].Slots.Each(all[1].Slots.Add)
		all[1].At = max(all[0].At, all[1].At)
		all = all[1:]
	}
	r.Settled = all
}

// settledAt is what the fence of a slot must say at least; 0 if the slot has not moved.
func (r *Record) settledAt(slot uint16) int64 {
	for _, x := range r.Settled {
		if x.Slots.Has(slot) {
			return x.At
		}
	}
	return 0
}

// position is haul.Position without the generation, which a record and a fence have of their own. Its names are part
// of the format.
type position struct {
	ReplID string `json:"replid"`
	Offset int64  `json:"offset"`
	DB     int32  `json:"db"`
}

// plainRecord is Record without its methods.
type plainRecord Record

type recordJSON struct {
	plainRecord
	Start position `json:"start"`
}

// MarshalJSON implements json.Marshaler.
func (r Record) MarshalJSON() ([]byte, error) {
	return json.Marshal(recordJSON{plainRecord(r), position{r.Start.ReplID, r.Start.Offset, r.Start.DB}})
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Record) UnmarshalJSON(b []byte) error {
	var j recordJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*r = Record(j.plainRecord)
	r.Start = haul.Position{Generation: r.Generation, ReplID: j.Start.ReplID, Offset: j.Start.Offset, DB: j.Start.DB}
	return nil
}

// text returns what is stored.
func (r Record) text() (string, error) {
	b, err := json.Marshal(r)
	return string(b), err
}

// parseRecord reads what is stored. A record of a newer format may have changed in anything but its version.
func parseRecord(text string) (Record, error) {
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal([]byte(text), &version); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	if version.Version > recordVersion {
		return Record{}, fmt.Errorf("record of format %d: %w", version.Version, ErrNewer)
	}
	var r Record
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	if r.Version < 1 || (r.Phase != PhaseSnapshot && r.Phase != PhaseStreaming) {
		return Record{}, fmt.Errorf("record: has version %d and phase %q", r.Version, r.Phase)
	}
	return r, nil
}

// Refusal is a command that the target refused inside a transaction, whose other commands it carried out. It never
// holds a value.
type Refusal struct {
	Offset  int64     `json:"offset"`
	DB      int32     `json:"db"`
	Command string    `json:"command"`
	Keys    []string  `json:"keys"`
	Error   string    `json:"error"`
	Time    time.Time `json:"time"`
}

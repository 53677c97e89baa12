// Package filter decides which entries pass.
package filter

import (
	"bytes"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
)

// All returns the filters of a haul whose databases go where to says.
func All(to haul.DBMap) []haul.Filter {
	all := []haul.Filter{NewHousekeeping(), Reserved{}}
	if len(to) > 0 {
		all = append(all, Databases{to})
	}
	return all
}

// Housekeeping takes out what belongs to the source's own operation and would do harm on the target: the messages by
// which Sentinels find each other, and commands about the nodes of the source's cluster (protocol §5, §6).
type Housekeeping struct {
	publish, cluster, trim *command.Spec
}

// NewHousekeeping returns the filter.
func NewHousekeeping() *Housekeeping {
	return &Housekeeping{
		publish: command.Lookup([]byte("PUBLISH")),
		cluster: command.Lookup([]byte("CLUSTER")),
		trim:    command.Lookup([]byte("TRIMSLOTS")),
	}
}

// Apply implements haul.Filter.
func (f *Housekeeping) Apply(b *haul.Batch) {
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Kind != haul.KindCommand || e.Big != nil {
			continue
		}
		c := &b.Commands[e.First]
		switch {
		case c.Spec == nil:
		case c.Spec == f.publish && c.NArg > 1 && bytes.Equal(b.Arg(c, 1), []byte("__sentinel__:hello")):
			e.Drop = haul.DropSentinel
		case c.Spec == f.cluster, c.Spec == f.trim:
			e.Drop = haul.DropTopology
		}
	}
}

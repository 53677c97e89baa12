// Package verify compares source and target while writes go on.
package verify

import (
	"context"

	"github.com/keyhaul/keyhaul/haul"
)

// Repairer writes keys anew as the source has them.
type Repairer interface {
	// Repair writes keys as the source has them, in order with the running sync, and returns when the target has acknowledged
	// that. Keys that the source lacks are deleted on the target with prune, else they are left. An error says that some of
	// the keys, or all, were not repaired; they may be tried again.
	Repair(ctx context.Context, keys []haul.KeyName, prune bool) (written, pruned int, err error)
}

package verify

import (
	"context"

	"github.com/keyhaul/keyhaul/haul"
)

// Repairer writes keys anew as the source has them.
type Repairer interface {
	// Repair returns when the target has acknowledged the keys. With prune, keys that the source lacks are deleted there, else
	// they are left.
	Repair(ctx context.Context, keys []haul.KeyName, prune bool) (written, pruned int, err error)
}

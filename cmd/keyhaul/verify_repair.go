package main

import (
	"context"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/verify"
)

// repairer returns what writes keys anew, nil unless that is asked for.
func (a *app) repairer(_ context.Context) (verify.Repairer, error) {
	if !a.cfg.Verify.Repair || a.cfg.DryRun {
		return nil, nil
	}
	return nil, haul.Errorf(haul.ExitUsage, "use --dry-run to list what would be written", "--repair is not part of this program")
}

package main

import (
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestWaitReplicasIsChecked: before anything is written, keyhaul says what --wait-replicas lacks on the target.
func TestWaitReplicasIsChecked(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, rt.Options{})
	target := rt.Start(t, rt.Options{Users: []string{"limited on >secret ~* &* +@all -wait"}})
	args := []string{"--source", source.URL(), "--wait-replicas", "1", "--dry-run", "--target"}
	start(t, append(args, "redis://limited:secret@"+target.Addr)...).exit(haul.ExitRefused, "+wait", target.Addr)
	start(t, append(args, target.URL())...).exit(haul.ExitDone, "has 0 replicas, and --wait-replicas asks for 1")
}

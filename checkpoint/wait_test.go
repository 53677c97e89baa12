package checkpoint

import (
	"fmt"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// TestReplicated waits for a replica that stands still.
func TestReplicated(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	replica := redistest.Start(t, redistest.Options{})
	replica.ReplicaOf(server)
	ctx := testContext(t)
	begun(t, s)
	replica.Freeze()
	short := make(chan string, 100)
	done := make(chan error, 1)
	go func() {
		done <- s.Replicated(ctx, 1, func(addr string, has int64) { short <- fmt.Sprint(addr, " ", has) })
	}()
	select {
	case text := <-short:
		if want := server.Addr + " 0"; text != want {
			t.Errorf("%q, want %q", text, want)
		}
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(20 * time.Second):
		t.Error("nothing is said")
	}
	replica.Thaw()
	must(t, <-done)
	if keys := server.MustDo("KEYS", "*touch*").Array; len(keys) > 0 {
		t.Errorf("left behind: %v", keys)
	}
}

package verify_test

import (
	"context"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/verify"
)

// byHand repairs strings.
type byHand struct{ src, dst *rt.Server }

func (r byHand) Repair(_ context.Context, keys []haul.KeyName, prune bool) (written, pruned int, err error) {
	for _, k := range keys {
		value := r.src.MustDo("GET", k.Name)
		switch {
		case !value.Null:
			r.dst.MustDo("SET", k.Name, value.Text)
			written++
		case prune:
			r.dst.MustDo("DEL", k.Name)
			pruned++
		}
	}
	return written, pruned, nil
}

// TestRepair: what differs is given to the repairer, and a pass behind it tells what is left.
func TestRepair(t *testing.T) {
	src, dst := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
	src.MustDo("SET", "gone", 1)
	src.MustDo("SET", "value", 1)
	dst.MustDo("SET", "value", 2)
	dst.MustDo("SET", "new", 1)
	cfg := config(t, src.Endpoint(), dst.Endpoint(), [2]bool{})
	cfg.Repair, cfg.Passes = byHand{src, dst}, 1
	same(t, found(t, cfg), map[string]verify.Kind{"new": verify.Extra})
	cfg.Prune = true
	same(t, found(t, cfg), nil)
	if n := dst.MustDo("DBSIZE").Int; n != 2 {
		t.Errorf("the target has %d keys", n)
	}
}

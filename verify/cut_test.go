package verify_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/verify"
)

// TestCut: connections that are lost are made anew, and nothing is missed or invented because of them.
func TestCut(t *testing.T) {
	src, dst := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
	if err := rt.FillMixed(t.Context(), src.Endpoint(), 0.01, 1); err != nil {
		t.Fatal(err)
	}
	dst.ReplicaOf(src)
	dst.WaitReplica()
	dst.MustDo("REPLICAOF", "NO", "ONE")
	want := map[string]verify.Kind{}
	for i := range 50 {
		key := fmt.Sprintf("zset:%d", i)
		dst.MustDo("DEL", key)
		want[key] = verify.Missing
	}
	gates := [2]*rt.Proxy{rt.NewProxy(t, src.Addr), rt.NewProxy(t, dst.Addr)}
	cfg := config(t, rt.Addr(gates[0].Addr()), rt.Addr(gates[1].Addr()), [2]bool{})
	cfg.MaxRate = 20_000
	ctx, stop := context.WithCancel(t.Context())
	cut := make(chan struct{})
	go func() {
		defer close(cut)
		for i := 0; ctx.Err() == nil; i++ {
			select {
			case <-time.After(150 * time.Millisecond):
				gates[i%2].Cut()
			case <-ctx.Done():
			}
		}
	}()
	got := found(t, cfg)
	stop()
	<-cut
	same(t, got, want)
}

package verify_test

import (
	"fmt"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/verify"
)

// TestClusters: a cluster and a server are compared, whichever is the source, and each key is asked for where it is.
func TestClusters(t *testing.T) {
	cluster, single := rt.StartCluster(t, rt.ClusterOptions{Primaries: 3}), rt.Start(t, rt.Options{})
	for i := range 3000 {
		key := fmt.Sprintf("key:%d", i)
		cluster.MustDo(key, "SET", key, i)
		single.MustDo("SET", key, i)
	}
	cluster.MustDo("key:1", "SET", "key:1", "planted")
	cluster.MustDo("key:2", "DEL", "key:2")
	cluster.MustDo("more", "SADD", "more", "a")
	to := config(t, single.Endpoint(), cluster.Endpoint(), [2]bool{false, true})
	same(t, found(t, to), map[string]verify.Kind{"key:1": verify.Value, "key:2": verify.Missing, "more": verify.Extra})
	from := config(t, cluster.Endpoint(), single.Endpoint(), [2]bool{true, false})
	same(t, found(t, from), map[string]verify.Kind{"key:1": verify.Value, "key:2": verify.Extra, "more": verify.Missing})
}

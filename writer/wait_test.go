package writer

import (
	"fmt"
	"strings"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// replicated is a primary with a replica, standalone or the one shard of a cluster.
func replicated(t *testing.T, cluster bool) (primary, replica *rt.Server) {
	t.Helper()
	if cluster {
		c := rt.StartCluster(t, rt.ClusterOptions{Options: rt.Options{Config: map[string]string{"cluster-node-timeout": "60000"}}, Primaries: 1, Replicas: 1})
		return c.Nodes[0], c.Nodes[1]
	}
	primary, replica = rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
	replica.ReplicaOf(primary)
	return primary, replica
}

// keptBack expects that everything is on the primary, and nothing of it counts as acknowledged.
func keptBack(t *testing.T, r *rig, c *counter, primary *rt.Server, before int64) {
	t.Helper()
	rt.Eventually(t, limit, func() error {
		if got := primary.MustDo("GET", "count:{0}").Text; got != fmt.Sprint(c.rounds) {
			return fmt.Errorf("the last round is not on the primary yet: %s of %d", got, c.rounds)
		}
		if lanes := r.w.Status().Lanes; lanes[0].Entries > 0 {
			return fmt.Errorf("%d entries are not answered", lanes[0].Entries)
		}
		for _, w := range r.waits.List() {
			if strings.HasPrefix(w.Who, "replicas of target") && w.Cause == "0 of 1 replicas have acknowledged" {
				return nil
			}
		}
		return fmt.Errorf("no word of the replica: %+v", r.waits.List())
	})
	if at := r.ch.Watermark.Stream().Offset; at != before {
		t.Errorf("the watermark is at %d, was at %d when the replica stopped", at, before)
	}
}

// TestWaitReplicas: what the replica does not have is not acknowledged, also when the connection is lost meanwhile, and
// nothing is applied twice because of that.
func TestWaitReplicas(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		for _, exact := range []bool{true, false} {
			t.Run(fmt.Sprintf("cluster %v, exact %v", cluster, exact), func(t *testing.T) {
				t.Parallel()
				primary, replica := replicated(t, cluster)
				r := exactRig(t, primary.Addr, func(c *Config) { c.WaitReplicas, c.Exact = 1, exact })
				c := &counter{keys: 20}
				c.send(r)
				r.drained()
				before := r.ch.Watermark.Stream().Offset
				replica.Freeze()
				c.send(r)
				keptBack(t, r, c, primary, before)
				reconnects := r.w.Status().Lanes[0].Reconnects
				primary.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
				rt.Eventually(t, limit, func() error {
					if now := r.w.Status().Lanes[0].Reconnects; now == reconnects {
						return fmt.Errorf("%d reconnects", now)
					}
					return nil
				})
				keptBack(t, r, c, primary, before)
				replica.Thaw()
				r.drained()
				if left := r.waits.List(); len(left) > 0 {
					t.Errorf("still waits: %+v", left)
				}
				c.check(t, target{do: func(_ string, args ...any) resp.Reply { return primary.MustDo(args...) }})
				if keys := primary.MustDo("KEYS", "*touch*").Array; len(keys) > 0 {
					t.Errorf("left behind: %v", keys)
				}
			})
		}
	}
}

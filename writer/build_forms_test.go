package writer

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/rdb"
)

// TestSpooledValuesOfOtherReleases: a value that is read from the spool is built, however small, where the target does not take its
// type, and left out where the target has nothing of the kind.
func TestSpooledValuesOfOtherReleases(t *testing.T) {
	rt.Require(t, "redis-8.0")
	src, dst := rt.Start(t, rt.Options{Release: "redis-8.0"}), rt.Start(t, rt.Options{})
	for i := range 100 {
		src.MustDo("SADD", "set", fmt.Sprint("member ", i))
	}
	for _, size := range []int64{0, 1 << 10, 1 << 30} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			dst.MustDo("FLUSHALL")
			r := newRig(t, dst.Addr, func(c *Config) {
				building(false, nil)(c)
				c.BigValue, c.Unsupported = size, UnsupportedDrop
			})
			b := r.batch(true)
			b.bigKey("set", dump(t, src, "set"), nil)
			b.bigKey("array", dump(t, src, "set"), func(k *haul.Key) { k.Type = rdb.TypeArray })
			b.bigKey("unknown", dump(t, src, "set"), func(k *haul.Key) { k.Type = 99 })
			b.send()
			r.drained()
			same(t, src, targetOf(dst), []string{"set"})
			r.counted("unsupported_dropped", 2)
			want(t, dst, "EXISTS array unknown", "0")
			noParts(t, targetOf(dst))
		})
	}
}

// TestLargeValuesWithoutTransactions: behind a proxy no two keys are known to be in one place, so nothing is renamed.
func TestLargeValuesWithoutTransactions(t *testing.T) {
	src, names := large(t)
	dst := rt.Start(t, rt.Options{})
	r := newRig(t, dst.Addr, building(false, func(c *Config) { c.NoTransactions = true }))
	stop := wire(t, dst)
	b := r.batch(true)
	for _, name := range names {
		b.key(0, name, dump(t, src, name), nil)
	}
	b.send()
	r.drained()
	for _, line := range stop() {
		if strings.HasPrefix(line, "RENAME") {
			t.Errorf("sent %.100s", line)
		}
	}
	same(t, src, targetOf(dst), names)
}

// TestLargeValuesInMovedSlots: a value is built at the node that its slot has moved to, under a name that is not that of the node's
// lane; one that has expired meanwhile, or is there already, is none to be put in place.
func TestLargeValuesInMovedSlots(t *testing.T) {
	rt.Require(t, "redis-8.0")
	src := rt.Start(t, rt.Options{Release: "redis-8.0"})
	set := []any{"HSET", "{a}expired"}
	expire := []any{"HPEXPIREAT", "{a}expired", time.Now().UnixMilli() + 1000, "FIELDS", 200}
	for i := range 200 {
		set, expire = append(set, i, randomText(25)), append(expire, i)
		src.MustDo("RPUSH", "{a}list", i, randomText(25))
	}
	src.MustDo(set...)
	src.MustDo(expire...)
	payload := dump(t, src, "{a}expired")
	rt.Eventually(t, limit, func() error {
		if src.MustDo("EXISTS", "{a}expired").Int != 0 {
			return errors.New("the fields are still there")
		}
		return nil
	})
	c := rt.StartCluster(t, rt.ClusterOptions{Options: rt.Options{Release: "redis-8.0"}})
	for _, existing := range []Existing{ExistingReplace, ExistingSkip} {
		t.Run(string(existing), func(t *testing.T) {
			g, r := clusterRig(t, c, building(true, func(c *Config) { c.Existing = existing }))
			slot := rt.Slot("{a}")
			from, to := c.NodeFor(slot), c.Nodes[0]
			if from == to {
				to = c.Nodes[1]
			}
			c.MoveSlot(slot, from, to)
			c.MustDo("{a}there", "SET", "{a}there", "before")
			stop := wire(t, to)
			b := r.batch(true)
			b.key(0, "{a}expired", payload, nil)
			b.key(0, "{a}list", dump(t, src, "{a}list"), nil)
			b.key(0, "{a}there", dump(t, src, "{a}list"), nil)
			b.send()
			r.drained()
			if all := strings.Join(stop(), "\n"); !strings.Contains(all, "keyhaul:test:part:moving:") {
				t.Errorf("nothing was built apart from the lane: %.2000s", all)
			}
			same(t, src, g, []string{"{a}list"})
			if n := c.MustDo("{a}expired", "EXISTS", "{a}expired").Int; n != 0 {
				t.Error("the hash is there")
			}
			if existing == ExistingSkip {
				if got := c.MustDo("{a}there", "GET", "{a}there").Text; got != "before" {
					t.Errorf("what was there is %q", got)
				}
				r.counted("existing_skipped", 1)
			}
			noParts(t, g)
		})
	}
}

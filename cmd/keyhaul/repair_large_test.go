package main

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
)

// TestRepairLarge: values that are too large for memory are repaired while they are written.
func TestRepairLarge(t *testing.T) {
	t.Parallel()
	const fill = "local v = string.rep('value', 30) for i = 1, 30000 do redis.call('HSET', KEYS[1], 'field:' .. i, v .. i) end redis.call('PEXPIREAT', KEYS[1], 4000000000000) return 1"
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster, fill: 0.0001})
		s.source.MustDo("EVAL", fill, 1, "huge")
		s.source.MustDo("SET", "text", string(make([]byte, 6<<20)))
		s.start()
		s.streaming()
		keys := []haul.KeyName{{Name: "huge"}, {Name: "text"}, {Name: "gone"}}
		s.onTarget(func(send func(k haul.KeyName, args ...string)) {
			send(keys[0], "HSET", "huge", "field:77", "wrong")
			send(keys[0], "HINCRBY", "huge", "count", "1000000")
			send(keys[1], "SETRANGE", "text", "3000000", "wrong")
		})
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				s.source.MustDo("HINCRBY", "huge", "count", 1)
				s.source.MustDo("SETRANGE", "text", strconv.Itoa(i), "x")
			}
		})
		for range 2 {
			if written, pruned, err := s.repairer().Repair(context.Background(), keys, false); err != nil || written != 2 || pruned != 0 {
				t.Errorf("%d written, %d deleted: %v", written, pruned, err)
			}
		}
		cancel()
		wg.Wait()
		s.equal(1)
	})
}

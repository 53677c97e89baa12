package main

import (
	"fmt"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestShapes hauls between clusters of different sizes, and from Redis to Valkey and back, under load and with a kill.
func TestShapes(t *testing.T) {
	t.Parallel()
	for _, shape := range []struct {
		from, to     int    // primaries; a target of 0 is one server
		fromOf, toOf string // releases; empty for that of all tests
	}{
		{from: 3, to: 5},
		{from: 5, to: 3},
		{from: 3, to: 3, fromOf: "redis-7.0", toOf: "valkey-8.1"},
		{from: 3, to: 0, fromOf: "valkey-8.1", toOf: "redis-8.0"},
	} {
		t.Run(fmt.Sprintf("%s %d to %s %d", shape.fromOf, shape.from, shape.toOf, shape.to), func(t *testing.T) {
			for _, release := range []string{shape.fromOf, shape.toOf} {
				if release != "" {
					rt.Require(t, release)
				}
			}
			s := newShardsTrialTo(t, rt.ClusterOptions{Primaries: shape.from, Options: rt.Options{Release: shape.fromOf}}, shape.to, rt.Options{Release: shape.toOf})
			s.begin()
			pause(100e6, 200e6)
			s.kill()
			s.start()
			s.streaming(shape.from)
			s.equal()
		})
	}
}

package main

import (
	"context"
	"slices"
	"strconv"

	"github.com/keyhaul/keyhaul/internal/topology"
)

// capacity is what a server tells of the values that it takes.
type capacity struct {
	modules []string // nil if it does not tell
	bulk    int64    // bytes of one string at most (proto-max-bulk-len)
}

// defaultBulk is what servers take unless they are told otherwise.
const defaultBulk = 512 << 20

func askCapacity(ctx context.Context, target *topology.Dialer, addr string) capacity {
	has := capacity{bulk: defaultBulk}
	c, err := target.Open(ctx, addr)
	if err != nil {
		return has // it shows itself again when it matters
	}
	defer c.Close() //nolint:errcheck // only asked
	if r, err := c.Do(ctx, questionTimeout, "MODULE", "LIST"); err == nil {
		has.modules = []string{}
		for _, m := range r.Array {
			for i := 0; i+1 < len(m.Array); i += 2 {
				if m.Array[i].Text == "name" {
					has.modules = append(has.modules, m.Array[i+1].Text)
				}
			}
		}
	}
	if r, err := c.Do(ctx, questionTimeout, "CONFIG", "GET", "proto-max-bulk-len"); err == nil && len(r.Array) == 2 {
		if n, err := strconv.ParseInt(r.Array[1].Text, 10, 64); err == nil && n > 0 {
			has.bulk = n
		}
	}
	return has
}

// least is what two servers both have.
func (c capacity) least(other capacity) capacity {
	if c.modules == nil || other.modules == nil {
		c.modules = nil
	} else {
		c.modules = slices.DeleteFunc(c.modules, func(m string) bool { return !slices.Contains(other.modules, m) })
	}
	c.bulk = min(c.bulk, other.bulk)
	return c
}

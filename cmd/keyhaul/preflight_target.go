package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// mayTransact tries a transaction over two keys in two slots, which reads nothing but keyhaul's own. The error is the
// reply of a target that does not have this: a proxy, or a node of a cluster. Others will do for now.
func mayTransact(ctx context.Context, target *topology.Dialer, addr string) error {
	c, err := target.Open(ctx, addr)
	if err != nil {
		return nil //nolint:nilerr // it shows itself again when it matters
	}
	defer c.Close() //nolint:errcheck // only asked
	for _, call := range [][]string{
		{"WATCH", checkpoint.Prefix + "{a}"},
		{"MULTI"},
		{"EXISTS", checkpoint.Prefix + "{a}"},
		{"EXISTS", checkpoint.Prefix + "{b}"},
		{"EXEC"},
	} {
		_, err := c.Do(ctx, questionTimeout, call...)
		refused := (*resp.Error)(nil)
		switch {
		case errors.As(err, &refused) && lacks(refused, "CROSSSLOT", "EXECABORT"):
			return &topology.Error{Addr: addr, Op: call[0], Err: refused}
		case err != nil:
			return nil //nolint:nilerr // as above
		}
	}
	return nil
}

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

// lacks tells whether a refusal is none that time will mend.
func lacks(e *resp.Error, codes ...string) bool {
	switch e.Code {
	case "LOADING", "BUSY", "MISCONF", "MASTERDOWN", "NOAUTH", "WRONGPASS", "NOPERM", "OOM", "READONLY", "CLUSTERDOWN", "MOVED":
		return false
	}
	return e.Code == "ERR" || slices.Contains(codes, e.Code) || topology.Missing(e)
}

// mayEvict makes sure that connections of our own can be ended: what a closed one has sent may otherwise be executed
// after it was found not to be.
func mayEvict(ctx context.Context, target *topology.Dialer, addr string) error {
	c, err := target.Open(ctx, addr)
	if err != nil {
		return nil //nolint:nilerr // it shows itself again when it matters
	}
	defer c.Close() //nolint:errcheck // only asked
	for _, call := range [][]string{
		{"CLIENT", "SETNAME", target.ClientName},
		{"CLIENT", "ID"},
		{"CLIENT", "LIST"},
		{"CLIENT", "KILL", "ID", strconv.Itoa(math.MaxInt64)}, // nobody
	} {
		_, err := c.Do(ctx, questionTimeout, call...)
		refused := (*resp.Error)(nil)
		switch {
		case !errors.As(err, &refused):
		case refused.Code == "NOPERM":
			return haul.Errorf(haul.ExitRefused,
				"let the target's user run it (ACL SETUSER … +client|list +client|kill +client|id +client|setname), or use --delivery at-least-once",
				"exactly-once delivery needs CLIENT %s on the target %s: %w", call[1], addr, refused)
		case lacks(refused):
			return haul.Errorf(haul.ExitRefused, "use --delivery at-least-once, or name the server itself as the target",
				"exactly-once delivery needs CLIENT %s, which the target %s does not have: %w", call[1], addr, refused)
		}
	}
	return nil
}

// mayWait makes sure that the target's user may wait for replicas.
func mayWait(ctx context.Context, target *topology.Dialer, addr string) error {
	c, err := target.Open(ctx, addr)
	if err != nil {
		return nil //nolint:nilerr // it shows itself again when it matters
	}
	defer c.Close() //nolint:errcheck // only asked
	_, err = c.Do(ctx, questionTimeout, "WAIT", "0", "1")
	if refused := (*resp.Error)(nil); errors.As(err, &refused) {
		return haul.Errorf(haul.ExitRefused, "let the target's user run it (ACL SETUSER … +wait), or leave --wait-replicas out",
			"--wait-replicas needs WAIT on the target %s: %w", addr, refused)
	}
	return nil
}

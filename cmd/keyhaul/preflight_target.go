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

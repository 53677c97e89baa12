package checkpoint

import (
	"context"
	"strconv"
)

// heldMillis is for how long a server holds a WAIT that too few replicas satisfy.
const heldMillis = "1000"

// Replicated waits until so many replicas of each node have what the node has now. WAIT counts from its connection's own
// last write: so there is one, which leaves nothing behind. short is told of each node that has too few, once a second,
// by several goroutines. It tries until ctx ends.
func (s *Store) Replicated(ctx context.Context, replicas int, short func(addr string, has int64)) error {
	return s.retry(ctx, "wait for replicas", func(ctx context.Context, l *layout) error {
		return l.each(ctx, func(ctx context.Context, n node) error {
			return s.fresh(ctx, n.addr, true, func(c *conn) error {
				key := Touch(s.Keys().WholeMark())
				if n.slots != nil {
					key = Touch(s.Keys().Mark(n.slots[0]))
				}
				if err := c.transaction(ctx, [][]string{{"SET", key, ""}, {"DEL", key}}); err != nil {
					return err
				}
				for {
					r, err := c.do(ctx, "WAIT", strconv.Itoa(replicas), heldMillis)
					if err != nil || r.Int >= int64(replicas) {
						return err
					}
					short(n.addr, r.Int)
				}
			})
		})
	})
}

package redistest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// MoveSlot moves a slot and its keys key by key, as redis-cli does: clients meet ASK and then MOVED.
func (c *Cluster) MoveSlot(slot int, from, to *Server) {
	c.t.Helper()
	c.MoveSlotWhile(slot, from, to, nil)
	c.WaitOK()
}

// MoveSlotWhile is MoveSlot that calls during, if it is not nil, when half of the keys have moved, and does not wait until
// the nodes agree, unless another node than before takes the slot.
func (c *Cluster) MoveSlotWhile(slot int, from, to *Server, during func()) {
	c.t.Helper()
	const atOnce = 100
	if to != c.importer {
		c.WaitOK()
		c.importer = to
	}
	toID := nodeID(to)
	to.MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", nodeID(from))
	from.MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	if during != nil {
		half := from.MustDo("CLUSTER", "COUNTKEYSINSLOT", slot).Int / 2
		c.moveKeys(from, to, from.MustDo("CLUSTER", "GETKEYSINSLOT", slot, half).Array)
		during()
	}
	for {
		keys := from.MustDo("CLUSTER", "GETKEYSINSLOT", slot, atOnce).Array
		if len(keys) == 0 {
			break
		}
		c.moveKeys(from, to, keys)
	}
	to.MustDo("CLUSTER", "SETSLOT", slot, "NODE", toID)
	for _, node := range c.Nodes { // all of them, because with Redis 6.0 those who only hear of it may not believe it
		if node == to || !node.responsive() {
			continue
		}
		// A node that has heard already that its last slot is gone may be a replica of the new owner by now.
		if r := node.Do("CLUSTER", "SETSLOT", slot, "NODE", toID); r.Err() != nil && !strings.Contains(r.Text, "only with masters") {
			c.t.Fatalf("redistest: SETSLOT on %s: %s", node.Addr, r.Text)
		}
	}
}

func (c *Cluster) moveKeys(from, to *Server, keys []resp.Reply) {
	c.t.Helper()
	if len(keys) == 0 {
		return
	}
	args := []any{"MIGRATE", "127.0.0.1", to.Port, "", 0, 5000}
	if password := from.opts.Password; password != "" {
		args = append(args, "AUTH", password)
	}
	args = append(args, "KEYS")
	for _, key := range keys {
		args = append(args, key.Text)
	}
	from.MustDo(args...)
}

// MovesAtomically reports whether the nodes know CLUSTER MIGRATESLOTS.
func (c *Cluster) MovesAtomically() bool {
	v := c.Nodes[0].Version
	return v.Family == "valkey" && v.Major >= 9
}

// MigrateSlots moves slots and their keys at once, as Valkey 9 does: clients meet MOVED. It returns when they have moved.
func (c *Cluster) MigrateSlots(slots []int, from, to *Server) {
	c.t.Helper()
	c.migrate(slots, from, to)
	Eventually(c.t, startTimeout, func() error {
		table, err := parseSlots(from.MustDo("CLUSTER", "SLOTS"), "127.0.0.1")
		if err != nil {
			return err
		}
		for _, slot := range slots {
			if table[slot] != to.Addr {
				return fmt.Errorf("slot %d is still at %s", slot, table[slot])
			}
		}
		return nil
	})
}

// CancelSlot begins to move a slot and its keys, calls during when half of them have moved, and takes it all back.
func (c *Cluster) CancelSlot(slot int, from, to *Server, during func()) {
	c.t.Helper()
	fromID, toID := nodeID(from), nodeID(to)
	to.MustDo("CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	from.MustDo("CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	half := from.MustDo("CLUSTER", "COUNTKEYSINSLOT", slot).Int / 2
	c.moveKeys(from, to, from.MustDo("CLUSTER", "GETKEYSINSLOT", slot, half).Array)
	during()
	from.MustDo("CLUSTER", "SETSLOT", slot, "STABLE")
	back := to.Dial()
	defer back.Close() //nolint:errcheck // of a test
	args := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(from.Port), "", "0", "5000", "REPLACE", "KEYS"}
	for _, key := range to.MustDo("CLUSTER", "GETKEYSINSLOT", slot, 1000).Array {
		args = append(args, key.Text)
	}
	for _, call := range [][]string{{"ASKING"}, args} {
		if _, err := back.Do(context.Background(), startTimeout, call...); err != nil {
			c.t.Fatalf("redistest: %s on %s: %v", call[0], to.Addr, err)
		}
	}
	to.MustDo("CLUSTER", "SETSLOT", slot, "STABLE")
}

// migrate begins to move slots at once. It is refused while another migration ends.
func (c *Cluster) migrate(slots []int, from, to *Server) {
	c.t.Helper()
	args := []any{"CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"}
	for _, slot := range slots {
		args = append(args, slot, slot)
	}
	args = append(args, "NODE", nodeID(to))
	Eventually(c.t, startTimeout, func() error { return from.Do(args...).Err() })
}

// CancelMigration begins to move slots at once, and cancels that.
func (c *Cluster) CancelMigration(slots []int, from, to *Server) {
	c.t.Helper()
	c.migrate(slots, from, to)
	from.Do("CLUSTER", "CANCELSLOTMIGRATIONS") // it may be over
}

// Remove takes a node that has no slots out of the cluster, and stops it.
func (c *Cluster) Remove(gone *Server) {
	c.t.Helper()
	id := nodeID(gone)
	c.Nodes = slices.DeleteFunc(c.Nodes, func(n *Server) bool { return n == gone })
	gone.Stop()
	for _, node := range c.Nodes {
		if r := node.Do("CLUSTER", "FORGET", id); r.Err() != nil && !strings.Contains(r.Text, "Unknown node") {
			c.t.Fatalf("redistest: FORGET on %s: %s", node.Addr, r.Text)
		}
	}
}

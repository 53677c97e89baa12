package writer

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// everywhere writes an entry without keys on every primary, when nothing else is on its way, and waits for it. Should
// the primaries change meanwhile, it is written on those that were not there before.
func (c *cluster) everywhere(ctx context.Context, it item) error {
	b, e := it.batch, it.entry()
	if e.Kind == haul.KindTransaction {
		return c.refuse(it, &resp.Error{Code: "ERR", Text: "a transaction of a cluster cannot hold a command that concerns every node"})
	}
	c.flush()
	if err := c.d.drain(ctx); err != nil {
		return err
	}
	var cmd *haul.Command
	if !b.Snapshot {
		cmd = &b.Commands[e.First]
	}
	if cmd != nil && cmd.Spec.Name == "SWAPDB" {
		return c.refuse(it, &resp.Error{Code: "ERR", Text: "ERR SWAPDB cannot be carried out on a cluster: haul to a standalone target, or begin anew behind it"})
	}
	if cmd != nil && cmd.Spec.Flushes() {
		all := cmd.Spec.Name == "FLUSHALL"
		defer c.rereads.table.flushed(all, cmd.DB, c.emptied(e))
	}
	if done, err := c.flushes(ctx, it); done || err != nil {
		return err
	}
	c.nodes = c.nodes[:0]
	for {
		known := len(c.nodes)
		for _, l := range c.d.lanes {
			if !slices.Contains(c.nodes, l.addr) {
				c.nodes = append(c.nodes, l.addr)
			}
		}
		if len(c.nodes) == known {
			break
		}
		b.Expect(len(c.nodes) - known)
		for i := known; i < len(c.nodes); i++ {
			c.byKey[c.nodes[i]].push(item{batch: b, first: it.first, n: 1, part: partLane + part(i)})
		}
		if err := c.d.drain(ctx); err != nil {
			return err
		}
	}
	if c.d.cfg.Store != nil && !b.Snapshot { // so that it is not repeated behind anything that comes after it
		if err := c.d.cfg.Store.Mark(ctx, fenceAt(b, e)); err != nil {
			return err
		}
	}
	b.Done(1)
	return nil
}

// emptied tells of which slots an earlier run has applied an entry.
func (c *cluster) emptied(e *haul.Entry) func(slot uint16) bool {
	var has [command.Slots]bool
	for slot := range has {
		has[slot] = c.d.isApplied(uint16(slot), e)
	}
	return func(slot uint16) bool { return has[slot] }
}

// flushes empties the target, or a database of it, and reports whether that was asked for. keyhaul's own keys stay.
func (c *cluster) flushes(ctx context.Context, it item) (bool, error) {
	b, e := it.batch, it.entry()
	if c.d.cfg.Store == nil || e.Kind != haul.KindCommand || e.Big != nil {
		return false, nil
	}
	cmd := &b.Commands[e.First]
	if !cmd.Spec.Flushes() {
		return false, nil
	}
	err := c.d.cfg.Store.FlushNodes(ctx, c.d.cfg.DBs.Of(cmd.DB), cmd.Spec.Name == "FLUSHALL", c.d.leaseText(), fenceAt(b, e), c.d.applied)
	if errors.Is(err, checkpoint.ErrLost) {
		err = haul.Errorf(haul.ExitHistoryLost, "copy anew with --on-lost-history flush or resync", "%s cannot be repeated: %w", cmd.Spec.Name, err)
	}
	if err == nil {
		c.d.completeEverywhere(b, 1)
	}
	return true, err
}

// refuse treats an entry that cannot be written to a cluster like one that the target has refused.
func (c *cluster) refuse(it item, e *resp.Error) error {
	if c.d.cfg.OnError != OnErrorSkip {
		return c.d.refusal(it, e)
	}
	if c.d.skip(it, e) {
		it.batch.Done(1)
	}
	return nil
}

// askSlots asks the target where the keys of an unknown command are. It returns command.ErrNoSpec if that cannot be
// asked, and the target's *resp.Error if it does not know the command either.
func (c *cluster) askSlots(ctx context.Context, it item) ([]uint16, error) {
	names, err := c.askKeys(ctx, it)
	if err != nil {
		return nil, err
	}
	keys := make([]int, len(names))
	for i := range keys {
		keys[i] = i
	}
	return slotSet(keys, func(i int) []byte { return []byte(names[i]) }), nil
}

// asked is the last answer about the keys of an unknown command of the batch in hand.
type asked struct {
	it   item
	keys []string
	err  error
}

// askKeys is askSlots for the names of the keys.
func (c *cluster) askKeys(ctx context.Context, it item) ([]string, error) {
	if c.asked.it != it {
		names, err := c.askTarget(ctx, it)
		if err != nil && ctx.Err() != nil {
			return nil, err
		}
		c.asked = asked{it, names, err}
	}
	return c.asked.keys, c.asked.err
}

func (c *cluster) askTarget(ctx context.Context, it item) ([]string, error) {
	b, e := it.batch, it.entry()
	if e.Kind != haul.KindCommand || e.Big != nil {
		return nil, command.ErrNoSpec
	}
	cmd := &b.Commands[e.First]
	args := []string{"COMMAND", "GETKEYS"}
	for i := range int(cmd.NArg) {
		args = append(args, string(b.Arg(cmd, i)))
	}
	for i := 0; ; i++ {
		r, err := c.ask(ctx, c.d.lanes[i%len(c.d.lanes)].addr, args)
		var refused *resp.Error
		if err == nil {
			names := make([]string, len(r.Array))
			for i := range names {
				names[i] = r.Array[i].Text
			}
			return names, nil
		}
		if errors.As(err, &refused) && classify(refused) == actData {
			return nil, refused
		}
		select {
		case <-time.After(c.d.backoff.Next()):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ask puts one question to a node.
func (c *cluster) ask(ctx context.Context, addr string, args []string) (resp.Reply, error) {
	const timeout = 10 * time.Second
	conn, err := c.d.cfg.Dialer.Open(ctx, addr)
	if err != nil {
		return resp.Reply{}, err
	}
	defer conn.Close() //nolint:errcheck // one question
	return conn.Do(ctx, timeout, args...)
}

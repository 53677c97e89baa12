package writer

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// connect brings a lane up. It tries until ctx ends, or only once.
func (d *dispatcher) connect(ctx context.Context, l *lane, once bool) error {
	who := l.who()
	defer d.cfg.Waits.Clear(who)
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	l.state.Store("connecting")
	addrs := []string{l.addr}
	if !d.cfg.Node.Cluster {
		addrs = nil // wherever the server is found now
	}
	conn, err := topology.Connect(ctx, topology.ConnectOptions{
		Dialer: d.cfg.Dialer, Role: "target", Addrs: addrs, Prepare: func(ctx context.Context, c *resp.Conn) error {
			return d.prepare(ctx, l, c)
		},
		Observe: func(e topology.Event) {
			l.state.Store(e.State.String())
			switch e.State {
			case topology.Connecting:
				if !d.cfg.Node.Cluster {
					l.setAddr(e.Addr)
				}
			case topology.BackingOff:
				if once {
					giveUp()
					return
				}
				d.cfg.Waits.Set(who, e.Err.Error(), "start the target, or correct its address and login; keyhaul keeps trying")
			case topology.Loading:
				d.cfg.Waits.Set(who, "the target is loading its data", "none needed: keyhaul goes on when it has finished")
			}
		},
	})
	if err != nil {
		return err
	}
	if l.served {
		l.reconnects.Add(1)
	}
	l.served, l.fresh = true, true
	if !d.cfg.Node.Cluster { // of a cluster, lanes are connected in the background too
		d.reached = l.addr
	}
	l.begin(conn)
	d.group.Go(func() error {
		l.serve(d.runCtx, conn)
		return nil
	})
	return nil
}

// prepare makes a connection a lane: it has a name, knows the target's timeout, and is no replica's.
func (d *dispatcher) prepare(ctx context.Context, l *lane, c *resp.Conn) error {
	const timeout = 10 * time.Second
	node, err := topology.Inspect(ctx, c)
	if err != nil {
		return err
	}
	if node.Role == "slave" {
		return topology.ErrReplica(node)
	}
	if err := d.known(l, node); err != nil {
		return err
	}
	for _, call := range [][]string{
		{"CLIENT", "SETNAME", d.cfg.Dialer.ClientName},
		{"MULTI"},
		{"EXEC"}, // where these are not allowed the commands between them would be applied one by one
		{"CONFIG", "GET", "timeout"},
		{"CLIENT", "ID"},
		{"CLIENT", "IMPORT-SOURCE", "ON"},
	} {
		if call[len(call)-1] == "ON" && !d.cfg.ImportSource || call[len(call)-1] == "ID" && d.cfg.Store == nil {
			continue
		}
		r, err := c.Do(ctx, timeout, call...)
		var refused *resp.Error
		if err != nil && (!errors.As(err, &refused) || refused.Code == "NOPERM" && len(call) == 1) {
			return err
		}
		if call[0] == "CONFIG" && err == nil && len(r.Array) == 2 {
			l.setTimeoutText(r.Array[1].Text)
		}
		if call[len(call)-1] == "ID" {
			if err := d.evict(ctx, l, node); err != nil {
				return err
			}
			l.id, l.runID, l.holder = r.Int, node.RunID, checkpoint.Holder(node)
		}
	}
	if d.cfg.Lease != nil { // after its name is known, so that who takes over finds this connection or this one the lease
		err := d.cfg.Lease.Check(ctx, l.addr)
		if errors.Is(err, checkpoint.ErrTaken) || errors.Is(err, checkpoint.ErrGone) {
			return &topology.Permanent{Err: err}
		}
		return err
	}
	return nil
}

// hasDBs makes sure that the target has the databases of a batch before the first entry for one is written: a SELECT
// that fails in a pipeline would let what follows it into another one.
func (d *dispatcher) hasDBs(ctx context.Context, b *haul.Batch) error {
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone {
			continue
		}
		if err := d.hasDB(ctx, e.DB); err != nil {
			return err
		}
		if e.Kind != haul.KindTransaction {
			continue
		}
		cmds := b.CommandsOf(e)
		for j := range cmds {
			if err := d.hasDB(ctx, cmds[j].DB); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasDB is about one database of the source.
func (d *dispatcher) hasDB(ctx context.Context, from int32) error {
	db := d.enc.db(from)
	if db == d.lastDB || d.dbs[db] {
		d.lastDB = db
		return nil
	}
	defer d.cfg.Waits.Clear(whoTarget)
	for i := 0; ; i++ {
		err := d.trySelect(ctx, d.lanes[i%len(d.lanes)].addr, db)
		var refused *resp.Error
		switch {
		case err == nil:
			d.dbs[db] = true
			return nil
		case errors.As(err, &refused) && classify(refused) == actData:
			return haul.Errorf(haul.ExitFailed, "raise `databases` on the target (Valkey 9 clusters: `cluster-databases`), or send that database elsewhere or nowhere by --db-map",
				"the source uses database %d, and the target has no database %d: %w", from, db, refused)
		case refused != nil:
			d.cfg.Waits.Set(whoTarget, fmt.Sprintf("SELECT %d: %s", db, refused.Text), remedy(refused))
		}
		if err := d.sleep(ctx); err != nil {
			return err
		}
	}
}

// sleep waits before the next try.
func (d *dispatcher) sleep(ctx context.Context) error {
	select {
	case <-time.After(d.backoff.Next()):
		return nil
	case err := <-d.dead:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// trySelect asks one node for a database.
func (d *dispatcher) trySelect(ctx context.Context, addr string, db int32) error {
	const timeout = 10 * time.Second
	c, err := d.cfg.Dialer.Open(ctx, addr)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // one question
	_, err = c.Do(ctx, timeout, "SELECT", strconv.Itoa(int(db)))
	return err
}

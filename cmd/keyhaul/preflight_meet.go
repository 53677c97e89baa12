package main

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
	"github.com/keyhaul/keyhaul/reader"
)

// greet waits until those ends that are servers are ready and asks one of each what it is. Past the deadline it fails with
// ExitUnreachable.
func (e *ends) greet(ctx context.Context, cfg config, source, target *topology.Dialer, waits *haul.Waits, log zerolog.Logger) error {
	g, gctx := errgroup.WithContext(ctx)
	if source != nil {
		g.Go(func() error { return meetOne(gctx, cfg, "source", source, &e.source, waits, log) })
	}
	if target != nil {
		g.Go(func() error { return meetOne(gctx, cfg, "target", target, &e.target, waits, log) })
	}
	if err := g.Wait(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
	if cfg.TargetMode == targetStandalone {
		e.target.Cluster = false
	}
	return nil
}

// patiently looks at an end until it is whole. Past the deadline it fails with ExitUnreachable.
func patiently(ctx context.Context, cfg config, who string, began time.Time, look func(context.Context) error, waits *haul.Waits, log zerolog.Logger) error {
	defer waits.Clear(who)
	var backoff keepalive.Backoff
	for {
		err := look(ctx)
		if err == nil {
			return nil
		}
		var forming *notYet
		if !errors.As(err, &forming) {
			return err
		}
		if cfg.ConnectDeadline > 0 && time.Since(began) > cfg.ConnectDeadline {
			return haul.Errorf(haul.ExitUnreachable, forming.remedy+"; --connect-deadline is how long keyhaul waits", "%w", err)
		}
		waits.Set(who, err.Error(), forming.remedy+"; keyhaul goes on by itself")
		log.Warn().Err(err).Str("who", who).Msg("waiting for a server or cluster")
		select {
		case <-time.After(backoff.Next()):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// notYet is what a cluster lacks while it is being formed.
type notYet struct {
	error
	remedy string
}

func meetOne(ctx context.Context, cfg config, role string, d *topology.Dialer, node *topology.Node, waits *haul.Waits, log zerolog.Logger) error {
	who := role + " " + d.Endpoint.String()
	defer waits.Clear(who)
	find := d.Servers
	if role == "source" {
		find = func(ctx context.Context) ([]string, error) { return reader.Find(ctx, d, cfg.PreferReplica, nil) }
	}
	c, err := topology.Connect(ctx, topology.ConnectOptions{
		Dialer: d, Role: role, Within: cfg.ConnectDeadline, Find: find,
		Prepare: func(ctx context.Context, c *resp.Conn) (err error) {
			*node, err = topology.Inspect(ctx, c)
			if err == nil && role == "target" && node.Role == "slave" && !node.Cluster && d.Endpoint.Several() {
				return topology.ErrReplica(*node)
			}
			return err
		},
		Observe: func(e topology.Event) {
			switch e.State {
			case topology.BackingOff:
				waits.Set(who, e.Err.Error(), "start the "+role+", or correct its address and login; keyhaul keeps trying")
				log.Warn().Err(e.Err).Int("attempt", e.Attempt).Msg("waiting for the " + role)
			case topology.Loading:
				waits.Set(who, "it is loading its data", "none needed: keyhaul goes on when it has finished")
				log.Warn().Str("address", e.Addr).Msg("the " + role + " is loading its data")
			}
		},
	})
	if err != nil {
		var out *topology.NotReachedError
		if errors.As(err, &out) && out.Within {
			return haul.Errorf(haul.ExitUnreachable, "start the "+role+", or correct its address and login; --connect-deadline is how long keyhaul waits", "%w", err)
		}
		return err
	}
	return c.Close()
}

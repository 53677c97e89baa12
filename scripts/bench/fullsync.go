package main

import (
	"context"
	"fmt"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// fullSync compares a full sync by keyhaul with REPLICAOF between two standalone servers.
func fullSync(ctx context.Context, t rt.TB, o options, cluster bool) error {
	source := start(t, o)
	if err := rt.FillMixed(ctx, source.Endpoint(), o.scale, 1); err != nil {
		return err
	}
	header("run", "REPLICAOF", "keyhaul", "ratio", "CPU of keyhaul", "VmHWM of keyhaul")
	var refs, mine, cpus []time.Duration
	var ratios []float64
	var rss []int64
	for i := range o.runs {
		ref := replicaOf(t, o, source)
		dst := newTarget(t, o, cluster)
		cmd := command(t, o, "--source", source.URL(), "--target", dst.url, "--until", "caught-up")
		began := time.Now()
		if err := cmd.Start(); err != nil {
			return err
		}
		memory := peak(cmd.Process.Pid)
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("keyhaul: %w", err)
		}
		took := time.Since(began)
		u := usage{cpu(cmd.ProcessState), memory()}
		refs, mine, cpus, rss = append(refs, ref), append(mine, took), append(cpus, u.cpu), append(rss, u.rss)
		ratios = append(ratios, took.Seconds()/ref.Seconds())
		row(i+1, ms(ref), ms(took), fmt.Sprintf("%.2f", ratios[i]), ms(u.cpu), mb(u.rss))
		if o.verify && i == 0 {
			if err := compare(ctx, source.Endpoint(), dst.end); err != nil {
				return err
			}
		}
		dst.close()
	}
	row("median", ms(median(refs)), ms(median(mine)), fmt.Sprintf("%.2f", median(ratios)), ms(median(cpus)), mb(median(rss)))
	return nil
}

// replicaOf measures the servers' own full sync to a fresh server.
func replicaOf(t rt.TB, o options, source *rt.Server) time.Duration {
	replica := start(t, o)
	defer replica.Stop()
	began := time.Now()
	replica.ReplicaOf(source)
	replica.WaitReplica()
	return time.Since(began)
}

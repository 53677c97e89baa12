package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

const patience = time.Minute

// prepare starts both sides and fills the source.
func (d *demo) prepare() {
	d.say("A source with mixed data and a cluster of three primaries are started.")
	d.source = redistest.Start(d.tb, redistest.Options{})
	d.target = redistest.StartCluster(d.tb, redistest.ClusterOptions{Primaries: 3})
	d.link = redistest.NewProxy(d.tb, d.source.Addr)
	d.state = d.tb.TempDir()
	d.check(redistest.FillMixed(d.ctx, d.source.Endpoint(), d.scale, 1), "fill the source")
	d.say("Source: %s, %d keys: strings (some with a TTL), hashes, lists, sets, sorted sets, streams with groups.",
		d.source.Version, d.source.MustDo("DBSIZE").Int)
	d.say("Target: %s, cluster of %d primaries, empty.", d.target.Nodes[0].Version, len(d.target.Nodes))
}

// killed starts keyhaul and kills it in the middle of the stream.
func (d *demo) killed() {
	d.title("1. keyhaul sync, as a daemon; then kill -9 in the middle of the stream")
	first := d.start()
	d.awaitLag(first)
	time.Sleep(2 * time.Second)
	s := first.status()
	d.say("%d keys copied, %d live writes applied on top, lag %.1f s. Now kill -9.",
		s.Links[0].SnapshotKeys, s.Links[0].Entries, s.Links[0].LagSeconds)
	d.fullSyncs = s.Links[0].FullSyncs
	first.signal(syscall.SIGKILL)
	first.wait()
	d.await(patience, func() (bool, string) {
		n := 0
		for _, node := range d.target.Nodes {
			n += strings.Count(node.MustDo("CLIENT", "LIST").Text, "name=keyhaul:")
		}
		return n == 0, fmt.Sprintf("%d connections of the killed process are left", n)
	})
}

// refused starts keyhaul again as it was.
func (d *demo) refused() {
	d.title("2. The same command again: refused, because resuming after a crash does not exist yet")
	before := d.changes()
	again := d.start()
	code := again.wait()
	if code != 3 {
		d.tb.Fatalf("exit code %d, 3 is expected", code)
	}
	if after := d.changes(); after != before {
		d.tb.Fatalf("%d changes on the target", after-before)
	}
	d.say("Exit code 3, and the target was not changed (its counters of changes stand still).")
}

// changes sums up how many changes the nodes of the target have seen.
func (d *demo) changes() int64 {
	var sum int64
	for _, node := range d.target.Nodes {
		n, err := strconv.ParseInt(node.Info("persistence")["rdb_changes_since_last_save"], 10, 64)
		d.check(err, "INFO persistence")
		sum += n
	}
	return sum
}

// secondRun starts keyhaul with leave to empty the target.
func (d *demo) secondRun() *process {
	d.title("3. With --existing flush: the target is emptied and the full copy repeated, while the writers go on")
	p := d.start("--existing", "flush")
	d.awaitLag(p)
	time.Sleep(2 * time.Second)
	s := p.status()
	d.say("%d keys copied, %d live writes applied on top, lag %.1f s.", s.Links[0].SnapshotKeys, s.Links[0].Entries, s.Links[0].LagSeconds)
	return p
}

// cutSource breaks the link to the source twice under load.
func (d *demo) cutSource(p *process) {
	d.title("4. The connection to the source is cut, under load")
	d.link.Cut()
	d.awaitPartial(p, 1)
	d.title("5. Once more, and the source stays out of reach for two seconds")
	d.link.Refuse(true)
	d.link.Cut()
	time.Sleep(2 * time.Second)
	d.link.Refuse(false)
	d.awaitPartial(p, 2)
	d.awaitLag(p)
}

// awaitPartial waits until the link was resumed n times.
func (d *demo) awaitPartial(p *process, n int64) {
	d.await(patience, func() (bool, string) {
		s := p.status()
		if s.Links[0].FullSyncs != 1 {
			d.tb.Fatalf("%d full syncs", s.Links[0].FullSyncs)
		}
		return s.Links[0].Connected && s.Links[0].PartialSyncs == n, fmt.Sprintf("%d partial syncs, %d are expected", s.Links[0].PartialSyncs, n)
	})
	d.say("Continued where it broke off. Partial syncs: %d, full syncs: still 1.", n)
}

// cutTarget breaks every connection to a node of the target in a quiet moment, and writes on.
func (d *demo) cutTarget(p *process) {
	d.awaitApplied(p)
	node := d.target.Nodes[1]
	d.title("6. A node of the target (%s) closes all connections, in a quiet moment", node.Addr)
	d.say("(Under load, what was not acknowledged is sent again and may be applied twice: delivery is at least once.)")
	node.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	d.await(patience, func() (bool, string) {
		s := p.status()
		for _, lane := range s.Target.Lanes {
			if lane.Address == node.Addr && lane.Reconnects > 0 && s.Target.Ready {
				return true, ""
			}
		}
		return false, "the connection is not back"
	})
	s := p.status()
	d.say("Connected again. Entries sent a second time: %d, full syncs: still %d.", s.Target.Resends, s.Links[0].FullSyncs)
	load := d.startLoad(2)
	time.Sleep(2 * time.Second)
	d.stopLoad(load)
	d.awaitApplied(p)
}

// finish ends keyhaul the ordinary way.
func (d *demo) finish(p *process) {
	d.title("7. SIGTERM")
	p.last = p.status()
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		d.tb.Fatalf("exit code %d, 0 is expected", code)
	}
	d.say("Exit code 0.")
}

// prove compares both sides.
func (d *demo) prove(p *process) {
	d.title("8. Every key of source and target is compared, in both directions: type, value, TTL, stream groups")
	report, err := redistest.Compare(d.ctx, d.source.Endpoint(), d.target.Endpoint(), redistest.CompareOptions{})
	d.check(err, "compare")
	if !report.Equal() {
		d.tb.Fatalf("source and target differ: %s", report.String())
	}
	s := p.last
	if s.Links[0].FullSyncs != 1 || s.Links[0].PartialSyncs != 2 {
		d.tb.Fatalf("%d full syncs and %d partial syncs; 1 and 2 are expected", s.Links[0].FullSyncs, s.Links[0].PartialSyncs)
	}
	fmt.Println("\nProved:")
	line := func(name, format string, args ...any) {
		fmt.Printf("  %-28s %s\n", name, fmt.Sprintf(format, args...))
	}
	line("keys compared", "%d in %.1f s", report.Keys, report.Took.Seconds())
	for _, kind := range slices.Sorted(maps.Keys(report.ByType)) {
		line("  "+kind, "%d", report.ByType[kind])
	}
	line("keys that differ", "%d", report.Different)
	line("live writes on the source", "%d", d.written)
	line("entries of the stream applied", "%d by the second run", s.Links[0].Entries)
	line("full syncs", "%d by the first run, %d by the second", d.fullSyncs, s.Links[0].FullSyncs)
	line("partial syncs", "%d by the second run, for 2 cuts", s.Links[0].PartialSyncs)
	line("entries sent a second time", "%d", s.Target.Resends)
	line("duration", "%.0f s", time.Since(d.began).Seconds())
	fmt.Println("\nNot proved, because it does not exist yet: resuming after kill -9 without a new copy, and exactly-once delivery.")
}

// awaitLag waits until the snapshot is on the target and the stream is close to the source, which is being written to.
func (d *demo) awaitLag(p *process) {
	d.await(patience, func() (bool, string) {
		s := p.status()
		return s.Links[0].SnapshotDone && s.Links[0].Connected && s.Links[0].LagSeconds < 1,
			fmt.Sprintf("phase %s, lag %.1f s", s.Phase, s.Links[0].LagSeconds)
	})
}

// awaitApplied waits until the target has acknowledged everything that the source has now.
func (d *demo) awaitApplied(p *process) {
	want, err := strconv.ParseInt(d.source.Info("replication")["master_repl_offset"], 10, 64)
	d.check(err, "INFO replication")
	d.await(patience, func() (bool, string) {
		s := p.status()
		return s.Links[0].Applied >= want, fmt.Sprintf("applied %d of %d", s.Links[0].Applied, want)
	})
	d.say("keyhaul's status: the target has applied everything up to offset %d, the source's own.", want)
}

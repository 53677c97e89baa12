package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

const patience = time.Minute

// prepare starts both sides and fills the source.
func (d *demo) prepare() {
	d.say("A source with mixed data and a cluster of three primaries are started.")
	// The default backlog of 1 MB holds some two seconds of this load: too little for an outage of that length.
	d.source = redistest.Start(d.tb, redistest.Options{Config: map[string]string{"repl-backlog-size": "16mb"}})
	d.target = redistest.StartCluster(d.tb, redistest.ClusterOptions{Primaries: 3})
	d.link = redistest.NewProxy(d.tb, d.source.Addr)
	d.state = d.tb.TempDir()
	d.check(redistest.FillMixed(d.ctx, d.source.Endpoint(), d.scale, 1), "fill the source")
	d.say("Source: %s, repl-backlog-size 16mb, %d keys: strings (some with a TTL), hashes, lists, sets, sorted sets, streams with groups.",
		d.source.Version, d.source.MustDo("DBSIZE").Int)
	d.say("Target: %s, cluster of %d primaries, empty.", d.target.Nodes[0].Version, len(d.target.Nodes))
}

// first starts keyhaul on an empty target.
func (d *demo) first() *process {
	d.title("1. keyhaul sync, as a daemon")
	p := d.start("sync")
	d.awaitLag(p)
	s := p.status()
	d.say("%d keys copied, the stream of live writes follows, lag %.1f s.", s.Links[0].SnapshotKeys, s.Links[0].LagSeconds)
	return p
}

// killed kills keyhaul under load and starts the same command again.
func (d *demo) killed(p *process) *process {
	d.kill(p)
	return d.resumed()
}

// moved does so with an empty state directory, as on another machine.
func (d *demo) moved(p *process) *process {
	d.kill(p)
	d.say("Its state directory is lost, as if the next one ran on another machine. The target alone knows where it stopped.")
	d.state = d.tb.TempDir()
	return d.resumed()
}

func (d *demo) kill(p *process) {
	time.Sleep(2 * time.Second)
	s := p.status()
	d.kills++
	d.title("%d. kill -9 under load, and the same command again", d.kills+1)
	p.signal(syscall.SIGKILL)
	p.wait()
	d.sure = s.Links[0].Applied
}

// resumed starts keyhaul and waits until it has applied more than the one before.
func (d *demo) resumed() *process {
	began := time.Now()
	p := d.start("sync")
	d.await(patience, func() (bool, string) {
		s := p.status()
		return s.Links[0].Applied > d.sure, fmt.Sprintf("applied %d, which it had before", s.Links[0].Applied)
	})
	d.say("Entries flow again after %.1f s.", time.Since(began).Seconds())
	d.awaitLag(p)
	d.oneCopy()
	return p
}

// oneCopy asks the source how many snapshots it has made.
func (d *demo) oneCopy() {
	if n := d.source.FullSyncs(); n != 1 {
		d.tb.Fatalf("the source has made %d snapshots (sync_full), 1 is expected", n)
	}
	d.say("The source has made one snapshot until now (its sync_full: 1).")
}

// cutSource breaks the link to the source under load.
func (d *demo) cutSource(p *process) {
	d.title("%d. The connection to the source is cut, and the source stays out of reach for two seconds", d.kills+2)
	before := p.status().Links[0].PartialSyncs
	d.link.Refuse(true)
	d.link.Cut()
	time.Sleep(2 * time.Second)
	d.link.Refuse(false)
	d.await(patience, func() (bool, string) {
		s := p.status()
		return s.Links[0].Connected && s.Links[0].PartialSyncs > before, "the stream is not continued"
	})
	d.awaitLag(p)
	d.oneCopy()
}

// cutTarget breaks every connection to a node of the target, under load too.
func (d *demo) cutTarget(p *process) {
	node := d.target.Nodes[1]
	d.title("%d. A node of the target (%s) closes all connections, twenty times", d.kills+3, node.Addr)
	for range 20 {
		node.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
		time.Sleep(100 * time.Millisecond)
	}
	d.awaitLag(p)
	s := p.status()
	d.say("Connected again. %d entries were sent without a reply: the fences tell which of them are applied.", s.Target.Resends)
}

// spoil changes keys on the target behind keyhaul's back, under load, and has them found and repaired.
func (d *demo) spoil() {
	d.title("%d. Three keys of the target are spoiled, while clients write to the source", d.kills+4)
	d.target.MustDo("string:1", "SET", "string:1", "spoiled")
	d.target.MustDo("zset:1", "DEL", "zset:1")
	d.target.MustDo("spoiled", "RPUSH", "spoiled", "which the source does not have")
	d.exits(d.start("verify", "--repair", "--prune"), 0)
}

// proveFollowing compares both sides while keyhaul runs: deadlines are held back by an hour.
func (d *demo) proveFollowing(p *process) {
	d.awaitApplied(p)
	d.title("%d. Every key of both sides is compared while keyhaul runs, by keyhaul and by the demo", d.kills+5)
	d.exits(d.start("verify"), 0)
	report := d.compare(redistest.CompareOptions{Grace: time.Hour})
	d.say("%d keys, equal. Deadlines on the target are an hour later: the source decides what expires until the haul is finished.", report.Keys)
}

// finish ends the haul.
func (d *demo) finish(p *process) {
	d.title("%d. SIGTERM, then keyhaul finish", d.kills+6)
	p.signal(syscall.SIGTERM)
	d.exits(p, 0)
	d.exits(d.start("finish"), 0)
}

func (d *demo) exits(p *process, want int) {
	if code := p.wait(); code != want {
		d.tb.Fatalf("exit code %d, %d is expected", code, want)
	}
	d.say("Exit code %d.", want)
}

func (d *demo) compare(options redistest.CompareOptions) redistest.Report {
	options.IgnoreReadCounts = true // a replica has others, too
	report, err := redistest.Compare(d.ctx, d.source.Endpoint(), d.target.Endpoint(), options)
	d.check(err, "compare")
	if !report.Equal() {
		d.tb.Fatalf("source and target differ: %s", report.String())
	}
	return report
}

// prove compares both sides for good.
func (d *demo) prove() {
	d.title("%d. Every key is compared again, in both directions: type, value, deadline to the millisecond, stream groups", d.kills+7)
	report := d.compare(redistest.CompareOptions{})
	d.oneCopy()
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
	line("kill -9", "%d, one of them with the state directory lost", d.kills)
	line("full copies", "%d", d.source.FullSyncs())
	line("duration", "%.0f s", time.Since(d.began).Seconds())
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

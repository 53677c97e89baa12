package check

import (
	"crypto/x509"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

const mib = 1 << 20

// usual is what servers have for client-output-buffer-limit.
const usual = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60"

// pairOf returns a healthy pair with this much data, written to at this rate, in bytes a second.
func pairOf(data int64, written float64) *Pair {
	end := func(name string, data int64) *side {
		d := topology.NewDialer(topology.Endpoint{Scheme: "redis", Addrs: []string{name + ":6379"}})
		s := &server{addr: name + ":6379", subject: name + " " + name + ":6379", timed: true, measured: true, written: written, config: map[string]string{}}
		s.node = topology.Node{
			Product: "redis", Version: "7.0.15", Major: 7, RunID: name, ReplID: name, Role: "master", UsedMemory: data + mib,
			Backlog: topology.Backlog{Size: mib}, Keyspace: map[int]int64{},
		}
		if data > 0 {
			s.node.Keyspace[0] = data / 100
		}
		s.info = map[string]string{"used_memory_startup": fmt.Sprint(mib), "maxclients": "10000", "total_system_memory": fmt.Sprint(int64(1) << 50)}
		return &side{name: name, dialer: d, servers: []*server{s}}
	}
	p := &Pair{cfg: Config{ExactlyOnce: true, MustBeEmpty: true, Pings: true, ReplyTimeout: time.Minute, StateDir: "/state"}, source: end("source", data), target: end("target", 0)}
	p.source.servers[0].config["client-output-buffer-limit"] = usual
	p.disk.free = 1 << 50
	return p
}

// TestThresholds: what is judged by numbers, on both sides of where it begins to matter.
func TestThresholds(t *testing.T) {
	t.Parallel()
	limit := func(text string) func(*Pair) {
		return func(p *Pair) { p.source.servers[0].config["client-output-buffer-limit"] = text }
	}
	for name, c := range map[string]struct {
		data    int64
		written float64
		set     func(p *Pair)
		want    []string
	}{
		"empty, idle":         {},
		"large, idle":         {data: 100_000 * mib},
		"a slow trickle":      {data: 100 * mib, written: 10 << 10},
		"as fast as backlog":  {data: 100 * mib, written: mib/60 - 1},
		"faster than backlog": {data: 100 * mib, written: mib / 50, want: []string{"backlog-small"}},
		"a backlog for that":  {data: 100 * mib, written: mib, set: func(p *Pair) { p.source.servers[0].node.Backlog.Size = 64 * mib }},
		"slow snapshot": { // 200 s at 2 MiB/s
			data: 10_000 * mib, written: 2 * mib, set: func(p *Pair) { p.source.servers[0].node.Backlog.Size = 256 * mib }, want: []string{"output-buffer-small"},
		},
		"soft limit in time": { // passed 36 s before the end
			data: 5_000 * mib, written: mib, set: func(p *Pair) { p.source.servers[0].node.Backlog.Size = 64 * mib },
		},
		"soft limit too long": { // passed 136 s before the end
			data: 10_000 * mib, written: mib, set: func(p *Pair) { p.source.servers[0].node.Backlog.Size = 64 * mib }, want: []string{"output-buffer-small"},
		},
		"lowered, no data":   {set: limit("normal 0 0 0 replica 10485760 5242880 10")},
		"low hard limit":     {set: limit("slave 2097152 0 0"), want: []string{"output-buffer-small"}},
		"low soft limit":     {set: limit("slave 268435456 1048576 1"), want: []string{"output-buffer-small"}},
		"low, no data":       {set: limit("slave 1048576 524288 60"), want: []string{"output-buffer-small"}},
		"lowered, much data": {data: 1000 * mib, set: limit("slave 67108864 67108864 60"), want: []string{"output-buffer-small"}},
		"no limit":           {data: 1000 * mib, set: limit("slave 0 0 0")},

		"fits":         {data: 100 * mib, set: func(p *Pair) { p.target.servers[0].node.MaxMemory = 200 * mib }},
		"fits closely": {data: 100 * mib, set: func(p *Pair) { p.target.servers[0].node.MaxMemory = 110 * mib }, want: []string{"memory-tight"}},
		"too large":    {data: 100 * mib, set: func(p *Pair) { p.target.servers[0].node.MaxMemory = 100 * mib }, want: []string{"memory-short"}},
		"overwritten": {data: 100 * mib, set: func(p *Pair) {
			p.cfg.MustBeEmpty = false
			t := p.target.servers[0]
			t.node.UsedMemory, t.node.MaxMemory = 100*mib, 110*mib
		}, want: []string{"memory-tight"}},
		"too large to overwrite": {data: 100 * mib, set: func(p *Pair) {
			p.cfg.MustBeEmpty = false
			t := p.target.servers[0]
			t.node.UsedMemory, t.node.MaxMemory = 50*mib, 90*mib
		}, want: []string{"memory-short"}},
		"half is dropped": {data: 100 * mib, set: func(p *Pair) {
			p.source.servers[0].node.Keyspace[1] = p.source.servers[0].node.Keyspace[0]
			p.cfg.DBs = haul.DBMap{1: haul.DropDB}
			p.target.servers[0].node.MaxMemory = 80 * mib
		}},
		"too large for its machine": {data: 100 * mib, set: func(p *Pair) { p.target.servers[0].info["total_system_memory"] = fmt.Sprint(64 * mib) }, want: []string{"memory-tight"}},

		"disk for it":       {data: 100 * mib, set: func(p *Pair) { p.disk.free = 200 * mib }},
		"disk too small":    {data: 200 * mib, set: func(p *Pair) { p.disk.free = 200 * mib }, want: []string{"state-disk-small"}},
		"no disk":           {set: func(p *Pair) { p.disk.free = mib }, want: []string{"state-disk-small"}},
		"bounded":           {data: 200 * mib, set: func(p *Pair) { p.cfg.SpoolMax, p.disk.free = 64*mib, 100*mib }},
		"bound beyond disk": {set: func(p *Pair) { p.cfg.SpoolMax, p.disk.free = 500*mib, 400*mib }, want: []string{"state-disk-small"}},
		"no state":          {data: 200 * mib, set: func(p *Pair) { p.disk.free, p.cfg.StateDir = 0, "" }},
		"not writable":      {set: func(p *Pair) { p.disk.err = fs.ErrPermission }, want: []string{"state-dir-unusable"}},

		"clocks":       {set: func(p *Pair) { p.target.servers[0].ahead = -900 * time.Millisecond }},
		"clock behind": {set: func(p *Pair) { p.target.servers[0].ahead = -1100 * time.Millisecond }, want: []string{"clock-skew"}},
		"clock, far away": {set: func(p *Pair) {
			p.source.servers[0].ahead, p.source.servers[0].unsure = 1100*time.Millisecond, 300*time.Millisecond
		}},
		"volatile, at all": {set: func(p *Pair) { p.target.servers[0].node.MaxMemoryPolicy = "volatile-ttl" }, want: []string{"eviction-policy"}},
		"keys of its own":  {set: func(p *Pair) { p.target.servers[0].node.Keyspace[0] = 3 }},
		"a key more":       {set: func(p *Pair) { p.target.servers[0].node.Keyspace[0] = 4 }, want: []string{"existing-keys"}},
		"each other's replicas": {set: func(p *Pair) {
			a, b := &p.source.servers[0].node, &p.target.servers[0].node
			a.Role, a.MasterPort, b.TCPPort = "slave", 6379, 6379
			b.Role, b.MasterPort, a.TCPPort = "slave", 6379, 6379
			p.source.servers[0].primary, p.target.servers[0].hosts = []string{"10.0.0.2"}, []string{"::1", "10.0.0.2"}
		}, want: []string{"replicate-each-other", "target-is-replica"}},
		"one primary out of reach": {set: func(p *Pair) {
			for _, s := range p.sides() {
				s.servers[0].node.Role, s.servers[0].node.MasterPort, s.servers[0].primary = "slave", 6379, []string{"10.0.0.9"}
			}
		}, want: []string{"replicate-each-other", "target-is-replica"}},
		"no ids": {set: func(p *Pair) {
			for _, s := range p.sides() {
				s.servers[0].node.RunID, s.servers[0].node.ReplID = "", "0000"
			}
		}},
		"an old one": {set: func(p *Pair) { p.target.servers[0].node.Version, p.target.servers[0].node.Major = "4.0.14", 4 }, want: []string{"target-too-old"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := pairOf(c.data, c.written)
			if c.set != nil {
				c.set(p)
			}
			var got []string
			for _, f := range p.Findings(State{Own: 3}) {
				if f.Severity != Info && !slices.Contains(got, f.ID) {
					got = append(got, f.ID)
				}
				if _, ok := kinds[f.ID]; !ok || f.Evidence == "" || f.Subject == "" || f.Remedy == "" && f.Severity != Info {
					t.Errorf("%+v is no whole finding", f)
				}
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("found %v, want %v", got, c.want)
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	for left, want := range map[time.Duration]string{-time.Hour: "certificate-expired", 13 * 24 * time.Hour: "certificate-expiring", 15 * 24 * time.Hour: ""} {
		s := &server{}
		s.expiry(&x509.Certificate{NotAfter: time.Now().Add(left)}, "a certificate", "")
		got := ""
		for _, f := range s.findings {
			got = f.ID
		}
		if got != want {
			t.Errorf("%v: %q, want %q", left, got, want)
		}
	}
	side := pairOf(0, 0).target
	for err, want := range map[error]string{
		x509.CertificateInvalidError{Reason: x509.Expired}: "certificate-expired", x509.UnknownAuthorityError{}: "certificate-untrusted",
		x509.HostnameError{Certificate: &x509.Certificate{}}: "certificate-untrusted", fs.ErrClosed: "unreachable",
	} {
		if f := side.reach("target:6379", fmt.Errorf("dial: %w", err)); f.ID != want || f.Severity != Fatal || f.Remedy == "" {
			t.Errorf("%v: %+v, want %s", err, f, want)
		}
	}
}

// TestWhoIsRefused: what refuses a new haul does not end one that goes on.
func TestWhoIsRefused(t *testing.T) {
	t.Parallel()
	for id, want := range map[string][2]bool{"same-server": {true, true}, "existing-keys": {true, false}, "unreachable": {false, false}} {
		f := Finding{ID: id, Severity: Fatal}
		if got := [2]bool{f.Refuses(false), f.Refuses(true)}; got != want {
			t.Errorf("%s refuses %v, want %v", id, got, want)
		}
		if f.Severity = Warn; f.Refuses(false) {
			t.Errorf("%s refuses as a warning", id)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 bytes", 64 << 10: "64 KiB", 100 * mib: "100 MiB", math.MaxInt64: "8589934591 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

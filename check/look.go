package check

import (
	"context"
	"fmt"
	"net"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/reader"
)

// Config is the haul that is to be.
type Config struct {
	Source, Target *topology.Dialer // nil for an end that is a file
	PreferReplica  bool
	Standalone     bool // the target is taken for one server
	Name           string
	DBs            haul.DBMap
	MustBeEmpty    bool // keys on the target refuse the haul
	Flush          bool // keys on the target are removed first
	ExactlyOnce    bool
	LeavesOut      bool // what the target lacks is left out
	WaitReplicas   int
	ReplyTimeout   time.Duration // of silence, behind which a connection is dialled again
	Pings          bool          // idle connections to the target are kept alive
	Connections    int           // to each primary of the target, about

	StateDir string // empty: memory only
	SpoolMax int64  // as it was set; 0 for what the disk allows

	Sample time.Duration // how long the source's rate of writes is measured
}

// Pair is what both ends said of themselves at one moment.
type Pair struct {
	cfg            Config
	source, target *side // nil for files
	disk           disk
	now            time.Time
}

// side is one end.
type side struct {
	name     string
	dialer   *topology.Dialer
	cluster  bool
	covered  int       // slots of the cluster that somebody serves
	servers  []*server // that are read from or written to
	findings []Finding // of the way there
}

// questionTimeout is how long one server has for an answer.
const questionTimeout = 10 * time.Second

// Look asks both ends, each of their primaries at once. What cannot be asked is among the findings. It fails only if ctx
// ends.
func Look(ctx context.Context, cfg Config) (*Pair, error) {
	p := &Pair{cfg: cfg, now: time.Now()}
	var g errgroup.Group
	if cfg.Source != nil {
		p.source = &side{name: "source", dialer: cfg.Source}
		g.Go(func() error { p.source.look(ctx, cfg); return nil })
	}
	if cfg.Target != nil {
		p.target = &side{name: "target", dialer: cfg.Target}
		g.Go(func() error { p.target.look(ctx, cfg); return nil })
	}
	_ = g.Wait()
	p.askTogether(ctx)
	p.disk = lookAtDisk(cfg.StateDir)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return p, nil
}

// look finds the servers of an end and asks them.
func (s *side) look(ctx context.Context, cfg Config) {
	addrs, err := s.dialer.Servers(ctx)
	if s.name == "source" && err == nil {
		addrs, err = reader.Find(ctx, s.dialer, cfg.PreferReplica, nil)
	}
	if err != nil {
		s.findings = append(s.findings, s.reach(s.dialer.Endpoint.String(), err))
		return
	}
	first := s.first(ctx, addrs)
	if first == nil {
		return
	}
	if first.node.Cluster && (s.name == "source" || !cfg.Standalone) {
		s.cluster = true
		s.discover(ctx, addrs)
	} else {
		s.servers = []*server{first}
	}
	var g errgroup.Group
	for _, server := range s.servers {
		g.Go(func() error {
			server.ask(ctx, s, cfg)
			return nil
		})
	}
	_ = g.Wait()
	s.ownCertificate()
}

// first connects to the first address that answers, of a target with several to the first that is a primary.
func (s *side) first(ctx context.Context, addrs []string) (replica *server) {
	var failures []Finding
	for _, addr := range addrs {
		one, failure := s.open(ctx, addr)
		switch {
		case failure != nil:
			failures = append(failures, *failure)
		case s.name == "target" && one.node.Role == "slave" && !one.node.Cluster && len(addrs) > 1:
			replica = one
		default:
			return one
		}
	}
	if replica == nil {
		s.findings = append(s.findings, failures...)
	}
	return replica
}

// open connects to a server and asks what it is.
func (s *side) open(ctx context.Context, addr string) (*server, *Finding) {
	one := &server{addr: addr, subject: s.name + " " + addr}
	fail := func(err error) (*server, *Finding) {
		f := s.reach(addr, err)
		return nil, &f
	}
	c, err := s.dialer.Open(ctx, addr)
	if err != nil {
		return fail(err)
	}
	defer c.Close() //nolint:errcheck // only asked
	one.certificate(c.Conn)
	began := time.Now()
	if err := one.inform(ctx, c); err != nil {
		return fail(err)
	}
	one.answered(began)
	return one, nil
}

// discover finds the primaries of a cluster.
func (s *side) discover(ctx context.Context, seeds []string) {
	topo, err := topology.Discover(ctx, s.dialer, seeds)
	if err != nil {
		s.findings = append(s.findings, s.reach(s.dialer.Endpoint.String(), err))
		return
	}
	s.covered = topo.Covered()
	s.servers = make([]*server, len(topo.Shards))
	failures := make([]*Finding, len(topo.Shards))
	var g errgroup.Group
	for i, shard := range topo.Shards {
		g.Go(func() error {
			s.servers[i], failures[i] = s.open(ctx, shard.Primary)
			if s.servers[i] != nil {
				s.servers[i].owns(shard.Slots)
			}
			return nil
		})
	}
	_ = g.Wait()
	reached := s.servers[:0]
	for i, one := range s.servers {
		if one != nil {
			reached = append(reached, one)
			continue
		}
		s.findings = append(s.findings, *failures[i])
	}
	s.servers = reached
}

// askTogether asks what depends on what both ends are.
func (p *Pair) askTogether(ctx context.Context) {
	var g errgroup.Group
	each := func(of *side, ask func(ctx context.Context, s *server) error) {
		if of == nil {
			return
		}
		for _, server := range of.servers {
			if server.node.Loading {
				continue
			}
			g.Go(func() error {
				if err := ask(ctx, server); err != nil {
					server.findings = append(server.findings, of.reach(server.addr, err))
				}
				return nil
			})
		}
	}
	each(p.source, p.trySource)
	each(p.target, p.tryTarget)
	_ = g.Wait()
}

// Unanswered names an end of which not every server has said what it is: as long as there is one, nobody knows whether the
// haul may begin.
func (p *Pair) Unanswered() (Finding, bool) {
	for _, side := range p.sides() {
		for _, f := range side.findings {
			if f.Severity == Fatal && kinds[f.ID].fatal == waits {
				return f, true
			}
		}
		for _, s := range side.servers {
			if s.node.Loading {
				return found("loading", Warn, s.subject, "none needed: keyhaul waits for it", "%s is loading its data", s.subject), true
			}
		}
	}
	return Finding{}, false
}

// find notes a finding about a server.
func (s *server) find(id string, severity Severity, remedy, format string, args ...any) {
	s.findings = append(s.findings, Finding{ID: id, Severity: severity, Subject: s.subject, Remedy: remedy, Evidence: fmt.Sprintf(format, args...)})
}

// nameTimeout is how long names are looked up: that of a primary may be known to its replica only.
const nameTimeout = time.Second

// addresses are those of a server's machine, and of its primary's if it has one: by them two servers are known to be one.
func (s *server) addresses(ctx context.Context, of *side) {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	look := func(host string) []string {
		addrs, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			return []string{host}
		}
		return addrs
	}
	if host, _, err := net.SplitHostPort(of.dialer.Resolve(s.addr)); err == nil {
		s.hosts = look(host)
	}
	if s.node.MasterHost != "" {
		s.primary = look(s.node.MasterHost)
	}
}

package redistest

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// SentinelName is the name that Sentinels know their primary by.
const SentinelName = "the-primary"

// Sentinels are three sentinels that watch one primary, and promote one of its replicas within a few seconds when it is
// gone.
type Sentinels struct {
	Nodes []*Server
}

// StartSentinels starts sentinels for primary, whose replicas are attached already, and waits until they know each other
// and all replicas. opts are those of the sentinels; Config does not apply, and TLS is that of the primary.
func StartSentinels(t TB, primary *Server, opts Options) *Sentinels {
	t.Helper()
	s := &Sentinels{}
	lines := []string{
		fmt.Sprintf("sentinel monitor %s 127.0.0.1 %d 2", SentinelName, primary.Port),
		fmt.Sprintf("sentinel down-after-milliseconds %s 1500", SentinelName),
		fmt.Sprintf("sentinel failover-timeout %s 3000", SentinelName),
	}
	if primary.opts.Password != "" {
		lines = append(lines, fmt.Sprintf("sentinel auth-pass %s %s", SentinelName, primary.opts.Password))
	}
	if opts.Password != "" && primary.Version.AtLeast(6, 2) {
		lines = append(lines, "sentinel sentinel-pass "+opts.Password)
	}
	if primary.TLS != nil { // they have one configuration for what they serve and what they watch
		lines = append(lines, "tls-replication yes")
	}
	opts.TLS = primary.TLS != nil
	opts.Args = append(opts.Args, "--sentinel")
	for range 3 {
		node := &Server{t: t, opts: opts, Dir: t.TempDir(), sentinel: lines, TLS: primary.TLS}
		node.start()
		s.Nodes = append(s.Nodes, node)
	}
	replicas := primary.Info("replication")["connected_slaves"]
	for _, node := range s.Nodes {
		Eventually(t, startTimeout, func() error {
			if r := node.Do("SENTINEL", "CKQUORUM", SentinelName); !strings.HasPrefix(r.Text, "OK 3 ") {
				return fmt.Errorf("sentinel %s: %s", node.Addr, r.Text)
			}
			if known := node.Info("sentinel")["master0"]; !strings.Contains(known, "slaves="+replicas+",") {
				return fmt.Errorf("sentinel %s: %s, want %s replicas", node.Addr, known, replicas)
			}
			return nil
		})
	}
	return s
}

// URL returns the address of the primary by its sentinels, redis+sentinel://host:port,…/name.
func (s *Sentinels) URL() string {
	var addrs []string
	for _, node := range s.Nodes {
		addrs = append(addrs, node.Addr)
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/" + SentinelName
}

// WaitPrimary waits until every sentinel names server as the primary.
func (s *Sentinels) WaitPrimary(server *Server) {
	server.t.Helper()
	for _, node := range s.Nodes {
		Eventually(server.t, time.Minute, func() error {
			named := node.MustDo("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SentinelName)
			if at := net.JoinHostPort(named.Array[0].Text, named.Array[1].Text); at != server.Addr {
				return fmt.Errorf("sentinel %s still names %s", node.Addr, at)
			}
			return nil
		})
	}
}

package writer

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/filter"
	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// clients returns the ids of the writer's connections.
func clients(s *rt.Server) string {
	var ids []string
	for line := range strings.Lines(s.MustDo("CLIENT", "LIST").Text) {
		if id, _, _ := strings.Cut(line, " "); strings.Contains(line, "name=keyhaul-test") {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// TestIdleLanesAreKept leaves lanes without an entry to targets that close idle clients.
func TestIdleLanesAreKept(t *testing.T) {
	t.Parallel()
	idle := 12 * time.Second
	if os.Getenv("KEYHAUL_TEST_LONG") != "" {
		idle = 30 * time.Second
	}
	type idler struct {
		name   string
		config map[string]string
		users  []string
		change func(*Config)
		closed bool // it is expected to be closed
	}
	for _, c := range []idler{
		{name: "timeout 2", config: map[string]string{"timeout": "2"}},
		{name: "timeout 1", config: map[string]string{"timeout": "1"}},
		{name: "keepalive off", config: map[string]string{"timeout": "2"}, change: func(c *Config) { c.Keepalive = false }, closed: true},
		{
			name: "fixed interval", config: map[string]string{"timeout": "2"}, users: []string{"writer on >secret ~* &* +@all -config"},
			change: func(c *Config) { c.PingInterval = 500 * time.Millisecond },
		},
		{name: "CONFIG forbidden", config: map[string]string{"timeout": "2"}, users: []string{"writer on >secret ~* &* +@all -config"}, closed: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dst := rt.Start(t, rt.Options{Config: c.config, Users: c.users})
			ep := topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{dst.Addr}}
			if c.users != nil {
				ep.Username, ep.Password = "writer", "secret"
			}
			r := newRigAt(t, ep, c.change)
			r.do("SET a 1")
			r.drained()
			before := clients(dst)
			if strings.Count(before, "id=") != 2 {
				t.Fatalf("clients: %s", before)
			}
			deadline := time.Now().Add(idle)
			for changed := false; time.Now().Before(deadline) && !changed; time.Sleep(50 * time.Millisecond) {
				changed = clients(dst) != before
			}
			s := r.w.Status()
			if (clients(dst) != before) != c.closed {
				t.Errorf("clients were %s, are %s; %+v", before, clients(dst), s)
			}
			if !c.closed && (s.Lanes[0].Pings == 0 || s.Lanes[0].Reconnects != 0) {
				t.Errorf("%+v", s)
			}
			r.do("INCR a") // whatever happened, it goes on, and nothing was doubled
			r.drained()
			want(t, dst, "GET a", "2")
		})
	}
}

// TestTimeoutIsRead: the lane learns the target's timeout when it connects and when it asks again.
func TestTimeoutIsRead(t *testing.T) {
	dst := rt.Start(t, rt.Options{Config: map[string]string{"timeout": "30"}})
	r := newRig(t, dst.Addr, nil)
	d := r.w.(*dispatcher)
	l := d.lanes[0]
	if got := l.keep.Interval(); got != 10*time.Second {
		t.Errorf("interval %v, want 10s", got)
	}
	for timeout, interval := range map[int]time.Duration{6: 2 * time.Second, 0: 30 * time.Second, 9: 3 * time.Second} {
		dst.MustDo("CONFIG", "SET", "timeout", timeout)
		l.AskTimeout() // the keeper does so once a minute
		rt.Eventually(t, limit, func() error {
			if got := l.keep.Interval(); got != interval {
				return fmt.Errorf("interval %v, want %v", got, interval)
			}
			return nil
		})
	}
}

// TestSentinelMessagesAreDropped: they are counted, and their position completes.
func TestSentinelMessagesAreDropped(t *testing.T) {
	dst := rt.Start(t, rt.Options{})
	r := newRig(t, dst.Addr, func(c *Config) { c.Filters = []haul.Filter{filter.NewHousekeeping()} })
	stop := wire(t, dst)
	r.do("PUBLISH __sentinel__:hello x", "CLUSTER SETSLOT 1 NODE x", "SET a 1", "TRIMSLOTS RANGES 1 0 5", "PUBLISH other x")
	r.do("PUBLISH __sentinel__:hello x")
	r.drained()
	if at := r.ch.Watermark.Stream().Offset; at != r.offset {
		t.Errorf("the watermark is at %d, want %d", at, r.offset)
	}
	r.counted("dropped_sentinel-hello", 2)
	r.counted("dropped_cluster-topology", 2)
	if got := strings.Join(stop(), ";"); got != "SET a 1;PUBLISH other x" {
		t.Errorf("sent %s", got)
	}
}

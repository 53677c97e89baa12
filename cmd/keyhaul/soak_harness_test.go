package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// The tests whose names begin with TestSoak break a haul while a load is running, and then compare every key. How often
// and how long is up to KEYHAUL_TEST_ROUNDS: few rounds with short faults by default, the long forms from 30 on.
// KEYHAUL_TEST_FENCES=off takes the fences out of all of them, so that they are expected to fail.

const (
	longRounds = 30
	grace      = time.Hour // that deadlines are held back while a haul runs
	patience   = time.Minute
)

// fencesOff lets commands be applied twice, and go on where the second time is an error.
var fencesOff = []string{"--delivery", "at-least-once", "--on-error", "skip", "--max-skipped", "1000000000"}

// rounds is how many faults a test needs that count.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("KEYHAUL_TEST_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return 3
}

// slowRounds is the same for faults that take many seconds each.
func slowRounds() int {
	if n := rounds(); n >= longRounds {
		return n
	}
	return 1
}

// lasting is how long a fault lasts, in a short run and in a long one.
func lasting(short, long time.Duration) time.Duration {
	if rounds() >= longRounds {
		return long
	}
	return short
}

// setup is what a trial begins with.
type setup struct {
	cluster bool              // the target is a cluster of three
	replica bool              // each primary of that cluster has a replica
	proxied bool              // keyhaul reaches both ends through proxies
	source  map[string]string // lines of the source's configuration
	target  map[string]string // and of each node of the target
	fill    float64           // scale of the data that the source holds before, see rt.FillMixed; 0.003 if 0
	rate    int               // of the load, units a second; 3000 if 0
	drift   time.Duration     // by which deadlines may differ in the end
	flags   []string          // of every keyhaul
}

// trial is one haul under load, and what is known of the faults that befell it.
type trial struct {
	t       *testing.T
	setup   setup
	source  *rt.Server
	nodes   []*rt.Server // of the target: first its primaries
	whole   *rt.Cluster  // if the target is one
	target  rt.Endpoint
	gate    *rt.Proxy   // to the source, if proxied
	gates   []*rt.Proxy // to the nodes of the target, if proxied
	to      string      // the address of the target
	args    []string    // of every keyhaul
	state   string      // directory of the next keyhaul
	keyhaul *process    // the one that works
	written rt.Endpoint // what the load writes to, if it is not the source alone

	stopLoad func() // waits until everything is written

	counted  int   // faults that count
	applied  int64 // the watermark when the last of them struck
	received int64 // when it was last looked at
}

// onEachTarget runs a test for both kinds of targets.
func onEachTarget(t *testing.T, run func(t *testing.T, cluster bool)) {
	t.Run("standalone", func(t *testing.T) { run(t, false) })
	t.Run("cluster", func(t *testing.T) { run(t, true) })
}

// newTrial starts the servers.
func newTrial(t *testing.T, with setup) *trial {
	t.Helper()
	config := map[string]string{"repl-backlog-size": "64mb"}
	for name, value := range with.source {
		config[name] = value
	}
	s := &trial{t: t, setup: with, source: rt.Start(t, rt.Options{Config: config}), state: t.TempDir(), stopLoad: func() {}}
	from := s.source.URL()
	if with.proxied {
		s.gate = rt.NewProxy(t, s.source.Addr)
		from = "redis://" + s.gate.Addr()
	}
	s.args = append([]string{"--source", from}, with.flags...)
	s.startTarget()
	s.args = append(s.args, "--target", s.to)
	if os.Getenv("KEYHAUL_TEST_FENCES") == "off" {
		s.args = append(s.args, fencesOff...)
	}
	if err := rt.FillMixed(context.Background(), s.source.Endpoint(), cmp.Or(with.fill, 0.003), rand.Uint64()); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *trial) startTarget() {
	s.t.Helper()
	options := rt.Options{Config: s.setup.target}
	if !s.setup.cluster {
		server := rt.Start(s.t, options)
		s.nodes, s.target = []*rt.Server{server}, server.Endpoint()
		s.to = server.URL()
		if s.setup.proxied {
			s.gates = []*rt.Proxy{rt.NewProxy(s.t, server.Addr)}
			s.to = "redis://" + s.gates[0].Addr()
		}
		return
	}
	form := rt.ClusterOptions{Options: options, Primaries: 3}
	if s.setup.replica {
		form.Replicas = 1
	}
	cluster := rt.StartCluster(s.t, form)
	s.whole, s.nodes, s.target = cluster, cluster.Nodes, cluster.Endpoint()
	s.to = cluster.Nodes[0].URL()
	if s.setup.proxied {
		var addresses []string
		s.gates, addresses = cluster.Proxies()
		for _, address := range addresses {
			s.args = append(s.args, "--target-address-map", address)
		}
		s.to = "redis://" + s.gates[0].Addr()
	}
}

// launch starts a keyhaul of this haul with a state directory.
func (s *trial) launch(state string, more ...string) *process {
	s.t.Helper()
	args := append([]string{"--state-dir", state}, s.args...)
	return start(s.t, append(args, more...)...)
}

// start starts the keyhaul that works.
func (s *trial) start(more ...string) {
	s.t.Helper()
	s.keyhaul = s.launch(s.state, more...)
}

// run does another command of keyhaul about this haul, to its end.
func (s *trial) run(command string, args ...string) *process {
	s.t.Helper()
	p := &process{t: s.t, ended: make(chan struct{})}
	p.run(nil, append([]string{command}, args...)...)
	select {
	case <-p.ended:
	case <-time.After(patience):
		s.t.Fatalf("keyhaul %s still runs", command)
	}
	return p
}

// databases is how many of them the load writes to.
func (s *trial) databases() int {
	if s.setup.cluster {
		return 1
	}
	return 3
}

// startLoad writes into the source until stopLoad.
func (s *trial) startLoad() { s.startLoadOf(rt.MixHard) }

func (s *trial) startLoadOf(mix rt.Mix) {
	s.t.Helper()
	to := s.written
	if len(to.Addrs) == 0 {
		to = s.source.Endpoint()
	}
	load := rt.Load{Endpoint: to, Mix: mix, Tagged: s.setup.cluster, Rate: cmp.Or(s.setup.rate, 3000), Keys: 1000, Databases: s.databases()}
	if mix == rt.MixCross { // few keys, so that most commands meet what others have moved
		load.Keys, load.Rate = 300, 2000
	}
	s.write(load)
}

// loadInto writes commands of all kinds to a server or cluster until stopLoad.
func (s *trial) loadInto(to rt.Endpoint, rate int) {
	s.t.Helper()
	s.write(rt.Load{Endpoint: to, Mix: rt.MixHard, Rate: rate, Keys: 1000})
}

func (s *trial) write(load rt.Load) {
	s.t.Helper()
	load.Seed = rand.Uint64()
	ctx, cancel := context.WithCancel(context.Background())
	var counts rt.LoadCounts
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { counts, err = load.Run(ctx) })
	s.stopLoad = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		if err != nil || counts.Errors > 0 || counts.Units == 0 {
			s.t.Errorf("load: %v, %+v", err, counts)
		}
		if len(counts.Refusals) > 0 {
			s.t.Logf("load: %d units, refused and tried again: %v", counts.Units, counts.Refusals)
		}
	})
	s.t.Cleanup(s.stopLoad)
}

// look returns the link's status, or an error while the process does not answer.
func (s *trial) look(p *process) (haul.LinkStatus, report, error) {
	s.t.Helper()
	select {
	case <-p.ended:
		s.t.Fatalf("keyhaul has ended with %d", p.cmd.ProcessState.ExitCode())
	default:
	}
	var r report
	client := http.Client{Timeout: 5 * time.Second} // the process may be frozen
	answer, err := client.Get(p.address() + "/api/v1/status")
	if err != nil {
		return haul.LinkStatus{}, r, err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&r); err != nil {
		return haul.LinkStatus{}, r, err
	}
	return r.Links[0], r, nil
}

// until waits for a status of a keyhaul.
func (s *trial) until(p *process, what string, check func(l haul.LinkStatus) bool) {
	s.t.Helper()
	rt.Eventually(s.t, patience, func() error {
		l, r, err := s.look(p)
		if err == nil && !check(l) {
			err = fmt.Errorf("%s: %+v", what, r)
		}
		return err
	})
}

// counts tells whether a fault counts that strikes now: the load keeps entries on their way, and the watermark has moved
// since the last fault that counted.
func (s *trial) counts() bool {
	s.t.Helper()
	l, r, err := s.look(s.keyhaul)
	if err != nil {
		return false
	}
	busy := l.LagBytes > 0 || l.Received > s.received || l.Received > l.Applied
	for _, lane := range r.Target.Lanes {
		busy = busy || lane.Entries > 0
	}
	s.received = l.Received
	if !busy || !l.SnapshotDone || l.Applied <= s.applied {
		return false
	}
	s.applied = l.Applied
	s.counted++
	return true
}

// strike waits until a fault counts, and does it.
func (s *trial) strike(fault func()) {
	s.t.Helper()
	rt.Eventually(s.t, patience, func() error {
		if !s.counts() {
			return fmt.Errorf("the watermark does not move from %d, received %d", s.applied, s.received)
		}
		return nil
	})
	fault()
}

func (s *trial) kill() {
	s.t.Helper()
	s.keyhaul.signal(syscall.SIGKILL)
	<-s.keyhaul.ended
}

// moving waits until a keyhaul has applied something since the last fault, and returns how long it took.
func (s *trial) moving(p *process) time.Duration {
	s.t.Helper()
	began := time.Now()
	s.until(p, "goes on", func(l haul.LinkStatus) bool { return l.Applied > s.applied })
	return time.Since(began)
}

// level stops the load and waits until keyhaul has applied all of it.
func (s *trial) level() {
	s.t.Helper()
	s.stopLoad()
	at := s.source.Offset()
	s.until(s.keyhaul, fmt.Sprintf("level with %d", at), func(l haul.LinkStatus) bool { return l.Applied >= at })
}

// compare compares every key while nothing is written.
func (s *trial) compare(options rt.CompareOptions) rt.Report {
	s.t.Helper()
	options.IgnoreReadCounts = true // a replica has others, too
	r, err := rt.Compare(context.Background(), s.source.Endpoint(), s.target, options)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// equal expects the target to hold what the source holds after a quiet moment, at the cost of so many full copies.
func (s *trial) equal(fullSyncs int64) {
	s.t.Helper()
	s.level()
	r := s.compare(rt.CompareOptions{Grace: grace, TTLTolerance: s.setup.drift})
	if !r.Equal() || r.Keys == 0 {
		s.t.Errorf("source and target differ after %d faults: %s", s.counted, r)
	}
	if got := s.source.FullSyncs(); got != fullSyncs {
		s.t.Errorf("%d full copies, want %d", got, fullSyncs)
	}
	s.t.Logf("%d faults counted, %d keys equal, %d full copies", s.counted, r.Keys-r.Different, s.source.FullSyncs())
}

// pause lets the haul run for a while between least and most: the time between faults is part of them.
func pause(least, most time.Duration) {
	time.Sleep(least + rand.N(most-least))
}

// eachNode does something to all nodes of the target.
func (s *trial) eachNode(do func(node *rt.Server)) {
	for _, node := range s.nodes {
		do(node)
	}
}

func (s *trial) anyNode() *rt.Server { return s.nodes[rand.IntN(len(s.nodes))] }

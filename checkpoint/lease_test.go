package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

const (
	testEvery   = 150 * time.Millisecond
	testSilence = 600 * time.Millisecond
)

func newLease(s *Store, worker string) *Lease {
	return NewLease(LeaseConfig{Store: s, Worker: worker, Every: testEvery, Silence: testSilence, Log: s.cfg.Log})
}

// keepUp runs the lease until stop is called, which returns what Run returned.
func keepUp(l *Lease) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return sync.OnceValue(func() error {
		cancel()
		return <-done
	})
}

// lane opens a connection of a worker, as those that carry its entries.
func lane(t *testing.T, server *redistest.Server, worker string) *conn {
	t.Helper()
	c := &conn{Conn: server.Dial(), addr: server.Addr}
	t.Cleanup(func() { c.Close() })
	_, err := c.do(testContext(t), "CLIENT", "SETNAME", "keyhaul:test:"+worker)
	must(t, err)
	return c
}

// waitReplicas waits until replicas are listed in CLUSTER SLOTS: nodes leave out those that they have no offset of.
func waitReplicas(t *testing.T, s *Store, n int) {
	t.Helper()
	for _, addr := range s.cfg.Dialer.Endpoint.Addrs {
		redistest.Eventually(t, limit, func() error {
			seen, err := topology.Discover(testContext(t), s.cfg.Dialer, []string{addr})
			must(t, err)
			listed := 0
			for _, shard := range seen.Shards {
				listed += len(shard.Replicas)
			}
			if listed < n {
				return fmt.Errorf("%s lists %d replicas", addr, listed)
			}
			return nil
		})
	}
}

func TestClaimText(t *testing.T) {
	for _, c := range []claim{{1, "w1", 1}, {7, "", 12}, {1 << 63, "0af3", 1 << 63}} {
		if got, err := parseClaim(c.String()); err != nil || got != c {
			t.Errorf("%q: %+v, %v", c, got, err)
		}
	}
	if text := (claim{3, "w1", 9}).String(); text != "1 3 w1 9" {
		t.Error(text)
	}
	for _, text := range []string{"", "1", "1 2 w", "1 x w 3", "1 2 w x", "0 1 w 1", "1 2 w 3 4"} {
		if c, err := parseClaim(text); err == nil || errors.Is(err, ErrNewer) {
			t.Errorf("%q: %+v, %v", text, c, err)
		}
	}
	if _, err := parseClaim("2 x"); !errors.Is(err, ErrNewer) {
		t.Error(err)
	}
}

func TestLeaseOfOneWorker(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	ctx, l := testContext(t), newLease(s, "w1")
	if l.Valid() || l.Text() != "" {
		t.Error("valid before it is acquired")
	}
	must(t, l.Acquire(ctx, false, nil))
	if !l.Valid() || !strings.HasPrefix(l.Text(), "1 1 w1 ") {
		t.Errorf("%q, valid %v", l.Text(), l.Valid())
	}
	must(t, l.Check(ctx, server.Addr))
	stop := keepUp(l)
	time.Sleep(2 * testSilence)
	must(t, l.Wait(ctx))
	server.MustDo("SET", s.Keys().Lease(), "1 1 w1 0") // a target that was rolled back
	time.Sleep(2 * testSilence)
	if !l.Valid() || !strings.HasPrefix(l.Text(), "1 1 w1 ") {
		t.Errorf("%q, valid %v", l.Text(), l.Valid())
	}
	if err := stop(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
	must(t, l.Acquire(ctx, false, nil)) // its own
	must(t, l.Release(ctx))
	if l.Valid() || !strings.HasPrefix(server.MustDo("GET", s.Keys().Lease()).Text, "1 1  ") {
		t.Errorf("%q, valid %v", server.MustDo("GET", s.Keys().Lease()).Text, l.Valid())
	}
	next := newLease(newStore(t, server.Endpoint(), false, "w2"), "w2")
	must(t, next.Acquire(ctx, false, nil))
	if !strings.HasPrefix(next.Text(), "1 2 w2 ") {
		t.Error(next.Text())
	}
	must(t, l.Release(ctx)) // is not its own any more
	must(t, next.Check(ctx, server.Addr))
}

func TestLeaseIsHeld(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	ctx, first := testContext(t), newLease(s, "w1")
	must(t, first.Acquire(ctx, false, nil))
	stop := keepUp(first)
	defer stop()
	second := newLease(newStore(t, server.Endpoint(), false, "w2"), "w2")
	err := second.Acquire(ctx, false, nil)
	if haul.ExitOf(err) != haul.ExitHeld || !strings.Contains(err.Error(), "w1") {
		t.Fatalf("%v", err)
	}
	var calls atomic.Int32
	waiting, cancel := context.WithTimeout(ctx, 3*testSilence)
	defer cancel()
	err = second.Acquire(waiting, true, func(string) { calls.Add(1) })
	if !errors.Is(err, context.DeadlineExceeded) || calls.Load() != 1 || !first.Valid() || second.Valid() {
		t.Errorf("%v, held was called %d times", err, calls.Load())
	}
	acquired := make(chan error, 1)
	go func() { acquired <- second.Acquire(ctx, true, nil) }()
	time.Sleep(testEvery)
	must(t, errors.Join(first.Release(ctx)))
	must(t, <-acquired)
	if first.Valid() || !second.Valid() {
		t.Error("both are valid, or none")
	}
	if err := first.Check(ctx, server.Addr); !errors.Is(err, ErrTaken) || haul.ExitOf(err) != haul.ExitHeld {
		t.Errorf("%v", err)
	}
}

// A holder whose process is stopped has connections, and its counter stands still.
func TestLeaseIsTakenFromASilentWorker(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	ctx, first := testContext(t), newLease(s, "w1")
	must(t, first.Acquire(ctx, false, nil))
	old := lane(t, server, "w1")
	second := newLease(newStore(t, server.Endpoint(), false, "w2"), "w2")
	began := time.Now()
	overlap := make(chan bool, 1)
	watching, stopWatching := context.WithCancel(ctx)
	go func() {
		both := false
		for watching.Err() == nil {
			// asked for in this order, since the second is valid for long
			if second.Valid() && first.Valid() {
				both = true
			}
			time.Sleep(time.Millisecond)
		}
		overlap <- both
	}()
	must(t, second.Acquire(ctx, false, nil))
	if took := time.Since(began); took < testSilence/2 {
		t.Errorf("taken after %v", took)
	}
	if _, err := old.do(ctx, "PING"); err == nil {
		t.Error("the old worker's connection is still open")
	}
	if err := first.Run(ctx); !errors.Is(err, ErrTaken) {
		t.Errorf("Run: %v", err)
	}
	if err := first.Wait(ctx); !errors.Is(err, ErrTaken) {
		t.Errorf("Wait: %v", err)
	}
	stopWatching()
	if <-overlap || first.Valid() || !second.Valid() {
		t.Error("both were valid, or none is")
	}
	// A guarded connection of the old worker cannot be opened any more.
	if err := s.Save(ctx, streaming); err != nil && !errors.Is(err, ErrTaken) {
		t.Errorf("Save: %v", err)
	}
	s.lease.Store(first)
	if err := s.Spread(ctx, at(1)); !errors.Is(err, ErrTaken) {
		t.Errorf("Spread: %v", err)
	}
}

func TestLeaseIsTakenAtOnceFromAWorkerWithoutConnections(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{Replicas: 1})
	ctx := testContext(t)
	waitReplicas(t, s, 3)
	first := NewLease(LeaseConfig{Store: s, Worker: "w1"})
	must(t, first.Acquire(ctx, false, nil))
	replica := lane(t, c.Nodes[5], "w1") // a worker's connection to a node that was a primary
	second := NewLease(LeaseConfig{Store: newStore(t, c.Endpoint(), true, "w2"), Worker: "w2", Every: time.Second, Silence: 5 * time.Second})
	first.hangUp()
	waiting, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := second.Acquire(waiting, true, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a connection to a replica was not seen: %v", err)
	}
	replica.Close()
	began := time.Now()
	must(t, second.Acquire(ctx, false, nil))
	if took := time.Since(began); took > 4*time.Second { // less than the silence
		t.Errorf("taken after %v", took)
	}
	if !strings.HasPrefix(second.Text(), "1 2 w2 ") {
		t.Error(second.Text())
	}
}

// Who dies between taking the lease and ending the connections of its predecessor leaves that to the next one.
func TestTakeoverEndsTheConnectionsOfAllEarlierWorkers(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{Replicas: 1})
	ctx := testContext(t)
	waitReplicas(t, s, 3)
	c.MustDo(s.Keys().Lease(), "SET", s.Keys().Lease(), "1 7 w8 3")
	lanes := map[string]*conn{}
	for _, node := range c.Nodes {
		lanes[node.Addr] = lane(t, node, "w7")
	}
	other := &conn{Conn: c.Nodes[0].Dial()}
	defer other.Close()
	_, err := other.do(ctx, "CLIENT", "SETNAME", "keyhaul:test:more:w1") // of the haul test:more
	must(t, err)
	own := lane(t, c.Nodes[0], "w1")
	l := newLease(s, "w1")
	must(t, l.Acquire(ctx, false, nil))
	for addr, old := range lanes {
		if _, err := old.do(ctx, "PING"); err == nil {
			t.Errorf("%s: a connection is still open", addr)
		}
	}
	for _, spared := range []*conn{own, other} {
		if _, err := spared.do(ctx, "PING"); err != nil {
			t.Error(err)
		}
	}
}

func TestLeaseOutlivesAFrozenTarget(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	ctx, l := testContext(t), newLease(s, "w1")
	must(t, l.Acquire(ctx, false, nil))
	stop := keepUp(l)
	defer stop()
	must(t, l.Wait(ctx))
	second := newLease(newStore(t, server.Endpoint(), false, "w2"), "w2")
	waiting, cancel := context.WithCancel(ctx)
	acquired := make(chan error, 1)
	go func() { acquired <- second.Acquire(waiting, true, nil) }()
	server.Freeze()
	time.Sleep(5 * testSilence)
	if l.Valid() {
		t.Error("valid although nothing was confirmed")
	}
	server.Thaw()
	began := time.Now()
	must(t, l.Wait(ctx))
	t.Logf("valid again after %v", time.Since(began))
	if !strings.HasPrefix(l.Text(), "1 1 w1 ") {
		t.Error(l.Text())
	}
	time.Sleep(2 * testSilence)
	cancel()
	if err := <-acquired; !errors.Is(err, context.Canceled) || !l.Valid() {
		t.Errorf("%v, valid %v", err, l.Valid())
	}
}

// replicated waits until a replica has all that was written to the node that has the lease. WAIT is about what its own
// connection has written.
func replicated(t *testing.T, node *redistest.Server) {
	t.Helper()
	c := node.Dial()
	defer c.Close() //nolint:errcheck // of a test
	_, err := c.Do(testContext(t), limit, "SET", "{haul}", "1")
	must(t, err)
	if r, err := c.Do(testContext(t), limit, "WAIT", "1", "10000"); err != nil || r.Int < 1 {
		t.Fatalf("no replica is level: %v, %v", r, err)
	}
}

// The node that was asked first, and that has the lease, hangs; its replica takes over.
func TestLeaseOutlivesAFailover(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{Replicas: 1})
	waitReplicas(t, s, 3)
	ctx := testContext(t)
	owner := c.NodeFor(int(haulSlot))
	s.cfg.Dialer.Endpoint.Addrs = append([]string{owner.Addr}, s.cfg.Dialer.Endpoint.Addrs...)
	l := NewLease(LeaseConfig{Store: s, Worker: "w1", Every: time.Second, Silence: 5 * time.Second})
	must(t, l.Acquire(ctx, false, nil))
	stop := keepUp(l)
	defer stop()
	replicated(t, owner)
	owner.Freeze()
	redistest.Eventually(t, limit, func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.lost != nil {
			t.Fatal(l.lost)
		}
		if c.NodeFor(int(haulSlot)) == owner || l.clock()-l.sent > time.Second {
			return errors.New("the lease is not renewed")
		}
		return nil
	})
	must(t, l.Check(ctx, ""))
	if !l.Valid() || !strings.HasPrefix(l.Text(), "1 1 w1 ") {
		t.Errorf("%q, valid %v", l.Text(), l.Valid())
	}
}

// Of several addresses the one of the primary is used.
func TestStandaloneWithSeveralAddresses(t *testing.T) {
	server, replica := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
	replica.ReplicaOf(server)
	ep := redistest.Addr("127.0.0.1:1", replica.Addr, server.Addr)
	s := newStore(t, ep, false, "w1")
	begun(t, s)
	if st := load(t, s); st.Lost != nil || st.Nodes[0].Addr != server.Addr {
		t.Errorf("%+v", st)
	}
	l := newLease(s, "w1")
	must(t, l.Acquire(testContext(t), false, nil))
	replicated(t, server)
	replica.MustDo("REPLICAOF", "NO", "ONE")
	server.MustDo("REPLICAOF", "127.0.0.1", replica.Port)
	must(t, s.Save(testContext(t), streaming))
	must(t, s.Mark(testContext(t), at(300)))
	must(t, l.Check(testContext(t), replica.Addr))
	if st := load(t, s); st.Lost != nil || st.Nodes[0].Addr != replica.Addr || st.Base.Offset != 300 {
		t.Errorf("%+v", st)
	}
}

func TestLeaseIsLostWithItsKey(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	ctx, l := testContext(t), newLease(s, "w1")
	must(t, l.Acquire(ctx, false, nil))
	server.MustDo("FLUSHALL")
	if err := l.Check(ctx, server.Addr); !errors.Is(err, ErrGone) {
		t.Errorf("Check: %v", err)
	}
	if err := l.Run(ctx); !errors.Is(err, ErrGone) || l.Valid() {
		t.Errorf("Run: %v", err)
	}
	must(t, l.Release(ctx))
	if server.MustDo("EXISTS", s.Keys().Lease()).Int != 0 {
		t.Error("Release has written a lease that was gone")
	}
}

// Without CLIENT LIST only the counter counts.
func TestLeaseWithoutPermissionToListClients(t *testing.T) {
	server := redistest.Start(t, redistest.Options{Users: []string{"alice on >secret ~* &* +@all -client|list -client|kill"}})
	ep := server.Endpoint()
	ep.Username, ep.Password = "alice", "secret"
	ctx := testContext(t)
	must(t, newLease(newStore(t, ep, false, "w1"), "w1").Acquire(ctx, false, nil))
	second := newLease(newStore(t, ep, false, "w2"), "w2")
	began := time.Now()
	must(t, second.Acquire(ctx, false, nil))
	if took := time.Since(began); took < testSilence {
		t.Errorf("taken after %v", took)
	}
	if _, err := second.store.Evict(ctx, server.Addr, func(int64, string) bool { return true }); code(err) != "NOPERM" {
		t.Errorf("%v", err)
	}
}

// Of workers that want the lease at once one gets it.
func TestLeaseIsTakenByOne(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	server.MustDo("SET", s.Keys().Lease(), "1 7  3")
	var won atomic.Int32
	var group sync.WaitGroup
	for _, worker := range []string{"w1", "w2", "w3", "w4", "w5"} {
		l := newLease(newStore(t, server.Endpoint(), false, worker), worker)
		ctx, stop := testContext(t), keepUp
		group.Go(func() {
			switch err := l.Acquire(ctx, false, nil); {
			case err == nil:
				won.Add(1)
				end := stop(l)
				time.Sleep(3 * testSilence)
				if err := end(); !errors.Is(err, context.Canceled) {
					t.Errorf("%s: %v", worker, err)
				}
			case haul.ExitOf(err) != haul.ExitHeld:
				t.Errorf("%s: %v", worker, err)
			}
		})
	}
	group.Wait()
	if won.Load() != 1 {
		t.Errorf("%d have it", won.Load())
	}
}

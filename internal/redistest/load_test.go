package redistest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"
)

func TestFillMixed(t *testing.T) {
	for _, s := range []*Server{Start(t, Options{}), Start(t, Options{Release: anyOther()})} {
		if err := FillMixed(t.Context(), s.Endpoint(), 0.002, 1); err != nil {
			t.Fatal(err)
		}
		report, err := Compare(t.Context(), s.Endpoint(), s.Endpoint(), CompareOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := "map[hash:500 list:250 set:250 stream:30 string:2000 zset:250]"
		if got := fmt.Sprint(report.ByType); got != want {
			t.Errorf("made %s, want %s", got, want)
		}
	}
}

// anyOther is an installed release beside the default one, or the default.
func anyOther() string {
	if all := Releases(); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

func TestSmallWrites(t *testing.T) {
	const n = 12_000
	s, raw := Start(t, Options{}), Start(t, Options{})
	c := StartCluster(t, ClusterOptions{Primaries: 2})
	for _, ep := range []Endpoint{s.Endpoint(), c.Endpoint()} {
		if err := SmallWrites(t.Context(), ep, n); err != nil {
			t.Fatal(err)
		}
	}
	conn := raw.Dial()
	defer func() { _ = conn.Close() }()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _, _ = io.Copy(conn, bytes.NewReader(SmallWriteBytes(n))) })
	for i := range n {
		if r, err := conn.ReadReply(); err != nil || r.Err() != nil {
			t.Fatalf("reply %d: %v %v", i, err, r.Err())
		}
	}
	report, err := Compare(t.Context(), s.Endpoint(), c.Endpoint(), CompareOptions{})
	if err != nil || !report.Equal() || report.Keys < n/2 {
		t.Fatalf("%v, %s", err, report)
	}
	mustEqual(t, s.Endpoint(), raw.Endpoint(), report.Keys)
}

// runLoad runs a load while during does something, and returns the counts.
func runLoad(t *testing.T, l Load, during func()) LoadCounts {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var counts LoadCounts
	var err error
	var wg sync.WaitGroup
	wg.Go(func() { counts, err = l.Run(ctx) })
	during()
	cancel()
	wg.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if counts.Errors > 0 {
		t.Errorf("%d errors, first: %s", counts.Errors, counts.FirstError)
	}
	return counts
}

func TestLoadIsReplicated(t *testing.T) {
	source, replica := Start(t, Options{}), Start(t, Options{})
	replica.ReplicaOf(source)
	counts := runLoad(t, Load{Endpoint: source.Endpoint(), Seed: 5, Keys: 100, Databases: 3}, func() {
		Eventually(t, time.Minute, func() error {
			if got := source.Info("stats")["total_commands_processed"]; len(got) < 5 {
				return fmt.Errorf("only %s commands", got)
			}
			return nil
		})
	})
	if counts.Units < 5000 || counts.Disconnects+counts.Redirected > 0 {
		t.Errorf("counts: %+v", counts)
	}
	Eventually(t, time.Minute, func() error {
		report, err := Compare(t.Context(), source.Endpoint(), replica.Endpoint(), CompareOptions{})
		if err == nil && (!report.Equal() || len(report.ByDB) != 3) {
			err = fmt.Errorf("%s", report)
		}
		return err
	})
}

func TestLoadRate(t *testing.T) {
	s := Start(t, Options{})
	began := time.Now()
	counts := runLoad(t, Load{Endpoint: s.Endpoint(), Rate: 500}, func() { time.Sleep(time.Second) })
	if most := int64(time.Since(began).Seconds()*500) + 1; counts.Units == 0 || counts.Units > most {
		t.Errorf("%d units, want at most %d", counts.Units, most)
	}
}

func TestLoadSurvives(t *testing.T) {
	c := StartCluster(t, ClusterOptions{Primaries: 2, Replicas: 1})
	counts := runLoad(t, Load{Endpoint: c.Endpoint(), Rate: 2000, Keys: 300}, func() {
		for slot := range 5 {
			slot = Slot(fmt.Sprintf("load:count:%d", slot))
			from := c.NodeFor(slot)
			to := c.Nodes[0]
			if to == from {
				to = c.Nodes[1]
			}
			c.MoveSlot(slot, from, to)
		}
		c.Failover(c.Nodes[2])
		c.Nodes[0].Restart()
		c.WaitOK()
	})
	if counts.Units == 0 || counts.Redirected == 0 {
		t.Errorf("counts: %+v", counts)
	}
	t.Logf("%+v", counts)
}

// TestHardLoad: a replica holds the same after the hard mix, so that what differs later is not the mix's own doing.
func TestHardLoad(t *testing.T) {
	source, replica := Start(t, Options{}), Start(t, Options{})
	replica.ReplicaOf(source)
	for _, l := range []Load{
		{Seed: 5, Keys: 100, Databases: 3},
		{Seed: 6, Keys: 20, Tagged: true},
	} {
		l.Endpoint, l.Mix = source.Endpoint(), MixHard
		start := source.Number("stats", "total_commands_processed")
		runLoad(t, l, func() {
			Eventually(t, time.Minute, func() error {
				if got := source.Number("stats", "total_commands_processed") - start; got < 20_000 {
					return fmt.Errorf("only %d commands", got)
				}
				return nil
			})
		})
	}
	at := source.Offset()
	Eventually(t, time.Minute, func() error {
		if got := replica.Number("replication", "slave_repl_offset"); got < at {
			return fmt.Errorf("the replica is at %d of %d", got, at)
		}
		return nil
	})
	report, err := Compare(t.Context(), source.Endpoint(), replica.Endpoint(), CompareOptions{IgnoreReadCounts: true})
	if err != nil || !report.Equal() || len(report.ByDB) != 3 || len(report.ByType) != 6 {
		t.Errorf("%v, %s", err, report)
	}
}

// TestHardLoadTagged: no command or transaction names keys of two slots, but for those that keyhaul splits by key.
func TestHardLoadTagged(t *testing.T) {
	c := StartCluster(t, ClusterOptions{Primaries: 2})
	runLoad(t, Load{Endpoint: c.Endpoint(), Mix: MixHard, Seed: 7, Keys: 200}, func() {
		Eventually(t, time.Minute, func() error {
			if got := c.Nodes[0].Number("stats", "total_commands_processed"); got < 10_000 {
				return fmt.Errorf("only %d commands", got)
			}
			return nil
		})
	})
}

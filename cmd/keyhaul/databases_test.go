package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// content is what a database holds, keyhaul's own keys left out: strings and lists.
func content(s *rt.Server, db int) map[string]string {
	s.MustDo("SELECT", db)
	defer s.MustDo("SELECT", 0)
	all := map[string]string{}
	for _, key := range s.MustDo("KEYS", "*").Array {
		if strings.HasPrefix(key.Text, "keyhaul:") {
			continue
		}
		if s.MustDo("TYPE", key.Text).Text == "list" {
			all[key.Text] = fmt.Sprint(s.MustDo("LRANGE", key.Text, 0, -1).Array)
		} else {
			all[key.Text] = s.MustDo("GET", key.Text).Text
		}
	}
	return all
}

// acrossDatabases writes n commands, each in one of four databases, of which many reach into another. Those that reach
// from database 3 to others, or swap it, are left out where it is not hauled.
func acrossDatabases(s *rt.Server, n int, three bool) {
	defer s.MustDo("SELECT", 0)
	key := func() string { return "k" + strconv.Itoa(rand.IntN(20)) }
	for range n {
		from, to := rand.IntN(4), rand.IntN(4)
		s.MustDo("SELECT", from)
		switch rand.IntN(12) {
		case 0, 1, 2:
			s.Do("INCR", key())
		case 3, 4:
			s.MustDo("RPUSH", "l"+key(), rand.IntN(100))
		case 5, 6:
			if from != to && (three || from != 3) {
				s.MustDo("MOVE", key(), to)
			}
		case 7, 8:
			if from != to && (three || from != 3) {
				s.MustDo("COPY", key(), key(), "DB", to, "REPLACE")
			}
		case 9:
			if three || from != 3 && to != 3 {
				s.MustDo("SWAPDB", from, to)
			}
		case 10:
			s.MustDo("MULTI")
			s.MustDo("INCR", key())
			s.MustDo("SELECT", to)
			s.MustDo("RPUSH", "l"+key(), "tx")
			s.MustDo("EXEC")
		default:
			if rand.IntN(5) == 0 {
				s.MustDo("FLUSHDB")
			}
		}
	}
}

// TestDatabaseMap: databases go where --db-map says, with all that reaches from one into another, over a kill -9.
func TestDatabaseMap(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"", "0=1,1=0,2=5", "0=2,2=7,3=drop", "0=3,3=0"} {
		t.Run("map "+flag, func(t *testing.T) {
			t.Parallel()
			to, three := haul.DBMap{}, !strings.Contains(flag, "drop")
			source, target := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
			args := []string{"--state-dir", t.TempDir(), "--source", source.URL(), "--target", target.URL()}
			if flag != "" {
				args = append(args, "--db-map", flag)
				for pair := range strings.SplitSeq(flag, ",") {
					from, db, err := databasePair(pair)
					if err != nil {
						t.Fatal(err)
					}
					to[from] = db
				}
			}
			acrossDatabases(source, 500, three)
			for round := range 3 {
				p := start(t, args...)
				acrossDatabases(source, 500, three)
				if round < 2 {
					pause(0, 300*time.Millisecond)
					p.signal(syscall.SIGKILL)
					<-p.ended
					continue
				}
				at := source.Offset()
				p.eventually("level", func(r report) bool { return r.Links[0].SnapshotDone && r.Links[0].Applied >= at })
			}
			for db := range 4 {
				want := content(source, db)
				if to.Of(int32(db)) == haul.DropDB {
					continue
				}
				if got := content(target, int(to.Of(int32(db)))); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Errorf("database %d: %v, want %v", db, got, want)
				}
			}
		})
	}
}

// TestDatabaseMapCluster: one database of the source goes to a cluster, which has only one, with commands whose keys span
// its slots, and over a kill -9.
func TestDatabaseMapCluster(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{cluster: true, flags: []string{"--db-map", "0=drop,1=0"}})
	s.source.MustDo("FLUSHALL")
	stop := s.writeAcross(2)
	s.start()
	for range 2 {
		s.strike(s.kill)
		s.start()
	}
	stop()
	at := s.source.Offset()
	s.until(s.keyhaul, "level", func(l haul.LinkStatus) bool { return l.Applied >= at })
	rt.Eventually(t, patience, func() error { return s.differs(1, 0) }) // keys expire on the source
}

// writeAcross writes commands whose keys span slots into databases of the source, some of which the source refuses,
// until stop returns.
func (s *trial) writeAcross(databases int) (stop func()) {
	load := rt.Load{Endpoint: s.source.Endpoint(), Mix: rt.MixCross, Rate: 2000, Seed: rand.Uint64(), Keys: 100, Databases: databases}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = load.Run(ctx) })
	stop = func() {
		cancel()
		wg.Wait()
	}
	s.t.Cleanup(stop)
	return stop
}

// differs compares the strings of a database of the source, and which keys it has, with a database of the target.
func (s *trial) differs(db, to int) error {
	s.source.MustDo("SELECT", db)
	defer s.source.MustDo("SELECT", 0)
	have := map[string]bool{}
	for _, node := range s.nodes {
		if to > 0 {
			node.MustDo("SELECT", to)
			defer node.MustDo("SELECT", 0)
		}
		for _, key := range node.MustDo("KEYS", "load:*").Array {
			have[key.Text] = true
			if node.MustDo("TYPE", key.Text).Text != "string" {
				continue
			}
			if got, want := node.MustDo("GET", key.Text), s.source.Do("GET", key.Text); got.Text != want.Text || got.Null != want.Null {
				return fmt.Errorf("%s: %q, want %q", key.Text, got.Text, want.Text)
			}
		}
	}
	for _, key := range s.source.MustDo("KEYS", "load:*").Array {
		if !have[key.Text] {
			return fmt.Errorf("%s is missing", key.Text)
		}
		delete(have, key.Text)
	}
	if len(have) > 0 {
		return fmt.Errorf("the target has more: %v", have)
	}
	return nil
}

// TestClusterDatabases: a cluster that has several databases, with keys that span slots and databases.
func TestClusterDatabases(t *testing.T) {
	t.Parallel()
	const release = "valkey-9.1"
	if os.Getenv("KEYHAUL_TEST_SERVER") != release {
		t.Skip("only " + release + " has clusters with several databases")
	}
	s := newTrial(t, setup{cluster: true, target: map[string]string{"cluster-databases": "3"}})
	s.source.MustDo("FLUSHALL")
	stop := s.writeAcross(3)
	s.start()
	for i := range 3 {
		s.strike(func() {
			s.source.MustDo("SELECT", i)
			for range 300 {
				s.source.MustDo("MOVE", "load:count:"+strconv.Itoa(rand.IntN(100)), (i+1)%3)
				s.source.MustDo("COPY", "load:count:"+strconv.Itoa(rand.IntN(100)), "load:count:"+strconv.Itoa(rand.IntN(100)), "DB", (i+1)%3, "REPLACE")
			}
			s.source.MustDo("FLUSHDB")
			s.source.MustDo("SELECT", 0)
			s.kill()
		})
		s.start()
	}
	stop()
	at := s.source.Offset()
	s.until(s.keyhaul, "level", func(l haul.LinkStatus) bool { return l.Applied >= at })
	for db := range 3 {
		rt.Eventually(t, patience, func() error { return s.differs(db, db) })
	}
	s.hasReread()
}

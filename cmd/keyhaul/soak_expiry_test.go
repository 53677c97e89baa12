package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

const sessionCount = 100

// sessions are keys of a source that live for 1 second to a few from their last visit, and are visited all the time.
type sessions struct {
	t      *testing.T
	source *rt.Server
	ttls   int // the longest, in seconds
	stop   func()
}

func (s *sessions) key(i int) string { return "visit:" + strconv.Itoa(i) }

// visitSessions opens sessions and renews them until stop.
func visitSessions(t *testing.T, source *rt.Server, ttls int) *sessions {
	t.Helper()
	s := &sessions{t: t, source: source, ttls: ttls}
	conn := source.Dial()
	visit := func(first bool) {
		var visits []byte // in one piece: sessions of a second are not to wait for a hundred round trips
		replies := sessionCount
		for i := range sessionCount {
			if first {
				visits = resp.AppendCommand(visits, "HSET", s.key(i), "opened", time.Now().String())
				replies++
			}
			visits = resp.AppendCommand(visits, "EXPIRE", s.key(i), strconv.Itoa(1+i%ttls))
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write(visits); err != nil {
			t.Errorf("visiting sessions: %v", err)
			return
		}
		for range replies {
			if reply, err := conn.ReadReply(); err != nil || reply.Err() != nil {
				t.Errorf("visiting sessions: %v %v", err, reply.Err())
				return
			}
		}
	}
	visit(true)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer conn.Close()
		for ctx.Err() == nil {
			visit(false)
			select {
			case <-ctx.Done():
			case <-time.After(200 * time.Millisecond):
			}
		}
	})
	s.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(s.stop)
	return s
}

// rest ends the visits; the sessions stay for so many seconds from now. On a busy machine those of a second or two may have died.
func (s *sessions) rest(seconds int) {
	s.t.Helper()
	s.stop()
	alive := 0
	for i := range sessionCount {
		alive += int(s.source.MustDo("EXPIRE", s.key(i), seconds).Int)
	}
	if alive < sessionCount/2 {
		s.t.Fatalf("only %d of %d sessions are left on the source: it was too slow for this test", alive, sessionCount)
	}
}

// TestSoakSessions: sessions that are renewed on the source in time do not die on the target, whatever keeps the renewals
// from getting there; and they do die once they are not renewed.
func TestSoakSessions(t *testing.T) {
	t.Parallel()
	ttls := int(lasting(4*time.Second, 20*time.Second).Seconds())
	beyond := time.Duration(ttls+1) * time.Second
	kinds := map[string]func(s *trial){
		"keyhaul is down": func(s *trial) {
			s.strike(s.kill)
			time.Sleep(beyond)
			s.start()
		},
		"the target is frozen": func(s *trial) {
			s.strike(func() { s.eachNode((*rt.Server).Freeze) })
			time.Sleep(beyond)
			s.eachNode((*rt.Server).Thaw)
		},
	}
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, hinder := range kinds {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster})
				for range slowRounds() {
					visits := visitSessions(t, s.source, ttls)
					s.startLoad()
					if s.keyhaul == nil {
						s.start()
					}
					s.moving(s.keyhaul)
					hinder(s)
					visits.rest(600)
					s.equal(1)
					visits.end(s)
				}
			})
		}
		t.Run("the snapshot loads", func(t *testing.T) {
			t.Parallel()
			s := newTrial(t, setup{cluster: cluster, proxied: true, fill: 0.02})
			visits := visitSessions(t, s.source, ttls)
			s.startLoad()
			s.gate.Limit(int(s.snapshotBytes()) / (ttls + 2))
			began := time.Now()
			s.start()
			s.until(s.keyhaul, "streaming", func(l haul.LinkStatus) bool { return l.SnapshotDone })
			if took := time.Since(began); took < beyond {
				t.Errorf("the snapshot took only %v", took)
			}
			s.gate.Limit(0)
			visits.rest(600)
			s.equal(1)
			visits.end(s)
		})
	})
}

// snapshotBytes is about the size of a snapshot of the source.
func (s *trial) snapshotBytes() int64 {
	s.t.Helper()
	dump := rt.Start(s.t, rt.Options{Config: map[string]string{"repl-diskless-load": "disabled"}})
	before := s.source.Number("stats", "total_net_repl_output_bytes")
	dump.ReplicaOf(s.source)
	bytes := s.source.Number("stats", "total_net_repl_output_bytes") - before
	dump.Stop()
	s.source.MustDo("CONFIG", "RESETSTAT")
	return bytes
}

// end lets the sessions expire, and expects both sides to be without them.
func (s *sessions) end(trial *trial) {
	s.t.Helper()
	s.rest(1)
	rt.Eventually(s.t, patience, func() error {
		for i := range sessionCount {
			if s.source.MustDo("EXISTS", s.key(i)).Int != 0 {
				return fmt.Errorf("session %d is still there", i)
			}
		}
		return nil
	})
	if r := trial.compare(rt.CompareOptions{Grace: grace}); !r.Equal() {
		s.t.Errorf("when sessions had expired: %s", r)
	}
}

// TestSoakFinish: finish leaves the source's own deadlines, cleanup nothing but the tombstone, after which the haul does
// not begin again.
func TestSoakFinish(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster})
		s.startLoad()
		s.start()
		for range rounds() {
			pause(200*time.Millisecond, 500*time.Millisecond)
			s.strike(s.kill)
			s.start()
		}
		s.equal(1)
		if p := s.run("cleanup", "--target", s.to); p.cmd.ProcessState.ExitCode() == int(haul.ExitDone) {
			t.Error("cleanup did not refuse while the haul is held")
		}
		s.keyhaul.signal(syscall.SIGTERM)
		s.keyhaul.exit(haul.ExitDone)
		finish := append([]string{"--state-dir", s.state}, s.args...)
		s.run("finish", finish...).exit(haul.ExitDone)
		if r := s.compare(rt.CompareOptions{}); !r.Equal() {
			t.Errorf("after finish: %s", r)
		}
		s.run("cleanup", "--target", s.to).exit(haul.ExitDone)
		if own := s.ownKeys(); len(own) != 1 || !strings.HasSuffix(own[0], "tombstone") {
			t.Errorf("after cleanup the target holds %d keys of keyhaul's own: %.200q", len(own), own)
		}
		s.launch(t.TempDir()).exit(haul.ExitRefused)
	})
}

// ownKeys are keyhaul's own keys on the target.
func (s *trial) ownKeys() (all []string) {
	s.t.Helper()
	s.eachNode(func(node *rt.Server) {
		for _, key := range node.MustDo("KEYS", "keyhaul:*").Array {
			all = append(all, key.Text)
		}
	})
	return all
}

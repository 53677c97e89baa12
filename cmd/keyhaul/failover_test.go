package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// family is a haul from a primary that has a replica, or from what was promoted in its place.
type family struct {
	*trial
	replica   *rt.Server    // of s.source
	sentinels *rt.Sentinels // nil: keyhaul knows both addresses
}

// newFamily starts the servers. The load writes to whichever is the primary.
func newFamily(t *testing.T, with setup, sentinels bool) *family {
	t.Helper()
	options := rt.Options{Config: map[string]string{"repl-backlog-size": "64mb", "repl-timeout": "5"}}
	f := &family{
		trial:   &trial{t: t, setup: with, source: rt.Start(t, options), state: t.TempDir(), stopLoad: func() {}},
		replica: rt.Start(t, options),
	}
	f.replica.ReplicaOf(f.source)
	from := "redis://" + f.source.Addr + "," + f.replica.Addr
	if sentinels {
		f.sentinels = rt.StartSentinels(t, f.source, rt.Options{})
		from = f.sentinels.URL()
	}
	f.args = append([]string{"--source", from}, with.flags...)
	f.startTarget()
	f.args = append(f.args, "--target", f.to)
	f.written = rt.Addr(f.source.Addr, f.replica.Addr)
	if err := rt.FillMixed(context.Background(), f.source.Endpoint(), cmp.Or(with.fill, 0.003), rand.Uint64()); err != nil {
		t.Fatal(err)
	}
	return f
}

// swapped notes that the replica is the primary now.
func (f *family) swapped() {
	f.t.Helper()
	f.source, f.replica = f.replica, f.source
	f.await(f.source, func(n topology.Node) bool { return n.Role == "master" })
}

// await waits until a server says of itself what is wanted. Each look has its own connection: sentinels end those of the
// servers that they promote or demote.
func (f *family) await(server *rt.Server, is func(topology.Node) bool) {
	f.t.Helper()
	d := topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{server.Addr}})
	rt.Eventually(f.t, patience, func() error {
		n, err := inspectAt(f.t.Context(), d, server.Addr)
		if err == nil && !is(n) {
			err = fmt.Errorf("%s: %+v", server.Addr, n)
		}
		return err
	})
}

// inStep waits until the replica has what the primary has now.
func (f *family) inStep() {
	f.t.Helper()
	at := f.source.Offset()
	f.await(f.replica, func(n topology.Node) bool { return n.MasterReplOffset >= at })
}

// handOver makes the primary and its replica change places, with nothing lost. Sentinels find it out after some 20 s; until
// then they name the one that was demoted.
func (f *family) handOver() {
	f.t.Helper()
	f.inStep()
	f.source.MustDo("FAILOVER", "TO", "127.0.0.1", f.replica.Port)
	f.swapped()
	if f.sentinels != nil {
		f.sentinels.WaitPrimary(f.source)
	}
	f.await(f.replica, func(n topology.Node) bool { return n.Role == "slave" && n.MasterLinkUp })
}

// kill9 kills the primary; its replica is promoted, by the sentinels if there are any.
func (f *family) kill9() {
	f.t.Helper()
	f.inStep()
	f.source.Kill()
	if f.sentinels != nil {
		f.sentinels.WaitPrimary(f.replica)
	} else {
		// until then it has not read all that the primary has sent
		f.await(f.replica, func(n topology.Node) bool { return !n.MasterLinkUp })
		f.replica.MustDo("REPLICAOF", "NO", "ONE")
	}
	f.swapped()
}

// comeBack starts the killed server again, as the replica of the one that was promoted.
func (f *family) comeBack() {
	f.t.Helper()
	f.replica.RestartAsReplica(f.source)
	f.replica.WaitReplica()
}

// goesOn does a fault, waits until keyhaul has applied what was written to the source behind it, and returns how long that
// took.
func (s *trial) goesOn(fault func()) time.Duration {
	s.t.Helper()
	took, lost := s.survives(fault)
	if lost {
		s.t.Fatal("keyhaul has ended")
	}
	return took
}

var behindOffset = regexp.MustCompile(`cannot continue behind offset (\d+)`)

// survives does a fault and returns how long it took, from its beginning, until keyhaul has applied what was written
// behind the promotion; or lost, if keyhaul has ended because it had read more than the promoted server has.
// For that reason the offset alone does not say that it goes on.
func (s *trial) survives(fault func()) (took time.Duration, lost bool) {
	s.t.Helper()
	began := time.Now()
	fault()
	s.source.MustDo("INCR", "since the fault")
	at, id := s.source.Offset(), s.source.Info("replication")["master_replid"]
	rt.Eventually(s.t, patience, func() error {
		select {
		case <-s.keyhaul.ended:
			lost = true
			return nil
		default:
		}
		l, _, err := s.look(s.keyhaul)
		if err == nil && (l.ReplID != id || l.Applied < at) {
			err = fmt.Errorf("applied %s up to %d, want %s up to %d", l.ReplID, l.Applied, id, at)
		}
		return err
	})
	if lost {
		s.keyhaul.exit(haul.ExitHistoryLost)
		has := s.source.Number("replication", "second_repl_offset") - 1
		said := behindOffset.FindStringSubmatch(s.keyhaul.stderr())
		if said == nil {
			s.t.Fatal("no word of the offset")
		}
		if read, _ := strconv.ParseInt(said[1], 10, 64); read <= has { // digits, by the expression
			s.t.Errorf("the history was given up, though %d was read and the promoted server has up to %d", read, has)
		}
	}
	return time.Since(began), lost
}

// followed expects keyhaul to have followed without another full copy.
func (f *family) followed() {
	f.t.Helper()
	f.level()
	if r := f.compare(rt.CompareOptions{Grace: grace}); !r.Equal() || r.Keys == 0 {
		f.t.Errorf("source and target differ: %s", r)
	}
	if l, _, err := f.look(f.keyhaul); err != nil || l.FullSyncs != 1 {
		f.t.Errorf("%d full copies, want 1 (%v)", l.FullSyncs, err)
	}
}

// TestSourceMoves: a source that is failed over, twice, is followed at its new address without another full copy.
func TestSourceMoves(t *testing.T) {
	t.Parallel()
	for by, sentinels := range map[string]bool{"addresses": false, "sentinels": true} {
		t.Run("by "+by+", killed", func(t *testing.T) {
			t.Parallel()
			f := newFamily(t, setup{}, sentinels)
			f.startLoad()
			f.start()
			f.streams()
			for range 2 {
				took, lost := f.survives(f.kill9)
				if lost {
					t.Log("keyhaul was ahead of the promoted server")
					return
				}
				t.Logf("entries flow again after %v", took)
				f.comeBack()
			}
			f.followed()
		})
	}
	t.Run("by addresses, handed over", func(t *testing.T) {
		t.Parallel()
		f := newFamily(t, setup{}, false)
		if !f.source.Version.AtLeast(6, 2) {
			t.Skip("it has no FAILOVER")
		}
		f.startLoad()
		f.start()
		f.streams()
		for range 2 {
			t.Logf("entries flow again after %v", f.goesOn(f.handOver))
		}
		f.followed()
	})
}

// TestOldPrimaryIsLeft: a primary that comes back with its own history is not followed, whether the one that was promoted
// answers or not.
func TestOldPrimaryIsLeft(t *testing.T) {
	t.Parallel()
	f := newFamily(t, setup{}, false)
	f.start()
	f.streams()
	f.inStep()
	old := f.source
	f.source.Freeze() // so that it comes back as what it was
	f.replica.MustDo("REPLICAOF", "NO", "ONE")
	f.swapped()
	f.kill()
	f.goesOn(func() { f.start() })
	old.Thaw()
	old.MustDo("SET", "written to the old primary", "1")
	f.source.Freeze()
	f.kill()
	f.start("--reply-timeout", "2s")
	f.until(f.keyhaul, "waits", func(l haul.LinkStatus) bool { return !l.Connected })
	rt.Eventually(t, patience, func() error {
		if !strings.Contains(f.keyhaul.stderr(), "no primary is found that goes on") {
			return fmt.Errorf("no word of the old primary")
		}
		return nil
	})
	f.goesOn(f.source.Thaw)
	f.level()
	if n := f.nodes[0].MustDo("EXISTS", "written to the old primary").Int; n != 0 {
		t.Error("the old primary was followed")
	}
}

// TestTargetMoves: the primary of the target is killed, its sentinels promote another one, and keyhaul goes on there.
func TestTargetMoves(t *testing.T) {
	t.Parallel()
	for by, sentinels := range map[string]bool{"addresses": false, "sentinels": true} {
		t.Run("by "+by, func(t *testing.T) {
			t.Parallel()
			s := newTrial(t, setup{})
			target := &family{trial: &trial{t: t, source: s.nodes[0]}, replica: rt.Start(t, rt.Options{})}
			target.replica.ReplicaOf(target.source)
			s.to = "redis://" + target.replica.Addr + "," + target.source.Addr
			if sentinels {
				target.sentinels = rt.StartSentinels(t, target.source, rt.Options{})
				s.to = target.sentinels.URL()
			}
			s.args[len(s.args)-1] = s.to
			s.startLoad()
			s.start()
			s.streams()
			for range 2 {
				t.Logf("entries flow again after %v", s.goesOn(func() { s.strike(target.kill9) }))
				target.comeBack()
			}
			s.nodes, s.target = []*rt.Server{target.source}, target.source.Endpoint()
			s.equal(1)
		})
	}
}

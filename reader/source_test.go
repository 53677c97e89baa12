package reader

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// each runs a test for every installed release.
func each(t *testing.T, test func(t *testing.T, release string)) {
	for _, release := range redistest.Releases() {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			test(t, release)
		})
	}
}

// TestLogin: every way to reach a source and to log in.
func TestLogin(t *testing.T) {
	each(t, func(t *testing.T, release string) {
		const secret = "p@ss:w/rd"
		escaped := "p%40ss%3Aw%2Frd"
		acl := redistest.Start(t, redistest.Options{
			Release: release, Password: secret, Unix: true,
			Users: []string{"repl on >" + secret + " +psync +replconf +ping +info +auth +hello"},
		})
		mutual := redistest.Start(t, redistest.Options{Release: release, MutualTLS: true})
		verified := redistest.Start(t, redistest.Options{Release: release, TLS: true, Password: secret})
		trust := func(f *redistest.TLSFiles) func(*topology.Dialer) {
			return func(d *topology.Dialer) { d.Endpoint.TLS = topology.TLSOptions{CAFile: f.CA} }
		}
		for name, c := range map[string]struct {
			source *redistest.Server
			url    string
			dialer func(*topology.Dialer)
		}{
			"password": {acl, "redis://:" + escaped + "@" + acl.Addr, nil},
			"acl user": {acl, "redis://repl:" + escaped + "@" + acl.Addr, nil},
			"socket":   {acl, "unix://:" + escaped + "@" + acl.Socket, nil},
			"tls":      {verified, "rediss://:" + escaped + "@" + verified.Addr, trust(verified.TLS)},
			"mutual tls": {mutual, "rediss://" + mutual.Addr, func(d *topology.Dialer) {
				d.Endpoint.TLS = topology.TLSOptions{CAFile: mutual.TLS.CA, CertFile: mutual.TLS.ClientCert, KeyFile: mutual.TLS.ClientKey}
			}},
		} {
			c.source.MustDo("SET", "k", "v")
			r := run(t, plan{url: c.url, dialer: c.dialer})
			r.streaming()
			c.source.MustDo("INCR", "n")
			r.level(c.source)
			if keys, commands := r.sink.all(true), r.sink.commands(); len(keys) == 0 || !slices.Contains(commands, "0:INCR n") {
				t.Errorf("%s: %v, %v", name, keys, commands)
			}
			r.stop()
			if strings.Contains(r.log.String(), secret) {
				t.Errorf("%s: the log holds the password:\n%s", name, r.log)
			}
		}
		// what must not work waits, and says why, without the secret
		for name, c := range map[string]struct {
			url, cause string
		}{
			"wrong password": {"redis://:other-" + escaped + "@" + acl.Addr, "WRONGPASS"},
			"no password":    {"redis://" + acl.Addr, "NOAUTH"},
			"unknown ca":     {"rediss://:" + escaped + "@" + verified.Addr, "certificate"},
			"no certificate": {"rediss://" + mutual.Addr, ""},
		} {
			if name == "wrong password" && acl.Version.Family == "redis" && acl.Version.Major < 6 {
				continue
			}
			r := run(t, plan{url: c.url})
			r.waiting(c.cause)
			r.stop()
			if text := fmt.Sprint(r.err, r.log, r.waits.List()); strings.Contains(text, secret) {
				t.Errorf("%s: the password shows: %s", name, text)
			}
		}
	})
}

// TestFraming: disk and socket, with and without newlines that come apart.
func TestFraming(t *testing.T) {
	each(t, func(t *testing.T, release string) {
		for _, diskless := range []string{"yes", "no"} {
			for _, delay := range []int{0, 1} {
				if diskless == "no" && delay > 0 {
					continue // it is about diskless ones
				}
				source := redistest.Start(t, redistest.Options{Release: release, Config: map[string]string{
					"repl-diskless-sync": diskless, "repl-diskless-sync-delay": strconv.Itoa(delay),
				}})
				target := redistest.Start(t, redistest.Options{Release: release})
				fill(t, source, 3000)
				r := run(t, plan{url: source.URL(), sink: &sink{copy: newCopier(target).copy}})
				r.streaming()
				fill(t, source, 3000)
				r.level(source)
				equal(t, source, target)
				total := r.reader.Status().SnapshotTotal
				if (total > 0) != (diskless == "no") {
					t.Errorf("diskless %s: the snapshot has %d bytes", diskless, total)
				}
				r.stop()
				source.Stop()
				target.Stop()
			}
		}
	})
}

// TestReplicaAsSource: a replica sends no SELECT at the beginning; the snapshot says what is selected.
func TestReplicaAsSource(t *testing.T) {
	each(t, func(t *testing.T, release string) {
		primary := redistest.Start(t, redistest.Options{Release: release})
		replica := redistest.Start(t, redistest.Options{Release: release})
		target := redistest.Start(t, redistest.Options{Release: release})
		replica.ReplicaOf(primary)
		primary.MustDo("SELECT", 3)
		primary.MustDo("SET", "k", "v")
		redistest.Eventually(t, 10*time.Second, func() error {
			if got := replica.Info("replication")["master_repl_offset"]; got != primary.Info("replication")["master_repl_offset"] {
				return errors.New(got)
			}
			return nil
		})
		r := run(t, plan{url: replica.URL(), sink: &sink{copy: newCopier(target).copy}})
		r.streaming()
		primary.MustDo("INCR", "n")
		r.level(replica)
		if got := r.sink.commands(); !slices.Equal(got, []string{"3:INCR n"}) {
			t.Errorf("%q", got)
		}
		if db := r.reader.Status().DB; db != 3 {
			t.Errorf("the position has database %d", db)
		}
		equal(t, primary, target)
		// promoted, it goes on under a new id with the same offsets; the link is cut on the way
		replica.MustDo("REPLICAOF", "NO", "ONE")
		replica.MustDo("SELECT", 3)
		replica.MustDo("INCR", "n")
		r.level(replica)
		equal(t, replica, target)
		if s := r.reader.Status(); s.FullSyncs != 1 {
			t.Errorf("%+v", s)
		}
	})
}

// TestFailover: the primary is replaced by its replica, under the same name.
func TestFailover(t *testing.T) {
	primary, replica := redistest.Start(t, redistest.Options{}), redistest.Start(t, redistest.Options{})
	target := redistest.Start(t, redistest.Options{})
	replica.ReplicaOf(primary)
	proxy := redistest.NewProxy(t, primary.Addr)
	r := run(t, plan{url: "redis://" + proxy.Addr(), sink: &sink{copy: newCopier(target).copy}})
	r.streaming()
	fill(t, primary, 1000)
	r.level(primary)
	redistest.Eventually(t, 10*time.Second, func() error {
		if got := replica.Info("replication")["master_repl_offset"]; got != primary.Info("replication")["master_repl_offset"] {
			return errors.New(got)
		}
		return nil
	})
	id := r.reader.Status().ReplID
	primary.Kill()
	replica.MustDo("REPLICAOF", "NO", "ONE")
	proxy.Retarget(replica.Addr)
	replica.MustDo("INCR", "after")
	r.level(replica)
	equal(t, replica, target)
	if s := r.reader.Status(); s.FullSyncs != 1 || s.PartialSyncs == 0 || s.ReplID == id {
		t.Errorf("%+v", s)
	}
	// and once more, by the new id
	proxy.Cut()
	replica.MustDo("INCR", "after")
	r.level(replica)
}

// TestFieldTTLs: Valkey 9.1 drops a sync that did not announce a version when a hash has field TTLs.
func TestFieldTTLs(t *testing.T) {
	redistest.Require(t, "valkey-9.1")
	source := redistest.Start(t, redistest.Options{Release: "valkey-9.1"})
	target := redistest.Start(t, redistest.Options{Release: "valkey-9.1"})
	for i := range 300 {
		source.MustDo("HSET", "h", fmt.Sprintf("f%d", i), i)
	}
	source.MustDo("HEXPIRE", "h", 3600, "FIELDS", 2, "f1", "f2")
	r := run(t, plan{url: source.URL(), sink: &sink{copy: newCopier(target).copy}})
	r.streaming()
	source.MustDo("HEXPIRE", "h", 3600, "FIELDS", 1, "f3")
	r.level(source)
	equal(t, source, target)
}

// TestNothingWritten: the source sees questions and the protocol of a replica, and no command that writes.
func TestNothingWritten(t *testing.T) {
	each(t, func(t *testing.T, release string) {
		source := redistest.Start(t, redistest.Options{Release: release})
		fill(t, source, 1000)
		digest, size := source.MustDo("DEBUG", "DIGEST").Text, source.MustDo("DBSIZE").Int
		source.MustDo("CONFIG", "RESETSTAT")
		proxy := redistest.NewProxy(t, source.Addr)
		r := run(t, plan{url: "redis://" + proxy.Addr()})
		r.streaming()
		proxy.Cut()
		r.eventually("partial sync", func() error {
			if r.reader.Status().PartialSyncs == 0 {
				return errors.New("none")
			}
			return nil
		})
		r.level(source)
		r.stop()
		allowed := []string{"info", "psync", "replconf", "ping", "hello", "auth", "config", "debug", "dbsize", "client", "select"}
		for name := range source.Info("commandstats") {
			command, _, _ := strings.Cut(strings.TrimPrefix(name, "cmdstat_"), "|")
			if strings.HasPrefix(name, "cmdstat_") && !slices.Contains(allowed, command) {
				t.Errorf("the source was sent %s", command)
			}
		}
		if got := source.MustDo("DEBUG", "DIGEST").Text; got != digest || source.MustDo("DBSIZE").Int != size {
			t.Errorf("the data has changed")
		}
	})
}

// ackOf returns what the source believes of its only replica.
func ackOf(s *redistest.Server) (offset int64, err error) {
	line := s.Info("replication")["slave0"]
	for part := range strings.SplitSeq(line, ",") {
		if text, ok := strings.CutPrefix(part, "offset="); ok {
			return strconv.ParseInt(text, 10, 64)
		}
	}
	return 0, fmt.Errorf("slave0:%s", line)
}

// TestAcknowledge: the source hears what is on the target, and nothing else.
func TestAcknowledge(t *testing.T) {
	each(t, func(t *testing.T, release string) {
		source := redistest.Start(t, redistest.Options{Release: release})
		source.MustDo("SET", "k", "v")
		s := &sink{held: true}
		r := run(t, plan{url: source.URL(), sink: s})
		online := func() error {
			if line := source.Info("replication")["slave0"]; !strings.Contains(line, "state=online") {
				return errors.New(line)
			}
			return nil
		}
		r.eventually("online", online)
		source.MustDo("SET", "k", "w")
		r.eventually("received", func() error {
			want, _ := strconv.ParseInt(source.Info("replication")["master_repl_offset"], 10, 64)
			if got := r.reader.Status().Received; got < want {
				return fmt.Errorf("%d of %d", got, want)
			}
			return nil
		})
		// the replica is alive, and the target has nothing
		for until := time.Now().Add(1200 * time.Millisecond); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
			if got, err := ackOf(source); err != nil || got != 0 {
				t.Fatalf("acknowledged %d (%v) while the snapshot is not on the target", got, err)
			}
		}
		if source.Do("WAIT", 1, 100).Int != 0 {
			t.Error("WAIT counts what the target does not have")
		}
		s.hold(false)
		r.level(source)
		// WAIT: the answer comes with the acknowledgement, at once and not a second later
		s.hold(true)
		source.MustDo("INCR", "n")
		began := time.Now()
		if n := source.MustDo("WAIT", 1, 300).Int; n != 0 {
			t.Errorf("WAIT counts %d replicas while the target is held", n)
		}
		answer := make(chan int64, 1)
		c := source.Dial()
		defer c.Close()
		go func() {
			_, _ = c.Do(context.Background(), 5*time.Second, "INCR", "n")
			reply, _ := c.Do(context.Background(), 10*time.Second, "WAIT", "1", "8000")
			answer <- reply.Int
		}()
		select {
		case n := <-answer:
			t.Errorf("WAIT answered %d while the target is held", n)
		case <-time.After(300 * time.Millisecond):
		}
		s.hold(false)
		released := time.Now()
		if n := <-answer; n != 1 {
			t.Errorf("WAIT answered %d after %v", n, time.Since(began))
		}
		if took := time.Since(released); took > 700*time.Millisecond {
			t.Errorf("WAIT took %v to answer after the acknowledgement", took)
		}
		r.level(source)
		r.eventually("ack", func() error {
			got, err := ackOf(source)
			if want := r.reader.Status().Applied; err != nil || got != want {
				return fmt.Errorf("%d of %d, %v", got, want, err)
			}
			return nil
		})
		if log := r.log.String(); strings.Contains(log, "error") {
			t.Errorf("%s", log)
		}
	})
}

// TestAckReceived: the other mode acknowledges what was received, once the snapshot is on the target.
func TestAckReceived(t *testing.T) {
	source := redistest.Start(t, redistest.Options{})
	s := &sink{}
	r := run(t, plan{url: source.URL(), sink: s, config: func(c *PSYNCConfig) { c.AckReceived = true }})
	r.streaming()
	s.hold(true)
	source.MustDo("INCR", "n")
	if n := source.MustDo("WAIT", 1, 5000).Int; n != 1 {
		t.Errorf("WAIT answers %d", n)
	}
}

// TestUntil: one-shots end by themselves, daemons do not.
func TestUntil(t *testing.T) {
	source := redistest.Start(t, redistest.Options{})
	fill(t, source, 2000)
	for _, until := range []Until{UntilSnapshot, UntilCaughtUp} {
		r := run(t, plan{url: source.URL(), config: func(c *PSYNCConfig) { c.Until = until }})
		r.exit(haul.ExitDone)
		if s := r.reader.Status(); !s.SnapshotDone || s.SnapshotKeys == 0 {
			t.Errorf("%+v", s)
		}
	}
}

// TestSecondAddress: the first address of the source is dead; the link and the questions go to the second.
func TestSecondAddress(t *testing.T) {
	source := redistest.Start(t, redistest.Options{})
	dead := redistest.NewProxy(t, source.Addr)
	dead.Refuse(true)
	source.MustDo("SET", "k", "v")
	r := run(t, plan{url: "redis://" + dead.Addr() + "," + source.Addr, config: func(c *PSYNCConfig) { c.Until = UntilCaughtUp }})
	r.exit(haul.ExitDone)
}

package writer

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// exactGeneration is that of all positions of an exact rig to real servers.
const exactGeneration = 1

// exactName is the client name of an exact rig's lanes.
const exactName = "keyhaul:test:w1"

func exactStore(dialer *topology.Dialer, cluster bool) *checkpoint.Store {
	dialer.ClientName = exactName
	return checkpoint.New(checkpoint.Config{Dialer: dialer, Name: "test", Cluster: cluster, Log: zerolog.New(io.Discard)})
}

// exactly makes a configuration one of a haul that streams, exactly once, from offset 0.
func exactly(store *checkpoint.Store, cluster bool) func(*Config) {
	return func(c *Config) {
		c.Exact, c.Store, c.SnapshotLanes = true, store, 1
		c.Applied = make([]int64, 1)
		if cluster {
			c.Applied = make([]int64, command.Slots)
		}
	}
}

// exactRig runs a writer that delivers exactly once, to real servers. change may be nil.
func exactRig(t testing.TB, addr string, change func(*Config)) *rig {
	t.Helper()
	return exactRigAt(t, topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{addr}}, change)
}

func exactRigAt(t testing.TB, ep topology.Endpoint, change func(*Config)) *rig {
	t.Helper()
	dialer := topology.NewDialer(ep)
	node := inspect(t, dialer)
	store := exactStore(dialer, node.Cluster)
	t.Cleanup(store.Close)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	at := haul.Position{Generation: exactGeneration, ReplID: "test"}
	record := checkpoint.Record{Generation: exactGeneration, Phase: checkpoint.PhaseStreaming, Began: checkpoint.BeganEmpty, Start: at}
	if err := store.Save(ctx, record); err != nil {
		t.Fatal(err)
	}
	if err := store.Spread(ctx, checkpoint.Fence{Generation: exactGeneration, At: at}); err != nil {
		t.Fatal(err)
	}
	r := newRigFor(t, dialer, node, func(c *Config) {
		exactly(store, node.Cluster)(c)
		if change != nil {
			change(c)
		}
	})
	r.generation = exactGeneration
	rt.Eventually(t, limit, func() error {
		if !r.over() && !r.w.Status().Ready {
			return fmt.Errorf("the writer is not ready: %+v", r.waits.List())
		}
		return nil
	})
	return r
}

// exactPeerRig runs such a writer to a scripted server; of a cluster, it is the only node. Its generation is 0, as there
// is no record.
func exactPeerRig(t testing.TB, p *rt.Peer, cluster bool) *rig {
	t.Helper()
	ep := topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{p.Addr()}, AddressMap: map[string]string{peerAnnounced: p.Addr()}}
	dialer := topology.NewDialer(ep)
	store := exactStore(dialer, cluster)
	t.Cleanup(store.Close)
	node := topology.Node{Product: "redis", Version: "7.0.15", Major: 7, Role: "master", Cluster: cluster}
	return newRigFor(t, dialer, node, exactly(store, cluster))
}

// peerAnnounced is the address that a scripted cluster gives to its node.
const peerAnnounced = "127.0.0.1:1"

// exactLogin is what a lane with fences asks before it is ready. It is client id. Marks come behind it at any time.
func exactLogin(id int) rt.Script {
	keys := checkpoint.Keys{Name: "test"}
	return append(login(), rt.Expect("CLIENT", "ID"), rt.Reply(fmt.Sprintf(":%d", id)),
		rt.Answer("+OK", "SET", keys.WholeMark(), rt.Any), rt.Answer("+OK", "SET", keys.Mark(0), rt.Any))
}

// discovery is the question for the slots of a scripted cluster.
func discovery() rt.Script {
	return rt.Script{
		rt.Expect("CLUSTER", "SLOTS"),
		rt.Send("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:1\r\n"), rt.ExpectEOF(),
	}
}

// fencesAt answers the question for all fences: everything up to offset is applied.
func fencesAt(offset int64, cluster bool) rt.Script {
	n := 1
	if cluster {
		n = command.Slots
	}
	text := checkpoint.Fence{At: haul.Position{ReplID: "test", Offset: offset}}.Append(nil)
	s := rt.Script{rt.Expect("CLIENT", "SETNAME", exactName), rt.Reply("+OK")}
	for range n {
		s = append(s, rt.Expect("GET", rt.Any))
	}
	return append(s, rt.Send(strings.Repeat(fmt.Sprintf("$%d\r\n%s\r\n", len(text), text), n)), rt.ExpectEOF())
}

// expectAll expects commands whose arguments hold no blanks.
func expectAll(lines ...string) (steps []rt.Step) {
	for _, line := range lines {
		steps = append(steps, rt.Expect(strings.Fields(line)...))
	}
	return steps
}

// replyAll sends replies of one line each.
func replyAll(lines ...string) rt.Step { return rt.Send(strings.Join(lines, "\r\n") + "\r\n") }

// script joins steps and lists of steps.
func script(parts ...any) (s rt.Script) {
	for _, part := range parts {
		switch part := part.(type) {
		case rt.Step:
			s = append(s, part)
		case []rt.Step:
			s = append(s, part...)
		case rt.Script:
			s = append(s, part...)
		}
	}
	return s
}

// then is a step that lets the test go on.
func then(c chan struct{}) rt.Step {
	return rt.Call(func() error { close(c); return nil })
}

// reached waits for such a step.
func reached(t testing.TB, p *rt.Peer, c chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(limit):
		t.Fatalf("the peer does not get so far: %v", p.Err())
	}
}

// fenceOf reads the offset of a fence.
func fenceOf(t testing.TB, g target, key string) int64 {
	t.Helper()
	text := g.do(key, "GET", key).Text
	f, err := checkpoint.ParseFence(text)
	if err != nil {
		t.Fatalf("%s: %v: %q", key, err, text)
	}
	return f.Applied()
}

// counter sends INCR, RPUSH and APPEND to some keys in rounds, and knows what has to become of them.
type counter struct {
	keys   int
	rounds int
}

// send sends one more round.
func (c *counter) send(r *rig) {
	b := r.batch(false)
	c.round(b)
	b.send()
}

// round adds one more round to a batch.
func (c *counter) round(b *batch) {
	c.rounds++
	for k := range c.keys {
		b.words(fmt.Sprintf("SET seen:{%d} %d", k, c.rounds))
		b.words(fmt.Sprintf("INCR count:{%d}", k))
		b.words(fmt.Sprintf("RPUSH list:{%d} %d", k, c.rounds))
		if k%4 == 0 {
			b.tx(0, fmt.Sprintf("APPEND text:{%d} %d,", k, c.rounds), fmt.Sprintf("INCRBY sum:{%d} %d", k, c.rounds))
		}
	}
}

// check compares everything with what one delivery of each round leads to.
func (c *counter) check(t testing.TB, g target) {
	t.Helper()
	list, text, sum := "", "", 0
	for i := 1; i <= c.rounds; i++ {
		list, text, sum = list+strconv.Itoa(i)+" ", text+strconv.Itoa(i)+",", sum+i
	}
	expect := func(want string, args ...any) {
		t.Helper()
		if got := answerOf(g.do(args[1].(string), args...)); got != want {
			t.Errorf("%v: %.300q, want %.300q", args, got, want)
		}
	}
	for k := range c.keys {
		tag := fmt.Sprintf("{%d}", k)
		expect(strconv.Itoa(c.rounds), "GET", "seen:"+tag)
		expect(strconv.Itoa(c.rounds), "GET", "count:"+tag)
		expect(strings.TrimSpace(list), "LRANGE", "list:"+tag, 0, -1)
		if k%4 == 0 {
			expect(text, "GET", "text:"+tag)
			expect(strconv.Itoa(sum), "GET", "sum:"+tag)
		}
	}
}

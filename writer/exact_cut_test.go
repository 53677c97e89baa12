package writer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// proxied puts a proxy before each server of a target, and returns how a writer reaches it.
func proxied(t testing.TB, cluster bool) (target, []*rt.Proxy, topology.Endpoint) {
	t.Helper()
	ep := topology.Endpoint{Scheme: topology.SchemeTCP}
	if !cluster {
		s := rt.Start(t.(rt.TB), rt.Options{})
		p := rt.NewProxy(t.(rt.TB), s.Addr)
		ep.Addrs = []string{p.Addr()}
		return target{p.Addr(), func(_ string, args ...any) resp.Reply { return s.MustDo(args...) }, []*rt.Server{s}}, []*rt.Proxy{p}, ep
	}
	c := rt.StartCluster(t.(rt.TB), rt.ClusterOptions{})
	ep.Addrs, ep.AddressMap = []string{c.Nodes[0].Addr}, map[string]string{}
	var proxies []*rt.Proxy
	for _, n := range c.Nodes {
		p := rt.NewProxy(t.(rt.TB), n.Addr)
		proxies, ep.AddressMap[n.Addr] = append(proxies, p), p.Addr()
	}
	return target{c.Nodes[0].Addr, c.MustDo, c.Nodes}, proxies, ep
}

// TestCutTransactions: connections break behind each number of bytes of a command and of its reply, also such that what
// was sent is executed long after. Everything is applied once.
func TestCutTransactions(t *testing.T) {
	for _, cluster := range []bool{false, true} {
		for name, cut := range map[string]func(p *rt.Proxy, i int){
			"in a command": func(p *rt.Proxy, i int) { p.CutAfter(1+i*197, rt.ToTarget) },
			"in a reply":   func(p *rt.Proxy, i int) { p.CutAfter(1+i*17, rt.ToClient) },
			"at once":      func(p *rt.Proxy, _ int) { p.Cut() },
			"orphans":      func(p *rt.Proxy, _ int) { p.Orphan(150 * time.Millisecond) },
		} {
			t.Run(fmt.Sprintf("%s, cluster %t", name, cluster), func(t *testing.T) {
				t.Parallel()
				g, proxies, ep := proxied(t, cluster)
				r := exactRigAt(t, ep, nil)
				c := &counter{keys: 40}
				for i := range 24 {
					before := r.offset
					cut(proxies[i%len(proxies)], i)
					for j := 0; j < 30 || j < 600 && r.ch.Watermark.Stream().Offset <= before; j++ {
						c.send(r)
						time.Sleep(time.Millisecond)
					}
				}
				r.drained()
				c.check(t, g)
				reconnects := int64(0)
				for _, l := range r.w.Status().Lanes {
					reconnects += l.Reconnects
				}
				if reconnects < 12 {
					t.Errorf("only %d reconnects", reconnects)
				}
				if strings.Contains(r.log.String(), mayBeTwice) {
					t.Error("it tells of entries that may be applied twice")
				}
			})
		}
	}
}

// TestGhostsAreGoneBeforeFencesAreRead: a lane's last connection is killed and gone before the fence is read, and only
// what the fence lacks is sent again.
func TestGhostsAreGoneBeforeFencesAreRead(t *testing.T) {
	const ghosts = "id=7 addr=127.0.0.1:5 name=" + exactName + " db=0\nid=8 addr=127.0.0.1:6 name=keyhaul:test:w2 db=0\n"
	bulk := func(text string) rt.Step { return rt.Send(fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)) }
	for _, executed := range []bool{false, true} {
		for _, cluster := range []bool{false, true} {
			t.Run(fmt.Sprintf("executed %t, cluster %t", executed, cluster), func(t *testing.T) {
				fence := []rt.Step{rt.Expect("SET", wholeFence, rt.Any), rt.Expect("EXEC")}
				if cluster {
					fence = setFence("a")
				}
				transaction := func(lines ...string) rt.Script {
					return script(expectAll("MULTI"), expectAll(lines...), fence)
				}
				up := make(chan struct{})
				second := exactLogin(9)
				applied := int64(0)
				if executed {
					applied = 100
					second = script(second, then(up), transaction("INCR {a}y"), replyAll("+OK", "+QUEUED", "+QUEUED", "*2\r\n:1\r\n+OK"))
				} else {
					second = script(second, transaction("INCR {a}x"), replyAll("+OK", "+QUEUED", "+QUEUED", "*2\r\n:1\r\n+OK"), then(up),
						transaction("INCR {a}y"), replyAll("+OK", "+QUEUED", "+QUEUED", "*2\r\n:1\r\n+OK"))
				}
				evict := rt.Script{
					rt.Expect("CLIENT", "SETNAME", exactName), rt.Reply("+OK"), rt.Expect("CLIENT", "ID"), rt.Reply(":10"),
					rt.Expect("CLIENT", "LIST"), bulk(ghosts),
					rt.Expect("CLIENT", "KILL", "ID", "7"), rt.Reply("+OK"),
					rt.Expect("CLIENT", "LIST"), bulk(ghosts), // it has to be asked for until it is gone
					rt.Expect("CLIENT", "KILL", "ID", "7"), rt.Reply("-ERR No such client"),
					rt.Expect("CLIENT", "LIST"), bulk(strings.SplitAfter(ghosts, "\n")[1]), rt.ExpectEOF(),
				}
				first := script(exactLogin(7), transaction("INCR {a}x"), rt.Hangup())
				scripts := []rt.Script{first, second, evict, fencesAt(applied, cluster)}
				if cluster {
					scripts = []rt.Script{discovery(), first, discovery(), second, evict, fencesAt(applied, cluster)}
				}
				p := rt.NewPeer(t, scripts...)
				r := exactPeerRig(t, p, cluster)
				r.do("INCR {a}x")
				reached(t, p, up)
				r.do("INCR {a}y")
				p.Wait()
				r.drained()
				if strings.Contains(r.log.String(), mayBeTwice) {
					t.Error("it tells of entries that may be applied twice")
				}
			})
		}
	}
}

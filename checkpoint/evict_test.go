package checkpoint

import (
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// What a killed connection had sent to a server that did not answer is carried out before Evict returns, or never.
func TestEvictDecidesWhatWasSent(t *testing.T) {
	for _, release := range redistest.Releases() {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			server, s := standalone(t, redistest.Options{Release: release})
			ctx := testContext(t)
			for range 20 {
				server.MustDo("SET", "key", "old")
				old := lane(t, server, "w0")
				server.Freeze()
				var out []byte
				for range 1000 {
					out = resp.AppendCommand(out, "SET", "key", "new")
				}
				_, err := old.Write(out)
				must(t, err)
				evicted := make(chan error, 1)
				go func() {
					_, err := s.Evict(ctx, server.Addr, func(_ int64, name string) bool { return name == "keyhaul:test:w0" })
					evicted <- err
				}()
				time.Sleep(5 * time.Millisecond)
				server.Thaw()
				must(t, <-evicted)
				server.MustDo("SET", "key", "newest")
				if list := server.MustDo("CLIENT", "LIST").Text; strings.Contains(list, "keyhaul:test:w0") {
					t.Fatal("still listed")
				}
				time.Sleep(2 * time.Millisecond)
				if got := server.MustDo("GET", "key").Text; got != "newest" {
					t.Fatalf("the key became %q after the eviction", got)
				}
			}
		})
	}
}

func TestEvictSparesOthers(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	ctx := testContext(t)
	a, b := lane(t, server, "a"), lane(t, server, "b")
	n, err := s.Evict(ctx, server.Addr, func(id int64, name string) bool { return id > 0 && name == "keyhaul:test:a" })
	if err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := a.do(ctx, "PING"); err == nil {
		t.Error("not killed")
	}
	if _, err := b.do(ctx, "PING"); err != nil {
		t.Error(err)
	}
	if n, err := s.Evict(ctx, server.Addr, func(_ int64, name string) bool { return name == "keyhaul:test:w1" }); err != nil || n != 0 {
		t.Errorf("its own: %d, %v", n, err)
	}
}

// TestEvictSelfLooksAgain: a connection to a node that has got its first slot since it was last looked is ended, too.
func TestEvictSelfLooksAgain(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	begun(t, s) // looks
	added := c.AddPrimary()
	c.MoveSlot(100, c.NodeFor(100), added)
	own := lane(t, added, "w1")
	must(t, s.EvictSelf(testContext(t)))
	if _, err := own.do(testContext(t), "PING"); err == nil {
		t.Error("a connection to the new node was left")
	}
}

func TestEvictSelfEndsLinks(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	ctx := testContext(t)
	link, other := lane(t, server, LinkName("w1", "a")), lane(t, server, "w12")
	must(t, s.EvictSelf(ctx))
	if _, err := link.do(ctx, "PING"); err == nil {
		t.Error("a connection of a link is left")
	}
	if _, err := other.do(ctx, "PING"); err != nil {
		t.Errorf("another worker's connection: %v", err)
	}
}

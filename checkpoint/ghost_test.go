package checkpoint

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// What a lost connection has sent is carried out before the next try begins, or never.
func TestGhostsAreLaid(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	proxy := redistest.NewProxy(t, server.Addr)
	s := newStore(t, redistest.Addr(proxy.Addr()), false, "w1")
	must(t, s.Save(testContext(t), streaming))
	const delay = 400 * time.Millisecond
	tries := 0
	err := s.retry(testContext(t), "try", func(ctx context.Context, l *layout) error {
		tries++
		value := "old"
		if tries > 1 {
			value = "new"
		}
		return s.fresh(ctx, l.owner().addr, true, func(c *conn) error {
			if tries > 1 {
				_, err := c.do(ctx, "SET", "key", value)
				return err
			}
			proxy.Orphan(delay)
			var b batch
			b.add("SET", "key", value)
			_, err := c.ask(ctx, &b) // until the proxy hangs up
			return err
		})
	})
	if err != nil || tries != 2 {
		t.Fatalf("%d tries, %v", tries, err)
	}
	left := len(s.ghosts)
	s.Close()
	redistest.Eventually(t, limit, func() error { // what was held back is delivered by then, or was not wanted
		if n := proxy.Connections(); n != 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	if got := server.MustDo("GET", "key").Text; got != "new" {
		t.Errorf("the key is %q: a closed connection's command was carried out behind the next try", got)
	}
	if left != 0 {
		t.Errorf("%d ghosts are left", left)
	}
}

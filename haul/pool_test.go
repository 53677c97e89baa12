package haul

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// fill takes batches from a channel until it would have to wait.
func fill(t *testing.T, c *Channel) (held []*Batch) {
	t.Helper()
	for c.share.fits(standard) {
		held = append(held, mustNew(t, c))
	}
	return held
}

func TestPoolKeepsReserves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const links = 16
		p := NewPool(32<<20, links)
		channels := make([]*Channel, links)
		for i := range channels {
			channels[i] = p.Channel()
		}
		slow := len(fill(t, channels[0]))
		if want := int((p.bound - (links-1)*p.reserve) / standard); slow != want {
			t.Errorf("one link got %d batches, not all %d that are no other's reserve", slow, want)
		}
		for i, c := range channels[1:] { // the one that stands still takes nothing of the others' reserves
			if n := len(fill(t, c)); n < int(p.reserve/standard) {
				t.Errorf("link %d got %d batches, its reserve is %d", i+1, n, p.reserve/standard)
			}
		}
		if p.used > p.bound {
			t.Errorf("%d bytes are used of %d", p.used, p.bound)
		}
	})
}

func TestPoolGivesWhatIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(8<<20, 2)
		a, b := p.Channel(), p.Channel()
		held, others := fill(t, a), fill(t, b)
		got := make(chan error, 2)
		for _, c := range []*Channel{a, b} {
			go func() {
				_, err := c.New(t.Context())
				got <- err
			}()
		}
		synctest.Wait()
		if len(got) > 0 {
			t.Fatal("a full pool gave something")
		}
		for _, x := range held[:len(held)/2] {
			a.Discard(x)
		}
		for range 2 {
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		stop := errors.New("stop")
		cancel(stop)
		fill(t, a)
		if _, err := a.New(ctx); !errors.Is(err, stop) {
			t.Errorf("New: %v", err)
		}
		for _, x := range others {
			b.Discard(x)
		}
		fill(t, a)
		b.Leave()
		if !a.share.fits(standard) {
			t.Error("what a link has left behind is not for the others")
		}
	})
}

// TestRewrittenBatch: a larger buffer that a writer gives a batch counts in the bound until the batch is complete.
func TestRewrittenBatch(t *testing.T) {
	c := NewChannel(MinBound)
	b, err := c.New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	before := c.share.used
	b.Entries = append(b.Entries, Entry{End: 1})
	if err := c.Send(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	<-c.Batches()
	b.Rewrite(make([]byte, 0, BatchBytes/2))
	if c.share.used != before {
		t.Errorf("%d bytes are held with a smaller buffer, want %d", c.share.used, before)
	}
	b.Rewrite(make([]byte, 0, 2*MinBound)) // more than there is: nobody waits for it here
	if c.share.used <= MinBound {
		t.Errorf("%d bytes are held", c.share.used)
	}
	b.Done(1)
	if c.share.used != 0 {
		t.Errorf("%d bytes are held at the end", c.share.used)
	}
}

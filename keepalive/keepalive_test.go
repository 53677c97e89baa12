package keepalive

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestInterval(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: 30 * time.Second, -1: 30 * time.Second, time.Second: 500 * time.Millisecond, 2 * time.Second: time.Second,
		3 * time.Second: time.Second, 10 * time.Second: 10 * time.Second / 3, 60 * time.Second: 20 * time.Second,
		90 * time.Second: 30 * time.Second, time.Hour: 30 * time.Second,
	} {
		if got := Interval(timeout); got != want {
			t.Errorf("timeout %v: %v, want %v", timeout, got, want)
		}
		if timeout > 0 && 3*Interval(timeout)/2 >= timeout {
			t.Errorf("timeout %v: a lane may be idle for %v", timeout, 3*Interval(timeout)/2)
		}
	}
}

// fakeLane notes what its keeper does.
type fakeLane struct {
	mu      sync.Mutex
	pings   []time.Time
	asks    []time.Time
	probes  []time.Time
	since   time.Time // when a reply became due; zero for none
	verdict Verdict
	probe   func()
}

func (l *fakeLane) Ping() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pings = append(l.pings, time.Now())
}

func (l *fakeLane) AskTimeout() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asks = append(l.asks, time.Now())
}

func (l *fakeLane) Stalled() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since.IsZero() {
		return 0
	}
	return time.Since(l.since)
}

func (l *fakeLane) Probe(context.Context) Verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.probes = append(l.probes, time.Now())
	if l.probe != nil {
		l.probe()
	}
	return l.verdict
}

func (l *fakeLane) due(v Verdict) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.since, l.verdict = time.Now(), v
}

// keep runs a keeper for a while and returns what Run returned.
func keep(t *testing.T, k *Keeper, l *fakeLane, d time.Duration, during func()) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx, l) }()
	if during != nil {
		during()
	}
	return <-done
}

func gaps(from time.Time, at []time.Time) (least, most time.Duration) {
	least = time.Hour
	for _, t := range at {
		gap := t.Sub(from)
		least, most, from = min(least, gap), max(most, gap), t
	}
	return least, most
}

func TestPingsComeInTime(t *testing.T) {
	for _, c := range []struct {
		name           string
		reply, fixed   time.Duration
		timeout        time.Duration
		interval       time.Duration
		pings, atLeast int
	}{
		{"no timeout", time.Minute, 0, 0, 30 * time.Second, 20, 18},
		{"timeout 2", time.Minute, 0, 2 * time.Second, time.Second, 660, 580},
		{"short reply timeout", 2 * time.Second, 0, 0, 30 * time.Second, 20, 18},
		{"fixed", time.Minute, 7 * time.Second, 2 * time.Second, 7 * time.Second, 96, 85},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := NewKeeper(c.reply, c.fixed)
				k.SetTimeout(c.timeout)
				if got := k.Interval(); got != c.interval {
					t.Fatalf("interval %v, want %v", got, c.interval)
				}
				l := &fakeLane{}
				from := time.Now()
				if err := keep(t, k, l, 10*time.Minute, nil); err != nil {
					t.Fatal(err)
				}
				if n := len(l.pings); n > c.pings || n < c.atLeast-10 {
					t.Errorf("%d pings, want %d to %d", n, c.atLeast-10, c.pings)
				}
				sent := append(append([]time.Time{}, l.pings...), l.asks...) // each is traffic
				least, _ := gaps(from, l.pings)
				if least < c.interval*9/10 {
					t.Errorf("two pings within %v, the interval is %v", least, c.interval)
				}
				sortTimes(sent)
				if _, most := gaps(from, sent); most > c.interval {
					t.Errorf("%v passed without a ping, the interval is %v", most, c.interval)
				}
				switch {
				case c.fixed > 0 && len(l.asks) > 0:
					t.Errorf("the timeout was asked for, though the interval is fixed")
				case c.fixed == 0 && (len(l.asks) < 9 || len(l.asks) > 10):
					t.Errorf("the timeout was asked for %d times in 10 minutes", len(l.asks))
				}
				if len(l.probes) > 0 {
					t.Errorf("%d probes", len(l.probes))
				}
			})
		})
	}
}

func sortTimes(at []time.Time) {
	for i := range at {
		for j := i; j > 0 && at[j].Before(at[j-1]); j-- {
			at[j], at[j-1] = at[j-1], at[j]
		}
	}
}

// TestJitter: two keepers do not keep step.
func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &fakeLane{}, &fakeLane{}
		for _, l := range []*fakeLane{a, b} {
			if err := keep(t, NewKeeper(time.Minute, time.Second), l, time.Minute, nil); err != nil {
				t.Fatal(err)
			}
		}
		same := 0
		for i := 1; i < min(len(a.pings), len(b.pings)); i++ {
			if a.pings[i].Sub(a.pings[i-1]) == b.pings[i].Sub(b.pings[i-1]) {
				same++
			}
		}
		if same > 2 {
			t.Errorf("%d of %d gaps are the same", same, len(a.pings))
		}
	})
}

// TestTimeoutIsNoticed: a new timeout takes effect at the next turn.
func TestTimeoutIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, l := NewKeeper(time.Minute, 0), &fakeLane{}
		err := keep(t, k, l, 2*time.Minute, func() {
			for range 61 { // the lane learns it from the reply to AskTimeout
				time.Sleep(time.Second)
				l.mu.Lock()
				asked := len(l.asks)
				l.mu.Unlock()
				if asked > 0 {
					k.SetTimeout(3 * time.Second)
					return
				}
			}
			t.Error("the timeout was not asked for within a minute")
		})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(l.pings); n < 40 {
			t.Errorf("%d pings", n)
		}
	})
}

func TestStalled(t *testing.T) {
	for _, c := range []struct {
		name    string
		verdict Verdict
		dead    bool
	}{{"busy", Busy, false}, {"alive", Alive, true}, {"unreachable", Unreachable, true}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k, l := NewKeeper(time.Minute, 0), &fakeLane{}
				start := time.Now()
				l.due(c.verdict)
				err := keep(t, k, l, 10*time.Minute, nil)
				if errors.Is(err, ErrDead) != c.dead {
					t.Errorf("it returns %v", err)
				}
				if len(l.probes) == 0 {
					t.Fatal("no probe")
				}
				if at := l.probes[0].Sub(start); at < time.Minute || at > 75*time.Second {
					t.Errorf("the first probe comes after %v", at)
				}
				if c.dead && len(l.probes) > 1 {
					t.Errorf("%d probes", len(l.probes))
				}
				if _, most := gaps(l.probes[0], l.probes); !c.dead && most > 16*time.Second {
					t.Errorf("%v between probes of a busy server", most)
				}
			})
		})
	}
}

// TestAnsweredWhileProbed: the reply that comes while the server is asked tells that the lane is well.
func TestAnsweredWhileProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &fakeLane{}
		l.probe = func() { l.since = time.Time{} }
		l.due(Alive)
		if err := keep(t, NewKeeper(time.Minute, 0), l, 5*time.Minute, nil); err != nil {
			t.Error(err)
		}
		if len(l.probes) != 1 {
			t.Errorf("%d probes", len(l.probes))
		}
	})
}

// TestEndWhileProbed: nobody is called dead because the lane was closed.
func TestEndWhileProbed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := &fakeLane{probe: cancel}
		l.due(Unreachable)
		if err := NewKeeper(time.Second, 0).Run(ctx, l); err != nil {
			t.Error(err)
		}
	})
}

// TestAnswersElsewhereFirst: a server that answers the probe a moment before the lane keeps the lane.
func TestAnswersElsewhereFirst(t *testing.T) {
	lane := &fakeLane{}
	answered := make(chan struct{})
	lane.probe = func() {
		time.AfterFunc(10*time.Millisecond, func() {
			lane.mu.Lock()
			lane.since = time.Time{}
			lane.mu.Unlock()
			close(answered)
		})
	}
	lane.due(Alive)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- NewKeeper(200*time.Millisecond, time.Minute).Run(ctx, lane) }()
	<-answered
	time.AfterFunc(100*time.Millisecond, cancel)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

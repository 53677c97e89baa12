package keepalive

import (
	"testing"
	"time"
)

func TestBackoffGrowsWithinItsLimits(t *testing.T) {
	const ms = time.Millisecond
	low := &Backoff{Rand: func() float64 { return 0 }}
	high := &Backoff{Rand: func() float64 { return 0.999999999 }}
	wantLow := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 5000 * ms, 5000 * ms}
	wantHigh := []time.Duration{200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 10000 * ms, 10000 * ms}
	for i := range wantLow {
		if got := low.Next(); got != wantLow[i] {
			t.Errorf("try %d: shortest wait %v, want %v", i, got, wantLow[i])
		}
		if got := high.Next().Round(ms); got != wantHigh[i] {
			t.Errorf("try %d: longest wait %v, want %v", i, got, wantHigh[i])
		}
	}
	high.Reset()
	if got := high.Next().Round(ms); got != 200*ms || high.Tries() != 1 {
		t.Errorf("after Reset: wait %v, tries %d", got, high.Tries())
	}
}

func TestBackoffWithEqualLimits(t *testing.T) {
	b := &Backoff{Min: time.Second, Max: time.Second}
	for range 100 {
		if got := b.Next(); got != time.Second {
			t.Fatalf("wait %v, want 1s", got)
		}
	}
}

func TestBackoffStaysBelowMaxForEver(t *testing.T) {
	b := &Backoff{}
	for range 10_000 {
		if got := b.Next(); got < DefaultMinBackoff || got > DefaultMaxBackoff {
			t.Fatalf("try %d: wait %v", b.Tries(), got)
		}
	}
}

package keepalive

import (
	"math/rand/v2"
	"time"
)

// Limits of a Backoff that sets none of its own.
const (
	DefaultMinBackoff = 100 * time.Millisecond
	DefaultMaxBackoff = 10 * time.Second
)

// Backoff tells how long to wait before the next try: the range doubles with each try, and the wait is drawn from its
// upper half, so that clients which lost the same server at the same time do not come back at the same time. The zero
// value waits between 100 ms and 10 s. It serves one goroutine.
type Backoff struct {
	Min time.Duration // no wait is shorter; 0 means 100 ms
	Max time.Duration // no wait is longer; 0 means 10 s

	// Rand returns a number in [0, 1). Nil means math/rand.
	Rand func() float64

	tries int
}

// Next returns the time to wait before the next try.
func (b *Backoff) Next() time.Duration {
	low, high := b.Min, b.Max
	if low <= 0 {
		low = DefaultMinBackoff
	}
	if high <= 0 {
		high = DefaultMaxBackoff
	}
	high = max(high, low)
	top := low
	for i := 0; i <= b.tries && top < high; i++ {
		top = min(top*2, high)
	}
	b.tries++
	random := rand.Float64
	if b.Rand != nil {
		random = b.Rand
	}
	floor := max(low, top/2)
	return floor + time.Duration(random()*float64(top-floor))
}

// Reset makes the next wait a short one again. It is called when a connection has proved useful.
func (b *Backoff) Reset() { b.tries = 0 }

// Tries returns how many waits were asked for since the last Reset.
func (b *Backoff) Tries() int { return b.tries }

package haul

import (
	"context"
	"time"
)

// Channel carries batches from a reader to a writer. Its bound is in bytes: every batch between New and its last Done
// counts with the size of its buffers, whether it is queued or in flight to the target.
type Channel struct {
	Watermark *Watermark

	bound  int64 // that the channel can count on
	share  *share
	queue  chan *Batch
	unused chan *Batch
}

// batchOverhead is what a batch of standard size holds beside its buffer: entries, commands, arguments.
const batchOverhead = 48 << 10

// MinBound is the least bound of a channel, in bytes: with less, a reader and a writer could not work at once.
const MinBound = 1 << 20

// NewChannel returns a channel that holds at most bound bytes (at least MinBound).
func NewChannel(bound int64) *Channel {
	bound = max(bound, MinBound)
	return newChannel(&Pool{bound: bound, reserve: bound})
}

func newChannel(p *Pool) *Channel {
	n := p.bound/(BatchBytes+batchOverhead) + 1
	return &Channel{
		Watermark: newWatermark(),
		bound:     p.reserve,
		share:     p.join(),
		queue:     make(chan *Batch, n),
		unused:    make(chan *Batch, n),
	}
}

// EntryLimit is the size in bytes above which an entry does not travel in a batch but stays in the spool (Entry.Big).
func (c *Channel) EntryLimit() int { return int(min(c.bound/8, 4<<20)) }

// New returns an empty batch with room for BatchBytes, waiting until the bound allows it.
func (c *Channel) New(ctx context.Context) (*Batch, error) {
	const weight = BatchBytes + batchOverhead
	if err := c.share.acquire(ctx, weight); err != nil {
		return nil, err
	}
	select {
	case b := <-c.unused:
		b.weight = weight
		return b, nil
	default:
	}
	return &Batch{
		Buf:     make([]byte, 0, BatchBytes),
		Entries: make([]Entry, 0, BatchEntries),
		weight:  weight,
		home:    c,
	}, nil
}

// Grow gives b, which was not sent yet, a buffer with room for at least want bytes that starts with what it held.
func (c *Channel) Grow(ctx context.Context, b *Batch, want int) error {
	size := max(2*cap(b.Buf), BatchBytes)
	for size < want {
		size *= 2
	}
	add := int64(size - cap(b.Buf))
	if add <= 0 {
		return nil
	}
	if most := c.bound / 2; b.weight+add > most { // a reader holds two batches at most, and must not wait for itself
		add = max(0, most-b.weight)
	}
	if err := c.share.acquire(ctx, add); err != nil {
		return err
	}
	b.weight += add
	c.shed(add)
	buf := make([]byte, len(b.Buf), size)
	copy(buf, b.Buf)
	b.Buf = buf
	return nil
}

// shed drops unused batches of n bytes in all: the bound that they had is used otherwise now.
func (c *Channel) shed(n int64) {
	for ; n > 0; n -= BatchBytes + batchOverhead {
		select {
		case <-c.unused:
		default:
			return
		}
	}
}

// Send hands b on; it does not wait. A batch without entries only moves the watermark, in its turn.
func (c *Channel) Send(_ context.Context, b *Batch) error {
	n := len(b.Entries)
	b.pending.Store(int32(n))
	b.ticket = &ticket{end: b.End, entries: int64(n), read: time.Now(), snapshot: b.Snapshot}
	c.Watermark.add(b.ticket)
	if n == 0 {
		c.complete(b)
		return nil
	}
	c.queue <- b // there is room for all batches that the bound allows
	return nil
}

// Discard takes back a batch of New that will not be sent.
func (c *Channel) Discard(b *Batch) { c.free(b) }

// Batches is what the writer receives from. It is closed when the reader has ended.
func (c *Channel) Batches() <-chan *Batch { return c.queue }

// Leave gives what the channel could hold to others of its pool, when nothing more is sent or outstanding.
func (c *Channel) Leave() { c.share.leave() }

// Close says that nothing more will be sent.
func (c *Channel) Close() { close(c.queue) }

// complete takes back a batch of which every entry is acknowledged.
func (c *Channel) complete(b *Batch) {
	t := b.ticket
	c.free(b)
	c.Watermark.complete(t)
}

// free takes back the buffers of b.
func (c *Channel) free(b *Batch) {
	weight := b.weight
	if cap(b.Buf) == BatchBytes {
		b.reset()
		select {
		case c.unused <- b:
		default:
		}
	}
	c.share.release(weight)
}

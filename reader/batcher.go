// Package reader holds where entries come from.
package reader

import (
	"context"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/feed"
)

// batcher fills batches for a channel. It is the keeper of a window: the window reads straight into the buffer of the
// batch in hand, so that an entry's bytes are never copied on their own.
type batcher struct {
	out      *haul.Channel
	batch    *haul.Batch
	snapshot bool
	format   haul.Format               // of the snapshot
	id       func(offset int64) string // the replication id that an offset of the stream belongs to; nil for a snapshot
	received func(offset int64) time.Time
	end      haul.Position // behind the last complete entry
	sent     haul.Position // end of the last batch
	window   *feed.Window
}

func newBatcher(ctx context.Context, out *haul.Channel, snapshot bool, at haul.Position) (*batcher, error) {
	b, err := out.New(ctx)
	if err != nil {
		return nil, err
	}
	return &batcher{out: out, batch: b, snapshot: snapshot, end: at, sent: at}, nil
}

// Roll implements feed.Keeper.
func (k *batcher) Roll(ctx context.Context, tail []byte, want int) ([]byte, error) {
	if len(k.batch.Entries) > 0 {
		return k.ship(ctx, tail, want)
	}
	b := k.batch
	b.Buf = b.Buf[:cap(b.Buf)]
	n := copy(b.Buf, tail)
	if want > cap(b.Buf) {
		b.Buf = b.Buf[:n]
		if err := k.out.Grow(ctx, b, want); err != nil {
			return nil, err
		}
	}
	return b.Buf[:n], nil
}

// Idle implements feed.Keeper.
func (k *batcher) Idle(ctx context.Context, tail []byte) ([]byte, error) {
	if len(k.batch.Entries) == 0 && k.end == k.sent {
		return k.Roll(ctx, tail, len(tail))
	}
	return k.ship(ctx, tail, len(tail))
}

// ship hands the batch on and continues in a new one, which begins with tail.
func (k *batcher) ship(ctx context.Context, tail []byte, want int) ([]byte, error) {
	next, err := k.out.New(ctx)
	if err != nil {
		return nil, err
	}
	if want > cap(next.Buf) {
		if err := k.out.Grow(ctx, next, want); err != nil {
			return nil, err
		}
	}
	buf := append(next.Buf[:0], tail...)
	if err := k.send(ctx); err != nil {
		return nil, err
	}
	k.batch = next
	return buf, nil
}

// send hands the batch on; there is none then.
func (k *batcher) send(ctx context.Context) error {
	b := k.batch
	k.batch = nil
	b.Buf = b.Buf[:cap(b.Buf)]
	if k.id != nil {
		k.end.ReplID = k.id(k.end.Offset)
	}
	b.Snapshot, b.Format, b.Received = k.snapshot, k.format, k.received
	b.End = k.end
	k.sent = k.end
	return k.out.Send(ctx, b)
}

// full hands the batch on if it has enough entries.
func (k *batcher) full() error {
	if len(k.batch.Entries) < haul.BatchEntries {
		return nil
	}
	return k.window.HandOn()
}

// discard gives a batch back that will not be sent.
func (k *batcher) discard() {
	if k.batch != nil {
		k.out.Discard(k.batch)
		k.batch = nil
	}
}

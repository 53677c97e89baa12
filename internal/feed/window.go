// Package feed gives a decoder a growing view of a byte stream: the bytes of the entry in hand stay in one buffer, so
// that they can be carried on without a copy, and an entry that is too large to be kept is walked through instead.
package feed

import (
	"context"
	"io"
)

// Source yields the bytes of a stream in order.
type Source interface {
	// Read waits for at least one byte. It returns io.EOF behind the last byte of a stream that has ended.
	Read(ctx context.Context, p []byte) (int, error)
	// Ready reports whether Read would return without waiting.
	Ready() bool
}

// Keeper owns the buffers of a Window.
type Keeper interface {
	// Roll is asked for room: it returns a buffer that starts with tail, the bytes of the entry in hand read so far,
	// and has room for at least want bytes in all. Bytes before tail belong to entries that are complete.
	Roll(ctx context.Context, tail []byte, want int) ([]byte, error)
	// Idle says that the source has nothing at the moment, so that complete entries should be handed on now. It
	// returns a buffer that starts with tail.
	Idle(ctx context.Context, tail []byte) ([]byte, error)
}

// Window is the view. All positions given to callers are relative to the start of the entry in hand (see Begin), so
// that they stay true when the buffer is exchanged below it. It is used by one goroutine.
//
//	buf: | complete entries | entry in hand, kept | walked through, overwritten | unread |
//	     0                 mark                 floor (once an entry is large) pos     len(buf)
type Window struct {
	src    Source
	keeper Keeper
	ctx    context.Context //nolint:containedctx // one decoding run; passing it to each primitive would cost the hot path
	buf    []byte
	mark   int
	pos    int
	floor  int   // end of the kept part of a large entry, -1 while the entry is kept whole
	gone   int64 // bytes of the entry in hand that were walked through and overwritten
	base   int64 // stream offset of buf[0], less what is gone
	limit  int   // an entry of more bytes is not kept whole
	sum    func([]byte)
	summed int
}

const (
	scratch = 64 << 10 // room in which a large entry is walked through
	trust   = 1 << 20  // room made for a length before its bytes arrive: it may be wrong
)

// New starts a window over src at stream offset off. An entry of more than limit bytes is not kept whole. sum, if any,
// is given every byte that was passed, once and in order, when Sync or Begin is called and as buffers are exchanged.
func New(ctx context.Context, src Source, keeper Keeper, off int64, limit int, sum func([]byte)) *Window {
	return &Window{src: src, keeper: keeper, ctx: ctx, floor: -1, base: off, limit: limit, sum: sum}
}

// Context is that of the decoding run.
func (w *Window) Context() context.Context { return w.ctx }

// Begin makes the next byte the first one of the entry in hand.
func (w *Window) Begin() {
	w.Sync()
	w.base += w.gone
	w.gone = 0
	w.floor = -1
	w.mark = w.pos
}

// Offset is the stream offset of the next byte.
func (w *Window) Offset() int64 { return w.base + w.gone + int64(w.pos) }

// Rel is the number of bytes of the entry in hand that were passed.
func (w *Window) Rel() int64 { return int64(w.pos-w.mark) + w.gone }

// Mark is the index in the keeper's buffer at which the entry in hand starts.
func (w *Window) Mark() int { return w.mark }

// Large reports whether the entry in hand is not kept whole. Kept is then the number of its first bytes that are.
func (w *Window) Large() bool { return w.floor >= 0 }

// Kept returns the bytes of the entry in hand that are in the buffer: all that were passed, or the head of a large one.
func (w *Window) Kept() []byte {
	if w.floor >= 0 {
		return w.buf[w.mark:w.floor]
	}
	return w.buf[w.mark:w.pos]
}

// HandOn lets the keeper hand on what is complete, as if the source had nothing at the moment.
func (w *Window) HandOn() error {
	w.Sync()
	buf, err := w.keeper.Idle(w.ctx, w.buf[w.mark:])
	if err == nil {
		w.exchange(buf)
	}
	return err
}

// Sync gives sum the bytes passed so far.
func (w *Window) Sync() {
	if w.sum != nil && w.summed < w.pos {
		w.sum(w.buf[w.summed:w.pos])
	}
	w.summed = w.pos
}

// Byte passes one byte. At the end of the stream it returns io.EOF if the entry in hand is empty so far, else
// io.ErrUnexpectedEOF, as all reading methods do.
func (w *Window) Byte() (byte, error) {
	if w.pos == len(w.buf) {
		if err := w.need(1); err != nil {
			return 0, err
		}
	}
	b := w.buf[w.pos]
	w.pos++
	return b, nil
}

// Peek returns the next byte without passing it.
func (w *Window) Peek() (byte, error) {
	if w.pos == len(w.buf) {
		if err := w.need(1); err != nil {
			return 0, err
		}
	}
	return w.buf[w.pos], nil
}

// Next passes n bytes and returns them. They are valid until the next call.
func (w *Window) Next(n int) ([]byte, error) {
	if len(w.buf)-w.pos < n {
		if err := w.need(n); err != nil {
			return nil, err
		}
	}
	b := w.buf[w.pos : w.pos+n]
	w.pos += n
	return b, nil
}

// Buffered returns the unread bytes at hand, without waiting for any. Advance passes some of them.
func (w *Window) Buffered() []byte { return w.buf[w.pos:] }

// Advance passes n bytes that Buffered returned.
func (w *Window) Advance(n int) { w.pos += n }

// Keep passes n bytes that stay in the buffer however large the entry becomes, unless it is large already.
func (w *Window) Keep(n int) error {
	limit := w.limit
	w.limit = max(limit, w.pos-w.mark+n)
	_, err := w.Next(n)
	w.limit = limit
	return err
}

// Skip passes n bytes.
func (w *Window) Skip(n int64) error {
	if n <= int64(len(w.buf)-w.pos) {
		w.pos += int(n)
		return nil
	}
	if w.floor < 0 && int64(w.pos-w.mark)+n <= int64(w.limit) {
		_, err := w.Next(int(n))
		return err
	}
	for n > 0 {
		if w.pos == len(w.buf) {
			if err := w.overflow(); err != nil {
				return err
			}
			if err := w.fill(); err != nil {
				return err
			}
		}
		step := min(n, int64(len(w.buf)-w.pos))
		w.pos += int(step)
		n -= step
	}
	return nil
}

// need reads until n bytes are at hand.
func (w *Window) need(n int) error {
	if w.floor < 0 && w.pos-w.mark+n > w.limit {
		if err := w.overflow(); err != nil {
			return err
		}
	}
	for len(w.buf)-w.pos < n {
		ahead := min(n, 2*(len(w.buf)-w.pos)+trust)
		if w.pos+ahead > cap(w.buf) || len(w.buf) == cap(w.buf) {
			if err := w.room(ahead); err != nil {
				return err
			}
		}
		if err := w.fill(); err != nil {
			return err
		}
	}
	return nil
}

// overflow gives up keeping the entry in hand: what was passed so far stays as its head. Once done, it drops the
// bytes that were walked through.
func (w *Window) overflow() error {
	if w.floor < 0 {
		w.floor = w.pos
		if cap(w.buf)-w.pos < scratch {
			return w.roll(len(w.buf) - w.mark + scratch)
		}
		return nil
	}
	w.compact()
	return nil
}

func (w *Window) compact() {
	w.Sync()
	n := copy(w.buf[w.floor:], w.buf[w.pos:])
	w.gone += int64(w.pos - w.floor)
	w.buf = w.buf[:w.floor+n]
	w.pos = w.floor
	w.summed = w.floor
}

// room makes the buffer hold n unread bytes.
func (w *Window) room(n int) error {
	if w.floor >= 0 {
		w.compact()
		if w.pos+n <= cap(w.buf) && len(w.buf) < cap(w.buf) {
			return nil
		}
	}
	return w.roll(max(w.pos-w.mark+n, len(w.buf)-w.mark+1))
}

func (w *Window) roll(want int) error {
	w.Sync()
	buf, err := w.keeper.Roll(w.ctx, w.buf[w.mark:], want)
	if err != nil {
		return err
	}
	w.exchange(buf)
	return nil
}

// exchange takes a buffer that starts with the entry in hand.
func (w *Window) exchange(buf []byte) {
	w.base += int64(w.mark)
	w.pos -= w.mark
	w.summed = w.pos
	if w.floor >= 0 {
		w.floor -= w.mark
	}
	w.mark = 0
	w.buf = buf
}

// reclaim makes free room in a buffer that the keeper has exchanged: the new one may be smaller.
func (w *Window) reclaim() error {
	least := 1
	if w.floor >= 0 {
		least = scratch
		if cap(w.buf)-len(w.buf) < least {
			w.compact()
		}
	}
	if cap(w.buf)-len(w.buf) < least {
		return w.roll(len(w.buf) - w.mark + least)
	}
	return nil
}

// fill reads once from the source into free room.
func (w *Window) fill() error {
	if !w.src.Ready() {
		if err := w.HandOn(); err != nil {
			return err
		}
		if err := w.reclaim(); err != nil {
			return err
		}
	}
	n, err := w.src.Read(w.ctx, w.buf[len(w.buf):cap(w.buf)])
	w.buf = w.buf[:len(w.buf)+n]
	if n > 0 {
		return nil
	}
	if err == io.EOF && w.Rel() > 0 || err == io.EOF && len(w.buf) > w.pos { //nolint:errorlint // Source returns the value itself
		return io.ErrUnexpectedEOF
	}
	return err
}

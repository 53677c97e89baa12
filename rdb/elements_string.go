package rdb

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// str passes an encoded string and returns what it says: bytes of the value itself if it is in memory and not encoded,
// else of scratch.
func (w *walker) str(scratch *[]byte) ([]byte, error) {
	h, err := w.stringHead()
	if err != nil {
		return nil, err
	}
	switch h.enc {
	case encPlain:
		return w.take(h.size, scratch)
	case encLZF:
		packed, err := w.take(h.size, &w.packed)
		if err != nil {
			return nil, err
		}
		*scratch, err = appendLZF((*scratch)[:0], packed, int(min(h.raw, 1<<40)))
		if err != nil {
			return nil, fmt.Errorf("%w: a compressed string", ErrCorrupt)
		}
		return *scratch, nil
	}
	p, err := w.fixed(int(h.size))
	if err != nil {
		return nil, err
	}
	*scratch = strconv.AppendInt((*scratch)[:0], littleInt(p), 10)
	return *scratch, nil
}

// littleInt returns the signed integer that one to eight bytes hold, the lowest first.
func littleInt(p []byte) int64 {
	switch len(p) {
	case 1:
		return int64(int8(p[0]))
	case 2:
		return int64(int16(binary.LittleEndian.Uint16(p)))
	case 3:
		return int64(int32(uint32(p[0])<<8|uint32(p[1])<<16|uint32(p[2])<<24) >> 8)
	case 4:
		return int64(int32(binary.LittleEndian.Uint32(p)))
	}
	return int64(binary.LittleEndian.Uint64(p))
}

// pieces emits a string of the top level.
func (w *walker) pieces() error {
	if err := w.fill(1); err != nil {
		return err
	}
	from := w.pos
	h, err := w.stringHead()
	switch {
	case err != nil:
		return err
	case h.enc == encPlain:
		return w.plainPieces(h.size)
	case h.enc == encLZF:
		return w.lzfPieces(h)
	}
	w.pos = from
	text, err := w.str(&w.text)
	if err != nil {
		return err
	}
	w.begin(ElementPiece, uint64(len(text)))
	w.e.Value = text
	return w.send()
}

func (w *walker) plainPieces(n uint64) error {
	w.begin(ElementPiece, n)
	for {
		p, err := w.fixed(int(min(n, pieceSize)))
		if err != nil {
			return err
		}
		w.e.Value = p
		if err := w.send(); err != nil {
			return err
		}
		if n -= uint64(len(p)); n == 0 {
			return nil
		}
	}
}

// lzfReach is how far back a reference may point.
const lzfReach = 8 << 10

// lzfPieces emits a compressed string as it comes, of which no more is kept than references may reach.
func (w *walker) lzfPieces(h stringHead) error {
	w.begin(ElementPiece, h.raw)
	end := w.offset() + int64(min(h.size, math.MaxInt64/2))
	out, emitted, total := w.text[:0], 0, uint64(0)
	for w.offset() < end {
		if err := w.fill(int(min(lzfLongest, end-w.offset()))); err != nil {
			return err
		}
		in := w.buf[w.pos:]
		in = in[:min(int64(len(in)), end-w.offset())]
		before := len(out)
		var used int
		if out, used = lzfSteps(out, in, 0, emitted+pieceSize); used == 0 {
			return fmt.Errorf("%w: a compressed string", ErrCorrupt)
		}
		w.pos += used
		if total += uint64(len(out) - before); total > h.raw {
			break
		}
		if len(out)-emitted < pieceSize {
			continue
		}
		w.e.Value = out[emitted:]
		if err := w.send(); err != nil {
			return err
		}
		out = out[:copy(out, out[len(out)-lzfReach:])]
		emitted = len(out)
	}
	w.text = out
	if total != h.raw {
		return fmt.Errorf("%w: a compressed string is not of the size that it says", ErrCorrupt)
	}
	if emitted > 0 && emitted == len(out) {
		return nil
	}
	w.e.Value = out[emitted:]
	return w.send()
}

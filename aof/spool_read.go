package aof

import (
	"context"
	"fmt"
	"io"
)

// Reader reads the spool in order. It is a feed.Source for one goroutine.
type Reader struct {
	s     *Spool
	off   int64
	cache []byte // a block from disk
	at    int64  // its offset
	buf   []byte
}

// Reader starts at the spool's first byte.
func (s *Spool) Reader() *Reader { return s.ReaderAt(s.start) }

// ReaderAt starts at offset off. Only one Reader of a spool may wait for bytes at a time.
func (s *Spool) ReaderAt(off int64) *Reader { return &Reader{s: s, off: off} }

// Ready reports whether Read would return without waiting.
func (r *Reader) Ready() bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.off < r.s.end || r.s.ended
}

// Read waits for bytes and copies as many as fit into p.
func (r *Reader) Read(ctx context.Context, p []byte) (int, error) {
	for {
		n, err := r.read(p)
		if n > 0 || err != nil {
			return n, err
		}
		select {
		case <-r.s.readable:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (r *Reader) read(p []byte) (int, error) {
	if i := r.off - r.at; i >= 0 && i < int64(len(r.cache)) {
		n := copy(p, r.cache[i:])
		r.off += int64(n)
		return n, nil
	}
	n, g, ref, err := r.s.locate(p, r.off)
	if n > 0 || err != nil {
		r.off += int64(n)
		return n, err
	}
	if g == "" {
		return 0, nil
	}
	if cap(r.buf) == 0 {
		r.buf = make([]byte, blockHeader+blockBytes)
	}
	if r.cache, err = readBlock(g, ref, r.buf); err != nil {
		return 0, err
	}
	r.at = ref.off
	return r.read(p)
}

// locate copies bytes at off from memory, or names the block on disk that has them, or returns nothing if there are
// none yet.
func (s *Spool) locate(p []byte, off int64) (n int, path string, ref blockRef, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if off >= s.end {
		if s.ended {
			err = io.EOF
		}
		return 0, "", ref, err
	}
	if len(s.blocks) > 0 && off >= s.blocks[0].off {
		b := s.blocks[s.inMemory(off)]
		return copy(p, b.data[off-b.off:]), "", ref, nil
	}
	for i := len(s.segments) - 1; i >= 0; i-- {
		if g := s.segments[i]; g.from <= off && off < g.end() {
			return 0, g.path, g.find(off), nil
		}
	}
	return 0, "", ref, fmt.Errorf("spool: offset %d is gone, it holds %d to %d", off, s.trimmed, s.end)
}

// inMemory finds the block with off. All blocks but the first and the last have one size.
func (s *Spool) inMemory(off int64) int {
	if off < s.blocks[0].end() {
		return 0
	}
	return 1 + int((off-s.blocks[0].end())/blockBytes)
}

// ReadAt fills p from offset off on, all of which must have been received.
func (s *Spool) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	var buf []byte
	for done < len(p) {
		n, path, ref, err := s.locate(p[done:], off+int64(done))
		if err != nil {
			return done, err
		}
		if n == 0 && path == "" {
			return done, io.ErrUnexpectedEOF
		}
		if n == 0 {
			if buf == nil {
				buf = make([]byte, blockHeader+blockBytes)
			}
			data, err := readBlock(path, ref, buf)
			if err != nil {
				return done, err
			}
			n = copy(p[done:], data[off+int64(done)-ref.off:])
		}
		done += n
	}
	return done, nil
}

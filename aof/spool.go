package aof

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// ErrFull says that the spool has reached its limit, or that the disk is full.
var ErrFull = errors.New("spool is full")

// Lineage says which replication history bytes belong to: the primary's replication id, and how many full syncs of
// this haul began before.
type Lineage struct {
	ReplID     string
	Generation uint64
}

// Budget bounds the bytes that several spools hold together, on disk or, without a directory, in memory.
type Budget struct {
	Max  int64
	used atomic.Int64
}

// Used returns the bytes held.
func (b *Budget) Used() int64 { return b.used.Load() }

func (b *Budget) full() bool { return b.used.Load() >= b.Max }

// SpoolConfig describes a spool.
type SpoolConfig struct {
	Dir    string // where segments are; empty: memory only
	Kind   string // SpoolSnapshot or SpoolStream
	Window int64  // bytes kept in memory for a reader that keeps up; the budget's bound without a directory
	Budget *Budget
	Log    zerolog.Logger
}

const flushEvery = 100 * time.Millisecond

// Spool takes the bytes of a link as fast as its socket yields them, and gives them to a reader that follows, from
// memory as long as it keeps up and from segments on disk otherwise. One goroutine receives, one runs Run, one reads
// through a Reader; ReadAt may be used by any.
type Spool struct {
	cfg     SpoolConfig
	lineage Lineage

	mu       sync.Mutex
	blocks   []*block // in memory, consecutive; the last one is being filled
	unused   []*block
	start    int64
	end      int64 // behind the last byte received
	flushed  int64 // behind the last byte on disk
	trimmed  int64 // nothing before it is needed any more
	segments []*segment
	ended    bool
	diskErr  error
	samples  []sample

	readable  chan struct{}
	writable  chan struct{}
	flushable chan struct{}
	urgent    chan struct{} // a block is full, or the end is reached

	current *segment // being written, by the goroutine of Run alone
}

type block struct {
	off  int64
	data []byte // len: bytes filled
	at   time.Time
}

func (b *block) end() int64 { return b.off + int64(len(b.data)) }

type sample struct {
	end int64
	at  time.Time
}

// NewSpool returns a spool whose first byte has stream offset start.
func NewSpool(cfg SpoolConfig, l Lineage, start int64) *Spool {
	return &Spool{
		cfg: cfg, lineage: l, start: start, end: start, flushed: start, trimmed: start,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		flushable: make(chan struct{}, 1), urgent: make(chan struct{}, 1),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Buffer returns room to receive into, waiting while the disk is behind. It returns ErrFull at the limit.
func (s *Spool) Buffer(ctx context.Context) ([]byte, error) {
	for {
		room, err := s.buffer()
		if room != nil || err != nil {
			return room, err
		}
		select {
		case <-s.writable:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (s *Spool) buffer() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.blocks); n > 0 {
		if b := s.blocks[n-1]; len(b.data) < cap(b.data) {
			return b.data[len(b.data):cap(b.data)], nil
		}
	}
	if s.cfg.Budget.full() {
		return nil, ErrFull
	}
	b := s.spare()
	if b == nil {
		if s.diskErr != nil {
			return nil, fmt.Errorf("%w: %w", ErrFull, s.diskErr)
		}
		return nil, nil
	}
	b.off = s.end
	s.blocks = append(s.blocks, b)
	return b.data[:cap(b.data)], nil
}

// spare returns a block to fill: an unused one, or the oldest that memory need not hold any longer.
func (s *Spool) spare() *block {
	if n := len(s.unused); n > 0 {
		b := s.unused[n-1]
		s.unused = s.unused[:n-1]
		return b
	}
	if s.cfg.Dir == "" {
		s.cfg.Budget.used.Add(blockBytes)
		return &block{data: make([]byte, 0, blockBytes)}
	}
	if int64(len(s.blocks))*blockBytes < s.cfg.Window {
		return &block{data: make([]byte, 0, blockBytes)}
	}
	if b := s.blocks[0]; b.end() <= s.flushed {
		copy(s.blocks, s.blocks[1:])
		s.blocks = s.blocks[:len(s.blocks)-1]
		b.data = b.data[:0]
		return b
	}
	return nil
}

// Commit says that n bytes were received into what Buffer returned last.
func (s *Spool) Commit(n int) {
	now := time.Now()
	s.mu.Lock()
	b := s.blocks[len(s.blocks)-1]
	if len(b.data) == 0 {
		b.at = now
	}
	b.data = b.data[:len(b.data)+n]
	s.end += int64(n)
	full := len(b.data) == cap(b.data)
	if k := len(s.samples); k == 0 || now.Sub(s.samples[k-1].at) >= flushEvery {
		s.samples = append(s.samples, sample{s.end, now})
	} else {
		s.samples[k-1].end = s.end
	}
	s.mu.Unlock()
	signal(s.readable)
	if full {
		signal(s.urgent)
	} else {
		signal(s.flushable)
	}
}

// Write takes a copy of p. It waits and fails as Buffer does.
func (s *Spool) Write(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		room, err := s.Buffer(ctx)
		if err != nil {
			return err
		}
		n := copy(room, p)
		s.Commit(n)
		p = p[n:]
	}
	return nil
}

// Finish says that no more bytes will come: readers see io.EOF at the end.
func (s *Spool) Finish() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	signal(s.readable)
	signal(s.urgent)
}

// End returns the offset behind the last byte received.
func (s *Spool) End() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end
}

// Oldest returns when the first byte behind off was received, to a tenth of a second; zero if there is none.
func (s *Spool) Oldest(off int64) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := 0
	for i < len(s.samples) && s.samples[i].end <= off {
		i++
	}
	s.samples = s.samples[:copy(s.samples, s.samples[i:])]
	if len(s.samples) == 0 {
		return time.Time{}
	}
	return s.samples[0].at
}

// Trim says that bytes before off are not needed any more: their segments are removed, their memory is reused.
func (s *Spool) Trim(off int64) {
	s.mu.Lock()
	s.trimmed = max(s.trimmed, min(off, s.end))
	var gone []*segment
	for len(s.segments) > 0 && s.segments[0].closed && s.segments[0].end() <= s.trimmed {
		gone = append(gone, s.segments[0])
		s.segments = s.segments[1:]
	}
	if s.cfg.Dir == "" {
		n := 0
		for n < len(s.blocks)-1 && s.blocks[n].end() <= s.trimmed {
			n++
		}
		s.cfg.Budget.used.Add(int64(-n) * blockBytes)
		clear(s.blocks[:n])
		s.blocks = s.blocks[n:]
	}
	s.mu.Unlock()
	for _, g := range gone {
		s.remove(g)
	}
	signal(s.writable)
}

func (s *Spool) remove(g *segment) {
	if err := os.Remove(g.path); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("a segment of the spool could not be removed")
	}
	s.cfg.Budget.used.Add(-g.size)
}

// Run writes what is received to disk until ctx ends, and then what is left. It does nothing without a directory.
func (s *Spool) Run(ctx context.Context) error {
	if s.cfg.Dir == "" {
		<-ctx.Done()
		return nil
	}
	timer := time.NewTimer(flushEvery)
	defer timer.Stop()
	for ctx.Err() == nil {
		n, full := s.unflushed()
		switch {
		case n == 0:
			select {
			case <-s.flushable:
			case <-s.urgent:
			case <-ctx.Done():
			}
			continue
		case !full:
			timer.Reset(flushEvery)
			select {
			case <-timer.C:
			case <-s.urgent:
			case <-ctx.Done():
			}
		}
		if err := s.flush(); err != nil && s.wait(ctx, err) {
			continue
		}
	}
	for {
		if n, _ := s.unflushed(); n == 0 || s.flush() != nil {
			break
		}
	}
	return s.closeSegment()
}

// wait notes a failed write and waits before the next try.
func (s *Spool) wait(ctx context.Context, err error) bool {
	s.mu.Lock()
	first := s.diskErr == nil
	s.diskErr = err
	s.mu.Unlock()
	signal(s.writable)
	if first {
		s.cfg.Log.Error().Err(err).Str("dir", s.cfg.Dir).
			Msg("the spool cannot write to its disk; the source is read on as long as memory allows, free some space")
	}
	select {
	case <-time.After(time.Second):
		return true
	case <-ctx.Done():
		return false
	}
}

// unflushed returns the bytes of the oldest block that are not on disk, and whether it will get no more.
func (s *Spool) unflushed() (n int64, full bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.unflushedBlock()
	if b == nil {
		return 0, false
	}
	return b.end() - s.flushed, len(b.data) == cap(b.data) || s.ended
}

func (s *Spool) unflushedBlock() *block {
	for i := len(s.blocks) - 1; i >= 0; i-- {
		if b := s.blocks[i]; b.off <= s.flushed {
			if b.end() > s.flushed {
				return b
			}
			if i+1 < len(s.blocks) && s.blocks[i+1].end() > s.flushed {
				return s.blocks[i+1]
			}
			return nil
		}
	}
	return nil
}

// flush writes the bytes of the oldest block that are not on disk yet.
func (s *Spool) flush() error {
	s.mu.Lock()
	b := s.unflushedBlock()
	if b == nil {
		s.mu.Unlock()
		return nil
	}
	from, to, at := s.flushed, b.end(), b.at
	p := b.data[from-b.off : to-b.off]
	s.mu.Unlock() // the bytes stay: an unflushed block is never reused
	g, err := s.segment(from)
	if err != nil {
		return err
	}
	if err := g.appendBlock(p, from, at); err != nil {
		return err
	}
	s.mu.Lock()
	size := int64(blockHeader + len(p))
	g.blocks = append(g.blocks, blockRef{from, g.size, int32(len(p))})
	g.size += size
	if len(g.blocks) == 1 {
		s.segments = append(s.segments, g)
		size += segmentHeader
	}
	s.flushed = to
	s.diskErr = nil
	s.mu.Unlock()
	s.cfg.Budget.used.Add(size)
	signal(s.writable)
	return nil
}

// segment returns the segment to write to, a new one if the last is full or old.
func (s *Spool) segment(from int64) (*segment, error) {
	if g := s.current; g != nil && g.size < min(segmentBytes, s.cfg.Budget.Max/segmentShare) && time.Since(g.born) < segmentAge {
		return g, nil
	}
	if err := s.closeSegment(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	g, err := createSegment(s.cfg.Dir, s.cfg.Kind, s.lineage, from)
	s.current = g
	return g, err
}

func (s *Spool) closeSegment() error {
	g := s.current
	if g == nil {
		return nil
	}
	s.current = nil
	err := g.file.Close()
	s.mu.Lock()
	g.closed = true
	s.mu.Unlock()
	return err
}

// Remove deletes every segment. Run must have returned.
func (s *Spool) Remove() {
	s.mu.Lock()
	gone := s.segments
	s.segments = nil
	if s.cfg.Dir == "" {
		s.cfg.Budget.used.Add(-blockBytes * int64(len(s.blocks)+len(s.unused)))
	}
	s.blocks, s.unused = nil, nil
	s.mu.Unlock()
	for _, g := range gone {
		s.remove(g)
	}
}

// RemoveSegments deletes the segments that an earlier process left in dir.
func RemoveSegments(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "*.seg"))
	if err != nil {
		return err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// Reader reads the spool in order. It is a feed.Source for one goroutine.
type Reader struct {
	s     *Spool
	off   int64
	cache []byte // a block from disk
	at    int64  // its offset
	buf   []byte
}

// Reader starts at the spool's first byte.
func (s *Spool) Reader() *Reader { return &Reader{s: s, off: s.start} }

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
		if g := s.segments[i]; g.first() <= off && off < g.end() {
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
			data, err := readBlock(path, ref, buf)
			if err != nil {
				return done, err
			}
			buf = data
			n = copy(p[done:], data[off+int64(done)-ref.off:])
		}
		done += n
	}
	return done, nil
}

// DiskError returns why the last write to disk failed, nil if it did not.
func (s *Spool) DiskError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.diskErr
}

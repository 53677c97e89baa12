package aof

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// ErrFull says that the spool has reached its limit, or that the disk is full.
var ErrFull = errors.New("spool is full")

// Lineage says which replication history bytes belong to: the primary's replication id, and the full sync that
// it began with: generations grow, and no two hauls share one.
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
// through a Reader; the rest may be used by any, except Remove and Close: those wait for Run's end.
type Spool struct {
	cfg SpoolConfig

	mu       sync.Mutex
	lineage  Lineage    // of the segment that is written next
	ids      []idChange // that are not on disk yet
	blocks   []*block   // in memory, consecutive; the last one is being filled
	start    int64
	end      int64 // behind the last byte received
	flushed  int64 // behind the last byte on disk
	trimmed  int64 // nothing before it is needed any more
	segments []*segment
	ended    bool
	diskErr  error
	samples  []sample
	since    time.Time // the first byte that is not on disk was received then or later

	readable  chan struct{}
	writable  chan struct{}
	flushable chan struct{}
	urgent    chan struct{} // a block is full, or the end is reached
	syncable  chan struct{} // a segment is closed

	io      sync.Mutex // held while files are written or begun: by Run or Sync; taken before mu
	current *segment   // being written, under io
	joined  bool       // segments that this spool does not know are none of it, under io
}

// idChange says that bytes from an offset on belong to another replication id.
type idChange struct {
	off int64
	id  string
}

type block struct {
	off  int64
	data []byte // len: bytes filled
	at   time.Time
}

func (b *block) end() int64 { return b.off + int64(len(b.data)) }

func (b *block) full() bool { return len(b.data) == cap(b.data) }

type sample struct {
	end int64
	at  time.Time
}

// NewSpool returns a spool whose first byte has stream offset start. What an earlier process left of this kind and
// generation is removed when the first segment is begun: it would stand between this spool's own bytes.
func NewSpool(cfg SpoolConfig, l Lineage, start int64) *Spool {
	return &Spool{
		cfg: cfg, lineage: l, start: start, end: start, flushed: start, trimmed: start,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1),
		flushable: make(chan struct{}, 1), urgent: make(chan struct{}, 1), syncable: make(chan struct{}, 1),
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
		if b := s.blocks[n-1]; !b.full() {
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

// spare returns a block to fill: a new one, or the oldest that memory need not hold any longer.
func (s *Spool) spare() *block {
	if s.cfg.Dir == "" {
		s.cfg.Budget.used.Add(blockBytes)
		return &block{data: make([]byte, 0, blockBytes)}
	}
	if len(s.blocks) == 0 || int64(len(s.blocks))*blockBytes < s.cfg.Window {
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
	if s.flushed == s.end {
		s.since = now
	}
	b.data = b.data[:len(b.data)+n]
	s.end += int64(n)
	full := b.full()
	s.addSample(sample{s.end, now})
	s.mu.Unlock()
	signal(s.readable)
	if full {
		signal(s.urgent)
	} else {
		signal(s.flushable)
	}
}

func (s *Spool) addSample(a sample) {
	if k := len(s.samples); k == 0 || a.at.Sub(s.samples[k-1].at) >= flushEvery {
		s.samples = append(s.samples, a)
	} else {
		s.samples[k-1].end = a.end
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

// Start returns the offset of the first byte that is still held; End's, if none is. It rises with Trim.
func (s *Spool) Start() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.end
	if len(s.segments) > 0 {
		first = min(first, s.segments[0].from)
	}
	if len(s.blocks) > 0 {
		first = min(first, s.blocks[0].off)
	}
	return first
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
	i := sort.Search(len(s.samples), func(i int) bool { return s.samples[i].end > off })
	if i == len(s.samples) {
		return time.Time{}
	}
	return s.samples[i].at
}

// forget drops the samples of bytes before off. It is called with the lock held.
func (s *Spool) forget(off int64) {
	i := 0
	for i < len(s.samples) && s.samples[i].end <= off {
		i++
	}
	s.samples = slices.Delete(s.samples, 0, i)
}

// DiskError returns why the last write to disk failed, nil if it did not.
func (s *Spool) DiskError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.diskErr
}

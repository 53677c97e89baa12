package checkpoint

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"sync"
)

// PutOff lists the keys whose deadlines were put off, so that Finish need not look for them. It may list others too, but
// from Begin to Forget all are told to it. It keeps them in a file without a name, and forgets all when there are too
// many or the disk fails. nil lists nothing and forgets everything.
type PutOff struct {
	dir  string
	seed maphash.Seed

	mu   sync.Mutex
	file *os.File // nil: any deadline may have been put off
	out  *bufio.Writer
	size int64 // of what was written to out
	buf  []byte

	// changed has a bit for keys whose deadline may be another than the one that was listed, by their hash.
	changed *[changedWords]uint64
	lately  *[latelySize]uint64 // hashes of keys that are listed as changed, so that a busy one is listed but once
}

const (
	changedWords = 1 << 19 // 4 MiB, of which only what is touched costs memory
	latelySize   = 1 << 16
	putOffMax    = 1 << 28 // bytes of the file
	putOffBuffer = 32 << 10
	unknown      = -1 // in place of a deadline
)

// NewPutOff knows nothing until Begin. It will write to dir; with an empty dir it goes on knowing nothing.
func NewPutOff(dir string) *PutOff { return &PutOff{dir: dir, seed: maphash.MakeSeed()} }

// Begin says that no deadline was put off yet, and that Add and Change will tell of all that are.
func (p *PutOff) Begin() {
	if p == nil {
		return
	}
	p.Forget()
	if p.dir == "" {
		return
	}
	file, err := nameless(p.dir, "deadlines-*")
	if err != nil {
		return // Finish looks for them then
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.file, p.out, p.size, p.changed = file, bufio.NewWriterSize(file, putOffBuffer), 0, new([changedWords]uint64)
	p.lately = new([latelySize]uint64)
}

// Forget says that any deadline may have been put off.
func (p *PutOff) Forget() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
}

func (p *PutOff) forget() {
	if p.file != nil {
		_ = p.file.Close()
	}
	p.file, p.out, p.changed, p.lately = nil, nil, nil, nil
}

// Known reports whether all that were put off are listed.
func (p *PutOff) Known() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.file != nil
}

// Add says that a key has got a deadline that was put off, and which it is truly, in ms of unix time.
func (p *PutOff) Add(db int32, key []byte, deadline int64) { p.list(db, key, max(deadline, 0)) }

// Change says that a key may have got another deadline, that was put off.
func (p *PutOff) Change(db int32, key []byte) { p.list(db, key, unknown) }

func (p *PutOff) list(db int32, key []byte, deadline int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return
	}
	if deadline == unknown {
		hash := p.hash(db, key)
		p.changed[hash>>6%changedWords] |= 1 << (hash & 63)
		last := &p.lately[hash%latelySize]
		if *last == hash {
			return
		}
		*last = hash
	}
	b := binary.AppendUvarint(p.buf[:0], uint64(db))
	b = binary.AppendVarint(b, deadline)
	b = binary.AppendUvarint(b, uint64(len(key)))
	p.buf = append(b, key...)
	p.size += int64(len(p.buf))
	if _, err := p.out.Write(p.buf); err != nil || p.size > putOffMax {
		p.forget()
	}
}

func (p *PutOff) hash(db int32, key []byte) uint64 {
	return maphash.Bytes(p.seed, key) + uint64(db)*0x9e3779b97f4a7c15
}

var errNotListed = errors.New("it is not known which deadlines were put off")

// each calls fn for every listed key, for some more than once. deadline is its true one, or unknown. fn must not keep
// key, nor add to the list.
func (p *PutOff) each(fn func(db int32, key []byte, deadline int64) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.file == nil {
		return errNotListed
	}
	err := p.out.Flush()
	in := bufio.NewReaderSize(io.NewSectionReader(p.file, 0, p.size), putOffBuffer)
	for err == nil {
		var db, size uint64
		var deadline int64
		if db, err = binary.ReadUvarint(in); err == io.EOF { //nolint:errorlint // the end between two of them
			return nil
		}
		if err == nil {
			deadline, err = binary.ReadVarint(in)
		}
		if err == nil {
			size, err = binary.ReadUvarint(in)
		}
		if err != nil {
			break
		}
		if uint64(cap(p.buf)) < size {
			p.buf = make([]byte, size)
		}
		key := p.buf[:size]
		if _, err = io.ReadFull(in, key); err != nil {
			break
		}
		if hash := p.hash(int32(db), key); p.changed[hash>>6%changedWords]&(1<<(hash&63)) != 0 {
			deadline = unknown
		}
		if err := fn(int32(db), key, deadline); err != nil {
			return err
		}
	}
	p.forget()
	return fmt.Errorf("reading what was put off: %w", err)
}

// nameless opens a file in dir for this user only (mode 0600), and takes its name away: none is left however the
// program ends.
func nameless(dir, pattern string) (*os.File, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

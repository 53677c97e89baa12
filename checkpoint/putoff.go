package checkpoint

import (
	"hash/maphash"
	"sync/atomic"
)

// PutOff knows for which keys a deadline may have been put off, so that Finish need not ask about the others. It may
// take a key for one of those, but never the other way round. nil knows nothing, and takes every key for one.
type PutOff struct {
	seed maphash.Seed
	bits atomic.Pointer[[putOffWords]atomic.Uint64] // nil: any key
}

const putOffWords = 1 << 19 // 4 MiB, of which only what is touched costs memory

// NewPutOff knows nothing until Begin.
func NewPutOff() *PutOff { return &PutOff{seed: maphash.MakeSeed()} }

// Begin says that no deadline was put off yet, and that Add will tell of all that are.
func (p *PutOff) Begin() {
	if p != nil {
		p.bits.Store(new([putOffWords]atomic.Uint64))
	}
}

// Forget says that any deadline may have been put off.
func (p *PutOff) Forget() {
	if p != nil {
		p.bits.Store(nil)
	}
}

// Add says that the deadline of a key may have been put off.
func (p *PutOff) Add(db int32, key []byte) {
	if p == nil {
		return
	}
	if bits := p.bits.Load(); bits != nil {
		word, bit := place64(maphash.Bytes(p.seed, key), db)
		bits[word].Or(bit)
	}
}

// has reports whether it may have been.
func (p *PutOff) has(db int32, key string) bool {
	if p == nil {
		return true
	}
	bits := p.bits.Load()
	if bits == nil {
		return true
	}
	word, bit := place64(maphash.String(p.seed, key), db)
	return bits[word].Load()&bit != 0
}

func place64(hash uint64, db int32) (word, bit uint64) {
	hash += uint64(db) * 0x9e3779b97f4a7c15
	return hash >> 6 % putOffWords, 1 << (hash & 63)
}

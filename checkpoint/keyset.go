package checkpoint

import (
	"bufio"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"slices"
	"sort"
)

const (
	hashSize  = 8
	blockSize = 512     // hashes to each entry of the index: 4 KiB of the file
	runHashes = 1 << 20 // in memory before they are spilled: 8 MiB
	runBuffer = 16 << 10
)

// KeySet is a set of keys and their databases, kept as hashes of 64 bits: of 100 million keys one in 2·10¹¹ others is
// taken for a member. With a directory it needs memory for 1<<20 hashes and for an index of one in 512. Add is called
// by one goroutine, then Seal, then Has by any number at once.
type KeySet struct {
	dir  string
	run  int // hashes in memory
	seed maphash.Seed

	recent []uint64 // all hashes, if there is no directory
	runs   []int64  // number of hashes of each sorted run in spill, one behind the other
	spill  *os.File
	sealed bool

	sorted *os.File // all hashes in order
	index  []uint64 // first hash of each block in sorted
	count  int64    // of hashes in sorted
}

// NewKeySet returns an empty set. It keeps what does not fit into memory in dir, in files without a name, so that none
// is left however the program ends; with an empty dir it keeps everything in memory.
func NewKeySet(dir string) *KeySet {
	return &KeySet{dir: dir, run: runHashes, seed: maphash.MakeSeed()}
}

func (k *KeySet) hash(db int32, key []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(k.seed)
	var prefix [4]byte
	binary.LittleEndian.PutUint32(prefix[:], uint32(db))
	_, _ = h.Write(prefix[:])
	_, _ = h.Write(key)
	return h.Sum64()
}

// Add puts a key into the set.
func (k *KeySet) Add(db int32, key []byte) error {
	if k.sealed {
		return errors.New("key set: a key is added after Seal")
	}
	k.recent = append(k.recent, k.hash(db, key))
	if k.dir == "" || len(k.recent) < k.run {
		return nil
	}
	return k.spillRun()
}

// spillRun writes what is in memory behind the earlier runs.
func (k *KeySet) spillRun() error {
	if k.spill == nil {
		var err error
		if k.spill, err = k.create(); err != nil {
			return err
		}
	}
	slices.Sort(k.recent)
	w := bufio.NewWriterSize(k.spill, 1<<20)
	for _, h := range k.recent {
		if err := writeHash(w, h); err != nil {
			return fmt.Errorf("key set: %w", err)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("key set: %w", err)
	}
	k.runs = append(k.runs, int64(len(k.recent)))
	k.recent = k.recent[:0]
	return nil
}

func (k *KeySet) create() (*os.File, error) {
	f, err := nameless(k.dir, "keys-*")
	if err != nil {
		return nil, fmt.Errorf("key set: %w", err)
	}
	return f, nil
}

func writeHash(w *bufio.Writer, h uint64) error {
	var b [hashSize]byte
	binary.BigEndian.PutUint64(b[:], h)
	_, err := w.Write(b[:])
	return err
}

// Seal ends adding and makes the set ready to be asked.
func (k *KeySet) Seal() error {
	if k.sealed {
		return nil
	}
	if k.spill == nil { // everything fits
		slices.Sort(k.recent)
		k.sealed = true
		return nil
	}
	if len(k.recent) > 0 {
		if err := k.spillRun(); err != nil {
			return err
		}
	}
	if err := k.merge(); err != nil {
		return fmt.Errorf("key set: %w", err)
	}
	k.recent, k.sealed = nil, true
	err := k.spill.Close()
	k.spill = nil
	return err
}

// merge writes the runs as one sorted file without duplicates.
func (k *KeySet) merge() error {
	var err error
	if k.sorted, err = k.create(); err != nil {
		return err
	}
	var sources runHeap
	var at int64
	for _, n := range k.runs {
		r := &run{from: bufio.NewReaderSize(io.NewSectionReader(k.spill, at*hashSize, n*hashSize), runBuffer)}
		if err := r.next(); err != nil {
			return err
		}
		sources = append(sources, r)
		at += n
	}
	heap.Init(&sources)
	w := bufio.NewWriterSize(k.sorted, 1<<20)
	var last uint64
	for len(sources) > 0 {
		r := sources[0]
		if r.head != last || k.count == 0 {
			last = r.head
			if k.count%blockSize == 0 {
				k.index = append(k.index, last)
			}
			k.count++
			if err := writeHash(w, last); err != nil {
				return err
			}
		}
		switch err := r.next(); {
		case err == nil:
			heap.Fix(&sources, 0)
		case errors.Is(err, io.EOF):
			heap.Pop(&sources)
		default:
			return err
		}
	}
	return w.Flush()
}

// Has tells whether a key is in the set.
func (k *KeySet) Has(db int32, key []byte) (bool, error) {
	if !k.sealed {
		return false, errors.New("key set: it is asked before Seal")
	}
	h := k.hash(db, key)
	if k.sorted == nil {
		_, found := slices.BinarySearch(k.recent, h)
		return found, nil
	}
	block, exact := slices.BinarySearch(k.index, h)
	if exact || block == 0 {
		return exact, nil
	}
	var b [blockSize * hashSize]byte
	first := int64(block-1) * blockSize
	n := int(min(blockSize, k.count-first))
	if _, err := k.sorted.ReadAt(b[:n*hashSize], first*hashSize); err != nil {
		return false, fmt.Errorf("key set: %w", err)
	}
	at := func(i int) uint64 { return binary.BigEndian.Uint64(b[i*hashSize:]) }
	i := sort.Search(n, func(i int) bool { return at(i) >= h })
	return i < n && at(i) == h, nil
}

// Close frees memory and files. The set cannot be used any more.
func (k *KeySet) Close() error {
	k.sealed, k.recent, k.index = false, nil, nil
	var errs []error
	for _, f := range []**os.File{&k.spill, &k.sorted} {
		if *f != nil {
			errs = append(errs, (*f).Close())
			*f = nil
		}
	}
	return errors.Join(errs...)
}

// run is a sorted run that is being read.
type run struct {
	from *bufio.Reader
	head uint64
}

func (r *run) next() error {
	var b [hashSize]byte
	if _, err := io.ReadFull(r.from, b[:]); err != nil {
		return err
	}
	r.head = binary.BigEndian.Uint64(b[:])
	return nil
}

// runHeap has the run with the lowest head first.
type runHeap []*run

func (h runHeap) Len() int           { return len(h) }
func (h runHeap) Less(i, j int) bool { return h[i].head < h[j].head }
func (h runHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *runHeap) Push(x any)        { *h = append(*h, x.(*run)) }

// Pop removes the last run.
func (h *runHeap) Pop() any {
	all := *h
	last := all[len(all)-1]
	*h = all[:len(all)-1]
	return last
}

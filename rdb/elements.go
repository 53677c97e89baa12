package rdb

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"strconv"
	"sync"
)

// Elements walks the bytes of a value, which r yields from behind the type byte to the value's end, and gives emit each
// element in order. The element and all its bytes are emit's until it returns. A string has at least one piece, pieces
// are of some 64 KiB. What has no elements (an empty list) emits none.
//
// In memory are at most one string or one packed node of the value, and what one consumer group of a stream has
// pending (some 40 bytes an entry); a length that the bytes do not keep allocates nothing. Errors of the bytes are a
// *ValueError around ErrCorrupt, ErrTruncated or ErrUnsupported (values of modules); those of r and emit come as they are.
// What follows the value in r is ErrCorrupt. Any number of calls may run at once.
func (v Value) Elements(r io.Reader, emit func(*Element) error) error {
	w, _ := walkers.Get().(*walker)
	if cap(w.window) == 0 {
		w.window = make([]byte, 0, pieceSize)
	}
	w.cursor = cursor{r: r, buf: w.window[:0]}
	return w.run(v, emit)
}

// ElementsOf is Elements for a value that is in memory, without a copy of its bytes.
func (v Value) ElementsOf(body []byte, emit func(*Element) error) error {
	w, _ := walkers.Get().(*walker)
	w.cursor = cursor{buf: body}
	return w.run(v, emit)
}

const (
	pieceSize   = 64 << 10
	keptScratch = 1 << 20 // larger buffers are not kept for the next value
)

var walkers = sync.Pool{New: func() any { return new(walker) }}

// walker emits the elements of one value.
type walker struct {
	cursor
	typ    byte
	emit   func(*Element) error
	e      Element
	failed error // of emit

	window                   []byte // of the cursor, when it has a reader
	name, text, packed, pack []byte // scratch: of a name, a value, compressed bytes, a packed node
	digits                   [2][24]byte
	names                    [][]byte // of the fields of a stream's node
	group                    group
}

func (w *walker) run(v Value, emit func(*Element) error) error {
	w.typ, w.emit, w.failed = v.Type, emit, nil
	err := w.value(v)
	if err == nil {
		err = w.end()
	}
	if err = w.at(err); w.failed != nil {
		err = w.failed
	}
	w.release()
	return err
}

// release gives the walker back without anything of the value or the caller.
func (w *walker) release() {
	for _, scratch := range []*[]byte{&w.name, &w.text, &w.packed, &w.pack} {
		if cap(*scratch) > keptScratch {
			*scratch = nil
		}
	}
	for _, texts := range []*[][]byte{&w.names, &w.e.Fields} {
		if cap(*texts) > keptPending {
			*texts = nil
		}
		clear((*texts)[:cap(*texts)])
	}
	w.e, w.cursor, w.emit = Element{Fields: w.e.Fields[:0]}, cursor{}, nil
	w.group.reset()
	walkers.Put(w)
}

// begin prepares the elements of a kind; size is known to be theirs, or 0.
func (w *walker) begin(kind ElementKind, size uint64) {
	w.e = Element{Kind: kind, Size: size, Fields: w.e.Fields[:0]}
}

// send emits the element in hand.
func (w *walker) send() error {
	w.failed = w.emit(&w.e)
	w.e.Size = 0
	return w.failed
}

func (w *walker) value(v Value) error {
	if v.Valkey && v.Type > Type22 {
		return fmt.Errorf("%w: value type %d of Valkey", ErrUnsupported, v.Type)
	}
	switch v.Type {
	case TypeString:
		return w.pieces()
	case TypeList:
		return w.table(ElementItem, w.item)
	case TypeSet:
		return w.table(ElementMember, w.member)
	case TypeZSet:
		return w.table(ElementScored, w.scoredText)
	case TypeZSet2:
		return w.table(ElementScored, w.scored)
	case TypeHash:
		return w.table(ElementField, w.field)
	case Type22:
		if v.Valkey {
			return w.table(ElementField, w.fieldValkey)
		}
		return w.table(ElementField, func() error { return w.fieldTTL(1) })
	case TypeHashTTL:
		least, err := w.int64()
		if err != nil {
			return err
		}
		return w.table(ElementField, func() error { return w.fieldTTL(least) })
	case TypeHashTTLListpack:
		if err := w.skip(8); err != nil { // the least deadline of all
			return err
		}
		return w.packedNode(false, ElementField, true)
	case Type23:
		return w.packedNode(false, ElementField, true)
	case TypeHashZipmap:
		return w.zipmap()
	case TypeListZiplist:
		return w.packedNode(true, ElementItem, false)
	case TypeSetIntset:
		return w.intset()
	case TypeZSetZiplist, TypeZSetListpack:
		return w.packedNode(v.Type == TypeZSetZiplist, ElementScored, false)
	case TypeHashZiplist, TypeHashListpack:
		return w.packedNode(v.Type == TypeHashZiplist, ElementField, false)
	case TypeSetListpack:
		return w.packedNode(false, ElementMember, false)
	case TypeListQuicklist, TypeListQuicklist2:
		return w.quicklist()
	case TypeStream, TypeStream2, TypeStream3, TypeStream4, TypeStream5:
		return w.stream()
	case TypeArray:
		return w.array()
	}
	return fmt.Errorf("%w: the elements of a %s", ErrUnsupported, TypeName(v.Type))
}

// table emits a counted number of elements, each of which one has read into w.e.
func (w *walker) table(kind ElementKind, one func() error) error {
	n, err := w.count()
	if err != nil {
		return err
	}
	for w.begin(kind, n); n > 0; n-- {
		if err := one(); err != nil {
			return err
		}
		if err := w.send(); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) item() (err error) {
	w.e.Value, err = w.str(&w.text)
	return err
}

func (w *walker) member() (err error) {
	w.e.Name, err = w.str(&w.name)
	return err
}

func (w *walker) scored() error {
	if err := w.member(); err != nil {
		return err
	}
	bits, err := w.int64()
	if err != nil {
		return err
	}
	return w.score(math.Float64frombits(uint64(bits)))
}

// scoredText reads a member with a score as text, as servers before 4.0 wrote it.
func (w *walker) scoredText() error {
	if err := w.member(); err != nil {
		return err
	}
	n, err := w.byte()
	if err != nil {
		return err
	}
	switch n {
	case 253:
		return w.score(math.NaN())
	case 254:
		return w.score(math.Inf(1))
	case 255:
		return w.score(math.Inf(-1))
	}
	p, err := w.fixed(int(n))
	if err != nil {
		return err
	}
	return w.parsedScore(p)
}

func (w *walker) parsedScore(text []byte) error {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return fmt.Errorf("%w: a score that is no number", ErrCorrupt)
	}
	return w.score(f)
}

func (w *walker) score(f float64) error {
	if math.IsNaN(f) {
		return fmt.Errorf("%w: a score that is no number", ErrCorrupt)
	}
	w.e.Score = f
	return nil
}

func (w *walker) field() error {
	if err := w.member(); err != nil {
		return err
	}
	return w.item()
}

// fieldTTL reads a field behind its deadline, which is 0 for none, else counted from least, beginning with 1.
func (w *walker) fieldTTL(least int64) error {
	ttl, err := w.count()
	if err != nil {
		return err
	}
	w.e.ExpireAt = 0
	if ttl > 0 {
		w.e.ExpireAt = least + int64(ttl) - 1
		if ttl > maxTime || least < 0 || least > maxTime || w.e.ExpireAt == 0 {
			return fmt.Errorf("%w: the deadline of a field", ErrCorrupt)
		}
	}
	return w.field()
}

// maxTime is later than any deadline that a server takes.
const maxTime = 1 << 60

// fieldValkey reads a field in front of its deadline, which is -1 for none.
func (w *walker) fieldValkey() error {
	if err := w.field(); err != nil {
		return err
	}
	at, err := w.int64()
	if err == nil && (at < -1 || at == 0 || at > maxTime) {
		err = fmt.Errorf("%w: the deadline of a field", ErrCorrupt)
	}
	w.e.ExpireAt = max(at, 0)
	return err
}

func (w *walker) int64() (int64, error) {
	p, err := w.fixed(8)
	if err != nil {
		return 0, err
	}
	return int64(binary.LittleEndian.Uint64(p)), nil
}

// quicklist emits the items of a list, node by node.
func (w *walker) quicklist() error {
	nodes, err := w.count()
	for ; nodes > 0 && err == nil; nodes-- {
		container := uint64(quicklistPacked)
		if w.typ == TypeListQuicklist2 {
			if container, err = w.count(); err != nil {
				return err
			}
		}
		switch container {
		case quicklistPacked:
			err = w.packedNode(w.typ == TypeListQuicklist, ElementItem, false)
		case quicklistPlain:
			w.begin(ElementItem, 0)
			if err = w.item(); err == nil {
				err = w.send()
			}
		default:
			err = fmt.Errorf("%w: a list's node of kind %d", ErrCorrupt, container)
		}
	}
	return err
}

// Kinds of a node of a list.
const (
	quicklistPlain  = 1
	quicklistPacked = 2
)

package rdb

import (
	"encoding/binary"
	"fmt"
	"strconv"
)

// entry is an element of a listpack or ziplist: a text, or a whole number.
type entry struct {
	text   []byte
	number int64
	isInt  bool
}

// bytes returns the entry as text, that of a number in digits.
func (x *entry) bytes(digits *[24]byte) []byte {
	if x.isInt {
		return strconv.AppendInt(digits[:0], x.number, 10)
	}
	return x.text
}

// pack passes over a listpack or a ziplist:
//
//	listpack   bytes(4) count(2) { encoding data length-of-both }... 0xff
//	ziplist    bytes(4) tail(4) count(2) { length-of-previous encoding data }... 0xff
//
// Numbers are little-endian but for some lengths; a count of 65535 means that nobody knows (redis src/listpack.c,
// src/ziplist.c).
type pack struct {
	b       []byte
	pos     int
	zip     bool
	counted int // by the header; unknownCount
	seen    int
}

const (
	unknownCount = 0xffff
	packEnd      = 0xff
)

func newPack(b []byte, zip bool) (pack, error) {
	k := pack{b: b, pos: 6, zip: zip}
	if zip {
		k.pos = 10
	}
	if len(b) < k.pos+1 || uint64(binary.LittleEndian.Uint32(b)) != uint64(len(b)) {
		return k, k.corrupt("its size")
	}
	k.counted = int(binary.LittleEndian.Uint16(b[k.pos-2:]))
	return k, nil
}

func (k *pack) corrupt(what string) error {
	name := "listpack"
	if k.zip {
		name = "ziplist"
	}
	return fmt.Errorf("%w: %s of a %s, at its byte %d", ErrCorrupt, what, name, k.pos)
}

// more passes the end mark, or tells that there is another entry.
func (k *pack) more() (bool, error) {
	if k.pos >= len(k.b) {
		return false, k.corrupt("no end mark")
	}
	if k.b[k.pos] != packEnd {
		return true, nil
	}
	if k.pos != len(k.b)-1 || k.counted != unknownCount && k.counted != k.seen {
		return false, k.corrupt("the number of entries")
	}
	return false, nil
}

// next reads an entry, which must be there.
func (k *pack) next(x *entry) error {
	if more, err := k.more(); err != nil || !more {
		if err == nil {
			err = k.corrupt("a missing entry")
		}
		return err
	}
	k.seen++
	if k.zip {
		return k.zipEntry(x)
	}
	return k.listEntry(x)
}

// data passes n bytes. The end mark always follows, so the last byte is no data.
func (k *pack) data(n uint64) ([]byte, error) {
	if n > uint64(max(len(k.b)-1-k.pos, 0)) {
		return nil, k.corrupt("the length of an entry")
	}
	p := k.b[k.pos : k.pos+int(n)]
	k.pos += int(n)
	return p, nil
}

// text and number read an entry's data behind its encoding.
func (k *pack) text(x *entry, n uint64) (err error) {
	x.isInt = false
	x.text, err = k.data(n)
	return err
}

func (k *pack) number(x *entry, size uint64) error {
	p, err := k.data(size)
	if err != nil {
		return err
	}
	x.number, x.isInt = littleInt(p), true
	return nil
}

func (k *pack) listEntry(x *entry) error {
	from := k.pos
	b := k.b[k.pos]
	k.pos++
	var err error
	switch {
	case b < 0x80:
		x.number, x.isInt = int64(b), true
	case b < 0xc0:
		err = k.text(x, uint64(b&0x3f))
	case b < 0xe0: // 13 bits with a sign
		var p []byte
		if p, err = k.data(1); err == nil {
			x.number, x.isInt = int64(int16(uint16(b&0x1f)<<11|uint16(p[0])<<3)>>3), true
		}
	case b < 0xf0:
		var p []byte
		if p, err = k.data(1); err == nil {
			err = k.text(x, uint64(b&0x0f)<<8|uint64(p[0]))
		}
	case b == 0xf0:
		var p []byte
		if p, err = k.data(4); err == nil {
			err = k.text(x, uint64(binary.LittleEndian.Uint32(p)))
		}
	case b <= 0xf3:
		err = k.number(x, uint64(b-0xf0)+1) // 16, 24, 32 bits
	case b == 0xf4:
		err = k.number(x, 8)
	default:
		return k.corrupt("the encoding of an entry")
	}
	if err == nil {
		_, err = k.data(backLength(k.pos - from))
	}
	return err
}

// backLength is the size of the field behind an entry of a listpack that tells the entry's size.
func backLength(n int) uint64 {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14-1:
		return 2
	case n < 1<<21-1:
		return 3
	case n < 1<<28-1:
		return 4
	}
	return 5
}

func (k *pack) zipEntry(x *entry) error {
	previous := uint64(1)
	if k.b[k.pos] == 0xfe {
		previous = 5
	}
	if _, err := k.data(previous); err != nil {
		return err
	}
	p, err := k.data(1)
	if err != nil {
		return err
	}
	switch b := p[0]; {
	case b < 0x40:
		return k.text(x, uint64(b))
	case b < 0x80:
		if p, err = k.data(1); err != nil {
			return err
		}
		return k.text(x, uint64(b&0x3f)<<8|uint64(p[0]))
	case b == 0x80:
		if p, err = k.data(4); err != nil {
			return err
		}
		return k.text(x, uint64(binary.BigEndian.Uint32(p)))
	case b == 0xc0:
		return k.number(x, 2)
	case b == 0xd0:
		return k.number(x, 4)
	case b == 0xe0:
		return k.number(x, 8)
	case b == 0xf0:
		return k.number(x, 3)
	case b == 0xfe:
		return k.number(x, 1)
	case b > 0xf0 && b < 0xfe:
		x.number, x.isInt = int64(b&0x0f)-1, true
		return nil
	}
	return k.corrupt("the encoding of an entry")
}

// packedNode emits the elements of a listpack or ziplist; those of a hash may have deadlines, 0 for none.
func (w *walker) packedNode(zip bool, kind ElementKind, deadlines bool) error {
	b, err := w.str(&w.pack)
	if err != nil {
		return err
	}
	k, err := newPack(b, zip)
	if err != nil {
		return err
	}
	w.begin(kind, 0)
	if k.counted != unknownCount && w.typ != TypeListQuicklist && w.typ != TypeListQuicklist2 {
		w.e.Size = uint64(k.counted)
	}
	for {
		more, err := k.more()
		if err != nil || !more {
			return err
		}
		if err := w.packedElement(&k, deadlines); err != nil {
			return err
		}
		if err := w.send(); err != nil {
			return err
		}
	}
}

func (w *walker) packedElement(k *pack, deadlines bool) error {
	var x entry
	if err := k.next(&x); err != nil {
		return err
	}
	if w.e.Kind == ElementItem {
		w.e.Value = x.bytes(&w.digits[0])
		return nil
	}
	w.e.Name = x.bytes(&w.digits[0])
	if w.e.Kind == ElementMember {
		return nil
	}
	if err := k.next(&x); err != nil {
		return err
	}
	if w.e.Kind == ElementScored {
		if x.isInt {
			w.e.Score = float64(x.number)
			return nil
		}
		return w.parsedScore(x.text)
	}
	w.e.Value = x.bytes(&w.digits[1])
	if !deadlines {
		return nil
	}
	if err := k.next(&x); err != nil {
		return err
	}
	if w.e.ExpireAt = x.number; !x.isInt || x.number < 0 || x.number > maxTime {
		return k.corrupt("the deadline of a field")
	}
	return nil
}

// intset emits the members of a set of integers: size of each (4), number (4), then they, all little-endian.
func (w *walker) intset() error {
	b, err := w.str(&w.pack)
	if err != nil {
		return err
	}
	if len(b) < 8 {
		return fmt.Errorf("%w: an integer set of %d bytes", ErrCorrupt, len(b))
	}
	size, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	b = b[8:]
	if size != 2 && size != 4 && size != 8 || uint64(size)*uint64(n) != uint64(len(b)) {
		return fmt.Errorf("%w: an integer set of %d members of %d bytes", ErrCorrupt, n, size)
	}
	for w.begin(ElementMember, uint64(n)); len(b) > 0; b = b[size:] {
		w.e.Name = strconv.AppendInt(w.digits[0][:0], littleInt(b[:size]), 10)
		if err := w.send(); err != nil {
			return err
		}
	}
	return nil
}

// zipmap emits the fields of a hash of servers before 2.6: number, then length, name, length, unused bytes, value and those
// bytes for each, and 0xff. A length of 254 says that four bytes with it follow (redis src/zipmap.c).
func (w *walker) zipmap() error {
	b, err := w.str(&w.pack)
	if err != nil {
		return err
	}
	if len(b) < 2 || b[len(b)-1] != packEnd {
		return fmt.Errorf("%w: a zipmap without an end mark", ErrCorrupt)
	}
	fields := b[1 : len(b)-1]
	w.begin(ElementField, 0)
	for len(fields) > 0 {
		var ok bool
		if w.e.Name, fields, ok = zipmapText(fields, 0); ok {
			w.e.Value, fields, ok = zipmapText(fields, 1)
		}
		if !ok {
			return fmt.Errorf("%w: a zipmap, %d bytes before its end", ErrCorrupt, len(fields)+1)
		}
		if err := w.send(); err != nil {
			return err
		}
	}
	return nil
}

// zipmapText splits a text off; between it and its length are free bytes of gap, which says how many follow it.
func zipmapText(b []byte, gap int) (text, rest []byte, ok bool) {
	if len(b) == 0 || b[0] == packEnd {
		return nil, b, false
	}
	n := uint64(b[0])
	b = b[1:]
	if n == 254 {
		if len(b) < 4 {
			return nil, b, false
		}
		n = uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) < gap {
		return nil, b, false
	}
	free := uint64(0)
	if gap > 0 {
		free = uint64(b[0])
	}
	b = b[gap:]
	if n+free > uint64(len(b)) {
		return nil, b, false
	}
	return b[:n], b[n+free:], true
}

package rdb

import "encoding/binary"

// Measure is what a value holds, as far as its lengths tell.
type Measure struct {
	// Elements of a collection; 0 for strings and modules' values. A compact encoding counts no further than 65534 itself:
	// more elements count as so many.
	Elements int64
	Strings  int64 // encoded strings; what has a compact encoding is one
	Bytes    int64 // of these when they are decoded; an integer counts as none
}

// most bounds what corrupt lengths may add up to.
const most = 1 << 40

func (m *Measure) add(n uint64) {
	if m != nil {
		m.Strings++
		m.Bytes += int64(min(n, most))
	}
}

func (m *Measure) counted(n uint64) {
	if m != nil {
		m.Elements += int64(min(n, most))
	}
}

// packedHead is how many bytes of a packed value hold its count of elements, LZF or not: that is in the first ten, each of
// which takes at most two of LZF.
const packedHead = 20

// packed passes a string that holds a collection in a compact encoding: that of values of type t.
func (d *Decoder) packed(t byte) error {
	if d.Measure == nil {
		return d.str()
	}
	n, lzf, err := d.length()
	if err != nil {
		return err
	}
	raw := n
	if lzf {
		if n != encLZF {
			return orCorrupt(nil, "a number where a compact encoding must be")
		}
		if n, err = d.count(); err != nil {
			return err
		}
		if raw, err = d.count(); err != nil {
			return err
		}
	}
	head, err := d.w.Next(int(min(n, packedHead)))
	if err != nil {
		return err
	}
	d.Measure.add(raw)
	d.Measure.counted(packedCount(t, head, lzf))
	return d.skip(n - uint64(len(head)))
}

// packedCount returns the number of elements that a compact encoding gives in its head.
func packedCount(t byte, head []byte, lzf bool) uint64 {
	var room [packedHead]byte
	if lzf {
		head = lzfHead(room[:0], head)
	}
	at := 4 // listpack, integer set
	switch t {
	case TypeHashZipmap:
		at = 0
	case TypeListZiplist, TypeZSetZiplist, TypeHashZiplist:
		at = 8
	}
	if len(head) < at+2 {
		return 0
	}
	n := uint64(binary.LittleEndian.Uint16(head[at:]))
	switch t {
	case TypeHashZipmap:
		n = uint64(head[0])
	case TypeSetIntset:
		if len(head) >= at+4 {
			n = uint64(binary.LittleEndian.Uint32(head[at:]))
		}
	case TypeZSetZiplist, TypeHashZiplist, TypeHashListpack, TypeZSetListpack:
		n /= 2
	case TypeHashTTLListpack, Type23:
		n /= 3
	}
	return n
}

// lzfHead fills dst with the first bytes of an LZF block (see appendLZF), of which in is the beginning.
func lzfHead(dst, in []byte) []byte {
	for len(in) > 1 && len(dst) < cap(dst) {
		ctrl, room := int(in[0]), cap(dst)-len(dst)
		in = in[1:]
		if ctrl < 32 {
			n := min(ctrl+1, len(in))
			dst = append(dst, in[:min(n, room)]...)
			in = in[n:]
			continue
		}
		n := ctrl >> 5
		if n == 7 {
			n += int(in[0])
			if in = in[1:]; len(in) == 0 {
				break
			}
		}
		from := len(dst) - (ctrl&0x1f)<<8 - int(in[0]) - 1
		if from < 0 {
			break
		}
		in = in[1:]
		dst = appendFrom(dst, from, min(n+2, room))
	}
	return dst
}

// ModuleName returns the name in the id that a module's value begins with: nine characters of six bits each, above ten
// bits of version (redis src/module.c).
func ModuleName(value []byte) string {
	id, _, ok := sliceLength(value)
	if !ok {
		return "?"
	}
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	name := make([]byte, 9)
	for i := range name {
		name[i] = set[id>>(64-6*(i+1))&63]
	}
	return string(name)
}

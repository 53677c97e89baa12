package rdb

import (
	"encoding/binary"
	"fmt"
)

// Value types (protocol §3).
const (
	TypeString          = 0
	TypeList            = 1
	TypeSet             = 2
	TypeZSet            = 3
	TypeHash            = 4
	TypeZSet2           = 5
	TypeModulePreGA     = 6
	TypeModule2         = 7
	TypeHashZipmap      = 9
	TypeListZiplist     = 10
	TypeSetIntset       = 11
	TypeZSetZiplist     = 12
	TypeHashZiplist     = 13
	TypeListQuicklist   = 14
	TypeStream          = 15
	TypeHashListpack    = 16
	TypeZSetListpack    = 17
	TypeListQuicklist2  = 18
	TypeStream2         = 19
	TypeSetListpack     = 20
	TypeStream3         = 21
	Type22              = 22 // by magic: Redis 7.4-RC hash with field TTLs, or Valkey 9 hash with field TTLs
	Type23              = 23 // Redis 7.4-RC listpack hash with field TTLs
	TypeHashTTL         = 24
	TypeHashTTLListpack = 25
	TypeStream4         = 26
	TypeStream5         = 27
	TypeArray           = 28
)

// TypeName names a value type for people.
func TypeName(t byte) string {
	switch t {
	case TypeString:
		return "string"
	case TypeList, TypeListZiplist, TypeListQuicklist, TypeListQuicklist2:
		return "list"
	case TypeSet, TypeSetIntset, TypeSetListpack:
		return "set"
	case TypeZSet, TypeZSet2, TypeZSetZiplist, TypeZSetListpack:
		return "zset"
	case TypeHash, TypeHashZipmap, TypeHashZiplist, TypeHashListpack:
		return "hash"
	case Type22, Type23, TypeHashTTL, TypeHashTTLListpack:
		return "hash with field TTLs"
	case TypeStream, TypeStream2, TypeStream3, TypeStream4, TypeStream5:
		return "stream"
	case TypeModule2, TypeModulePreGA:
		return "module value"
	case TypeArray:
		return "array"
	}
	return fmt.Sprintf("unknown type %d", t)
}

const magicLength = 40 // of the name of a slot import job

// length reads a length encoding; special is set if it is one of the encodings of a string instead.
func (d *Decoder) length() (n uint64, special bool, err error) {
	b, err := d.w.Byte()
	if err != nil {
		return 0, false, err
	}
	switch b >> 6 {
	case 0:
		return uint64(b), false, nil
	case 1:
		c, err := d.w.Byte()
		return uint64(b&0x3f)<<8 | uint64(c), false, err
	case 3:
		return uint64(b & 0x3f), true, nil
	}
	switch b {
	case 0x80:
		p, err := d.w.Next(4)
		if err != nil {
			return 0, false, err
		}
		return uint64(binary.BigEndian.Uint32(p)), false, nil
	case 0x81:
		p, err := d.w.Next(8)
		if err != nil {
			return 0, false, err
		}
		return binary.BigEndian.Uint64(p), false, nil
	}
	return 0, false, fmt.Errorf("%w: bad length byte %#x", ErrCorrupt, b)
}

// count reads a length that must be a number.
func (d *Decoder) count() (uint64, error) {
	n, special, err := d.length()
	if err == nil && special {
		err = fmt.Errorf("%w: a string's encoding where a number must be", ErrCorrupt)
	}
	return n, err
}

func (d *Decoder) skip(n uint64) error {
	if n > 1<<40 {
		return fmt.Errorf("%w: a length of %d bytes", ErrCorrupt, n)
	}
	return d.w.Skip(int64(n))
}

// str passes an encoded string.
func (d *Decoder) str() error {
	n, special, err := d.length()
	if err != nil {
		return err
	}
	if !special {
		d.Measure.add(n)
		return d.skip(n)
	}
	switch n {
	case encInt8, encInt16, encInt32:
		d.Measure.add(0)
		return d.w.Skip(1 << n)
	case encLZF:
		packed, err := d.count()
		if err != nil {
			return err
		}
		raw, err := d.count()
		if err != nil {
			return err
		}
		d.Measure.add(raw)
		return d.skip(packed)
	}
	return fmt.Errorf("%w: unknown string encoding %d", ErrCorrupt, n)
}

// quicklistNode passes one node of a list: a single element, or a listpack of them.
func (d *Decoder) quicklistNode() error {
	const single = 1
	container, err := d.count()
	if err != nil {
		return err
	}
	if container == single {
		d.Measure.counted(1)
		return d.str()
	}
	return d.packed(TypeListQuicklist2)
}

// tally reads the count of a value's elements.
func (d *Decoder) tally() (uint64, error) {
	n, err := d.count()
	d.Measure.counted(n)
	return n, err
}

// elements reads the count of a value's elements and calls f so often.
func (d *Decoder) elements(f func() error) error {
	n, err := d.tally()
	for ; n > 0 && err == nil; n-- {
		err = f()
	}
	return err
}

// times reads a count and calls f so often.
func (d *Decoder) times(f func() error) error {
	n, err := d.count()
	for ; n > 0 && err == nil; n-- {
		err = f()
	}
	return err
}

// all calls each of fs in turn.
func all(fs ...func() error) error {
	for _, f := range fs {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (d *Decoder) num() error { _, err := d.count(); return err }

func (d *Decoder) fixed(n int64) func() error {
	return func() error { return d.w.Skip(n) }
}

// value passes the value of type t.
func (d *Decoder) value(t byte) error {
	if d.Valkey && t > Type22 {
		return fmt.Errorf("%w: value type %d of Valkey", ErrUnsupported, t)
	}
	switch t {
	case TypeString:
		return d.str()
	case TypeHashZipmap, TypeListZiplist, TypeSetIntset, TypeZSetZiplist, TypeHashZiplist,
		TypeHashListpack, TypeZSetListpack, TypeSetListpack, Type23:
		return d.packed(t)
	case TypeList, TypeSet:
		return d.elements(d.str)
	case TypeListQuicklist:
		return d.times(func() error { return d.packed(TypeListZiplist) })
	case TypeHash:
		return d.elements(func() error { return all(d.str, d.str) })
	case TypeZSet:
		return d.elements(func() error { return all(d.str, d.asciiDouble) })
	case TypeZSet2:
		return d.elements(func() error { return all(d.str, d.fixed(8)) })
	case TypeListQuicklist2:
		return d.times(d.quicklistNode)
	case TypeStream, TypeStream2, TypeStream3, TypeStream4, TypeStream5:
		return d.stream(t)
	case TypeModule2:
		return all(d.num, d.moduleValue)
	case TypeHashTTL:
		return all(d.fixed(8), func() error {
			return d.elements(func() error { return all(d.num, d.str, d.str) })
		})
	case TypeHashTTLListpack:
		return all(d.fixed(8), func() error { return d.packed(t) })
	case Type22:
		if d.Valkey {
			return d.elements(func() error { return all(d.str, d.str, d.fixed(8)) })
		}
		return d.elements(func() error { return all(d.num, d.str, d.str) })
	case TypeArray:
		return d.array()
	case TypeModulePreGA:
		return fmt.Errorf("%w: a module value of a 4.0 release candidate", ErrUnsupported)
	}
	return fmt.Errorf("%w: value type %d", ErrUnsupported, t)
}

func (d *Decoder) asciiDouble() error {
	n, err := d.w.Byte()
	if err != nil || n >= 253 { // nan and the infinities
		return err
	}
	return d.w.Skip(int64(n))
}

// moduleValue passes the self-describing parts of a module's value, up to the end mark.
func (d *Decoder) moduleValue() error {
	for {
		op, err := d.count()
		if err != nil {
			return err
		}
		switch op {
		case 0:
			return nil
		case 1, 2:
			err = d.num()
		case 3:
			err = d.w.Skip(4)
		case 4:
			err = d.w.Skip(8)
		case 5:
			err = d.str()
		default:
			err = fmt.Errorf("%w: module opcode %d", ErrCorrupt, op)
		}
		if err != nil {
			return err
		}
	}
}

func (d *Decoder) stream(t byte) error {
	err := all(
		func() error { return d.times(func() error { return all(d.str, d.str) }) },
		func() error { _, err := d.tally(); return err }, d.num, d.num) // length, last id
	if err == nil && t >= TypeStream2 {
		err = all(d.num, d.num, d.num, d.num, d.num) // first id, greatest deleted id, entries added
	}
	if err == nil {
		err = d.times(func() error { return d.streamGroup(t) })
	}
	if err != nil || t < TypeStream4 {
		return err
	}
	// idempotent producers: duration, maximum, producers with their ids, added, duplicates
	return all(d.num, d.num, func() error {
		return d.times(func() error {
			return all(d.str, func() error {
				return d.times(func() error { return all(d.str, d.num, d.num) })
			})
		})
	}, d.num, d.num)
}

func (d *Decoder) streamGroup(t byte) error {
	err := all(d.str, d.num, d.num)
	if err == nil && t >= TypeStream2 {
		err = d.num() // entries read
	}
	if err != nil {
		return err
	}
	const id = 16
	err = d.times(func() error { return all(d.fixed(id+8), d.num) }) // pending: id, delivery time, count
	if err != nil {
		return err
	}
	err = d.times(func() error { // consumers: name, seen, active, their pending ids
		times := int64(8)
		if t >= TypeStream3 {
			times = 16
		}
		return all(d.str, d.fixed(times), func() error { return d.times(d.fixed(id)) })
	})
	if err != nil || t < TypeStream5 {
		return err
	}
	return d.times(d.fixed(id)) // nacked ids
}

// array passes an array of Redis 8.8: count, flag, the next index to insert at if the flag is set, then elements.
func (d *Decoder) array() error {
	n, err := d.tally()
	if err != nil {
		return err
	}
	flag, err := d.count()
	if err == nil && flag != 0 {
		err = d.num()
	}
	for ; n > 0 && err == nil; n-- {
		if err = d.num(); err == nil {
			err = d.arrayElement()
		}
	}
	return err
}

func (d *Decoder) arrayElement() error {
	tag, err := d.count()
	if err != nil {
		return err
	}
	switch tag {
	case 1, 2:
		return d.w.Skip(8)
	case 0, 3:
		return d.str()
	}
	return fmt.Errorf("%w: array element of kind %d", ErrCorrupt, tag)
}

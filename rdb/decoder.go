// Package rdb finds the objects of a Redis or Valkey snapshot by walking lengths, without decoding a value, and writes
// them again as payloads of RESTORE or as plain strings.
package rdb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/keyhaul/keyhaul/internal/feed"
)

// Errors of a snapshot, wrapped in a *PositionError.
var (
	ErrCorrupt     = errors.New("corrupt snapshot")
	ErrTruncated   = errors.New("truncated snapshot")
	ErrUnsupported = errors.New("unsupported snapshot content")
	ErrChecksum    = errors.New("checksum of the snapshot does not match")
	ErrFollowed    = errors.New("the snapshot ends here, and more bytes follow")
)

// PositionError says where in a snapshot an error was met.
type PositionError struct {
	Offset int64 // byte position in the snapshot
	DB     int
	Key    string // empty outside a key
	Err    error
}

func (e *PositionError) Error() string {
	if e.Key == "" {
		return fmt.Sprintf("snapshot byte %d: %v", e.Offset, e.Err)
	}
	return fmt.Sprintf("snapshot byte %d, key %q of database %d: %v", e.Offset, e.Key, e.DB, e.Err)
}

func (e *PositionError) Unwrap() error { return e.Err }

// Opcodes (protocol §3).
const (
	opAuxEnterprise1 = 107
	opAuxEnterprise2 = 121
	op243            = 243 // by magic: Valkey slot import, or Redis key metadata
	opSlotInfo       = 244
	opFunction2      = 245
	opFunctionPreGA  = 246
	opModuleAux      = 247
	opIdle           = 248
	opFreq           = 249
	opAux            = 250
	opResizeDB       = 251
	opExpireMS       = 252
	opExpire         = 253
	opSelectDB       = 254
	opEOF            = 255
)

// Kind is what Next has found.
type Kind uint8

// Kinds of a Record.
const (
	KindKey Kind = iota + 1
	KindFunction
	KindEnd
)

// Span is a range of bytes relative to the start of the entry in hand.
type Span struct{ Off, Len int64 }

// Record is one thing of the snapshot that must reach the target. Its spans are relative to the entry that the window
// has in hand; they are encoded forms: a name and a function's code are encoded strings. Only the value of an entry
// that the window has not kept whole is relative to where Next began, since it is read from elsewhere.
type Record struct {
	Kind      Kind
	DB        int
	Type      byte
	Name      Span
	Prefix    Span // key metadata that belongs before the type in a payload
	Value     Span
	ExpireAt  int64 // milliseconds since 1970
	Idle      int64 // seconds
	Freq      byte
	HasExpire bool
	HasIdle   bool
	HasFreq   bool
}

// Decoder walks one snapshot.
type Decoder struct {
	Valkey  bool // magic VALKEY
	Version int
	// StreamDB is the database that is selected where the stream begins (AUX repl-stream-db), -1 if not said.
	StreamDB int
	// Keys is the sum of the sizes that the snapshot announces for its databases; a hint only.
	Keys int64
	// Aux, if any, is told every pair of AUX. Measure, if any, says what the last key's value holds.
	Aux     func(name, value []byte)
	Measure *Measure

	w       *feed.Window
	crc     uint64
	db      int
	scratch []byte
}

// NewDecoder walks the snapshot that src yields. Its window keeps entries of up to limit bytes.
func NewDecoder(newWindow func(sum func([]byte)) *feed.Window) *Decoder {
	d := &Decoder{StreamDB: -1}
	d.w = newWindow(func(p []byte) { d.crc = CRC64(d.crc, p) })
	return d
}

// Window is the view that the spans of a Record refer to.
func (d *Decoder) Window() *feed.Window { return d.w }

// Header reads the first bytes. It must be called once, first.
func (d *Decoder) Header() error {
	d.w.Begin()
	h, err := d.w.Next(HeaderBytes)
	if err != nil {
		return d.fail(err, "")
	}
	if d.Version, d.Valkey, err = ParseHeader(h); err != nil {
		return d.fail(err, "")
	}
	return nil
}

// HeaderBytes is the size of the header of a snapshot.
const HeaderBytes = 9

// ParseHeader reads the header of a snapshot. It fails with ErrCorrupt or ErrUnsupported.
func ParseHeader(h []byte) (version int, valkey bool, err error) {
	digits, redis := bytes.CutPrefix(h, []byte("REDIS"))
	if !redis {
		if digits, valkey = bytes.CutPrefix(h, []byte("VALKEY")); !valkey {
			return 0, false, fmt.Errorf("%w: it does not begin with REDIS or VALKEY", ErrCorrupt)
		}
	}
	n, err := strconv.ParseUint(string(digits), 10, 16) // takes no sign
	if err != nil || n < 1 {
		return 0, valkey, fmt.Errorf("%w: bad version %q", ErrCorrupt, h)
	}
	if valkey && n > maxValkey || redis && n > maxRedis {
		return int(n), valkey, fmt.Errorf("%w: RDB version %d, known are up to %d of Redis and %d of Valkey",
			ErrUnsupported, n, maxRedis, maxValkey)
	}
	return int(n), valkey, nil
}

// The newest versions whose every opcode and type is known here (protocol §3).
const (
	maxRedis  = 14
	maxValkey = 80
)

// Next walks to the end of the next record. It returns KindEnd once, when the checksum was found right.
func (d *Decoder) Next(r *Record) error {
	d.w.Begin()
	*r = Record{}
	start := d.w.Offset()
	for {
		op, err := d.w.Byte()
		if err != nil {
			return d.fail(err, "")
		}
		done, err := d.opcode(op, r)
		if err != nil {
			return d.fail(err, "")
		}
		if done {
			return nil
		}
		if op < 240 && op != opAuxEnterprise1 && op != opAuxEnterprise2 {
			r.Kind, r.Type, r.DB = KindKey, op, d.db
			err := d.key(r)
			if d.w.Large() {
				r.Value.Off += d.w.Offset() - d.w.Rel() - start
			}
			return err
		}
		if d.w.Rel() > slack && r.Prefix.Len == 0 {
			d.w.Begin()
		}
	}
}

// slack is how many bytes of what stands before a key may stay in hand with it. Scripts and data of modules may be large.
const slack = 4 << 10

func (d *Decoder) key(r *Record) error {
	from := d.w.Rel()
	if err := d.name(); err != nil {
		return d.fail(err, "")
	}
	r.Name = Span{from, d.w.Rel() - from}
	if _, err := d.kept(r.Name); err != nil {
		return d.fail(err, "")
	}
	from = d.w.Rel()
	if d.Measure != nil {
		*d.Measure = Measure{}
	}
	if err := d.value(r.Type); err != nil {
		enc, _ := d.kept(r.Name)
		name, nameErr := AppendString(nil, enc)
		if nameErr != nil {
			name = []byte("?")
		}
		return d.fail(err, string(name))
	}
	r.Value = Span{from, d.w.Rel() - from}
	return nil
}

// kept returns the bytes of s, which name has passed. They are missing only if what precedes them is out of proportion.
func (d *Decoder) kept(s Span) ([]byte, error) {
	kept := d.w.Kept()
	if s.Off+s.Len > int64(len(kept)) {
		return nil, fmt.Errorf("%w: %d bytes of metadata before a name", ErrUnsupported, s.Off)
	}
	return kept[s.Off : s.Off+s.Len], nil
}

// name passes a string that must stay in the window.
func (d *Decoder) name() error {
	n, special, err := d.length()
	if err != nil {
		return err
	}
	if special {
		switch n {
		case encInt8, encInt16, encInt32:
			n = 1 << n
		case encLZF:
			if n, err = d.count(); err != nil {
				return err
			}
			if err = d.num(); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: unknown string encoding %d", ErrCorrupt, n)
		}
	}
	if n > maxName {
		return fmt.Errorf("%w: a name of %d bytes", ErrCorrupt, n)
	}
	return d.w.Keep(int(n))
}

const maxName = 512 << 20 // proto-max-bulk-len's default: no client can make a longer key

// opcode handles everything but keys. done is set if r is complete.
func (d *Decoder) opcode(op byte, r *Record) (done bool, err error) {
	switch op {
	case opEOF:
		r.Kind = KindEnd
		return true, d.end()
	case opSelectDB:
		var n uint64
		if n, err = d.count(); err == nil && n > 1<<30 {
			err = fmt.Errorf("%w: database %d", ErrCorrupt, n)
		}
		d.db = int(n)
	case opExpire:
		var p []byte
		if p, err = d.w.Next(4); err == nil {
			r.ExpireAt, r.HasExpire = int64(int32(binary.LittleEndian.Uint32(p)))*1000, true
		}
	case opExpireMS:
		var p []byte
		if p, err = d.w.Next(8); err == nil {
			r.ExpireAt, r.HasExpire = int64(binary.LittleEndian.Uint64(p)), true
		}
	case opResizeDB:
		var n uint64
		if n, err = d.count(); err == nil {
			d.Keys += int64(min(n, 1<<40))
			err = d.num()
		}
	case opAux:
		err = d.aux()
	case opFreq:
		r.HasFreq = true
		r.Freq, err = d.w.Byte()
	case opIdle:
		var n uint64
		n, err = d.count()
		r.HasIdle, r.Idle = true, int64(min(n, 1<<40))
	case opModuleAux:
		err = all(d.num, d.moduleValue)
	case opSlotInfo:
		err = all(d.num, d.num, d.num)
	case op243:
		err = d.op243(r)
	case opFunction2:
		return true, d.function(r)
	case opAuxEnterprise1, opAuxEnterprise2:
		err = d.num()
	case opFunctionPreGA:
		err = fmt.Errorf("%w: functions of a 7.0 release candidate", ErrUnsupported)
	default:
		if op >= 240 {
			err = fmt.Errorf("%w: opcode %d", ErrUnsupported, op)
		}
	}
	return false, err
}

func (d *Decoder) function(r *Record) error {
	r.Kind, r.DB = KindFunction, d.db
	from := d.w.Rel()
	if err := d.name(); err != nil {
		return err
	}
	r.Value = Span{from, d.w.Rel() - from}
	_, err := d.kept(r.Value)
	return err
}

func (d *Decoder) op243(r *Record) error {
	if d.Valkey { // a slot that is being imported: job name, ranges
		return all(d.fixed(magicLength), func() error {
			return d.times(func() error { return all(d.num, d.num) })
		})
	}
	from := d.w.Rel() - 1
	err := d.times(func() error { return all(d.fixed(4), d.moduleValue) })
	r.Prefix = Span{from, d.w.Rel() - from}
	return err
}

// end checks the checksum, which covers all before it; 0 means that the server was told not to compute one.
func (d *Decoder) end() error {
	if d.Version < 5 { // without a checksum nothing may follow, else the version is wrong
		if _, err := d.w.Byte(); err != io.ErrUnexpectedEOF { //nolint:errorlint // the window returns the value itself
			return orCorrupt(err, "bytes behind the end")
		}
		return nil
	}
	d.w.Sync()
	got := d.crc
	p, err := d.w.Next(8)
	if err != nil {
		return err
	}
	if want := binary.LittleEndian.Uint64(p); want != 0 && want != got {
		return fmt.Errorf("%w: %#016x, computed %#016x", ErrChecksum, want, got)
	}
	return nil
}

// Last fails with ErrFollowed unless the bytes end with the snapshot, whose end Next has found. What a server puts behind a
// snapshot that it sends without a size may follow: redis-cli --rdb leaves it there when it writes to a pipe.
func (d *Decoder) Last() error {
	const mark = 40 // hexadecimal digits
	end := d.w.Offset()
	for n := 0; ; n++ {
		b, err := d.w.Byte()
		hex := b >= '0' && b <= '9' || b >= 'a' && b <= 'f'
		switch ended := err == io.EOF || err == io.ErrUnexpectedEOF; { //nolint:errorlint // the window returns the value itself
		case ended && (n == 0 || n == mark):
			return nil
		case ended, err == nil && (n == mark || !hex):
			return &PositionError{Offset: end, DB: d.db, Err: ErrFollowed}
		case err != nil:
			return err
		}
	}
}

func orCorrupt(err error, reason string) error {
	if err == nil {
		err = fmt.Errorf("%w: %s", ErrCorrupt, reason)
	}
	return err
}

func (d *Decoder) fail(err error, key string) error {
	offset := d.w.Offset()
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // the window returns the value itself; an error of a disk may wrap one
		offset += int64(len(d.w.Buffered()))
		err = fmt.Errorf("%w: its bytes end here", ErrTruncated)
	} else if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrChecksum) {
		return err // of the source of the bytes, not of the snapshot
	}
	return &PositionError{Offset: offset, DB: d.db, Key: key, Err: err}
}

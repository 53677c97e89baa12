package writer

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"strconv"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/jsontext"
	"github.com/keyhaul/keyhaul/rdb"
)

// jsonlFile writes a line of JSON for each key and each library of functions:
//
//	{"db":0,"key":"k","type":"string","expire_at_ms":1700000000000,"value":"text"}
//	{"function":"#!lua name=mine\n…"}
//
// Strings are as package jsontext has them, so that any bytes can be told again. Of a value no more than an element is in
// memory, if it is a large one.
type jsonlFile struct {
	out  io.Writer
	dbs  haul.DBMap
	text []byte // what is written next
	name []byte // scratch
}

func newJSONLFile(out io.Writer, cfg FileConfig) *jsonlFile {
	return &jsonlFile{out: out, dbs: cfg.DBs}
}

// write implements fileForm.
func (f *jsonlFile) write(b *haul.Batch, first, n uint32) error {
	for i := first; i < first+n; i++ {
		e := &b.Entries[i]
		k := b.KeyOf(e)
		switch e.Kind {
		case haul.KindFunction:
			f.str(`{"function":`, k.Name)
			f.raw("}\n")
		case haul.KindKey:
			if err := f.key(b, e, k); err != nil {
				return fmt.Errorf("key %q of database %d: %w", k.Name, e.DB, err)
			}
		default:
			return fmt.Errorf("a file of keys cannot hold a command of the stream (position %d)", e.Start)
		}
		if err := f.flushFull(); err != nil {
			return err
		}
	}
	return f.flush()
}

// finish implements fileForm.
func (f *jsonlFile) finish() error { return nil }

func (f *jsonlFile) key(b *haul.Batch, e *haul.Entry, k *haul.Key) error {
	f.int(`{"db":`, int64(f.dbs.Of(e.DB)))
	f.str(`,"key":`, k.Name)
	f.raw(`,"type":"` + jsonType(k.Type) + `"`)
	if k.Has&haul.HasExpire != 0 {
		f.int(`,"expire_at_ms":`, k.ExpireAt)
	}
	if k.Has&haul.HasIdle != 0 {
		f.int(`,"idle_s":`, k.Idle)
	}
	if k.Has&haul.HasFreq != 0 {
		f.int(`,"freq":`, int64(k.Freq))
	}
	v := value{rdb.Value{Type: k.Type, Valkey: fromValkey(k)}, b, e, k}
	var err error
	switch jsonType(k.Type) {
	case "string":
		err = f.stringValue(v)
	case "module":
		err = f.payload(v)
	case "stream":
		err = f.streamValue(v)
	default:
		err = f.collection(v)
	}
	f.raw("}\n")
	return err
}

// jsonType names the type of a value as the TYPE command does; a module's value has its own there.
func jsonType(t byte) string {
	switch t {
	case rdb.TypeModule2:
		return "module"
	case rdb.Type22, rdb.Type23, rdb.TypeHashTTL, rdb.TypeHashTTLListpack:
		return "hash"
	}
	return rdb.TypeName(t)
}

// value is a value, in a batch or where it is read from in pieces.
type value struct {
	rdb.Value
	b *haul.Batch
	e *haul.Entry
	k *haul.Key
}

// each calls emit for each element. It may be called again.
func (v value) each(emit func(*rdb.Element) error) error {
	if v.e.Big == nil {
		return v.ElementsOf(v.b.Bytes(v.k.Value), emit)
	}
	return v.Elements(v.e.Big.Section(haul.BigSpan{Len: v.e.Big.Len}), emit)
}

// stringValue writes a string. A large one is read twice: whether it is UTF-8 shows at its end only.
func (f *jsonlFile) stringValue(v value) error {
	if v.e.Big == nil {
		var err error
		if f.name, err = rdb.AppendString(f.name[:0], v.b.Bytes(v.k.Value)); err == nil {
			f.str(`,"value":`, f.name)
		}
		return err
	}
	var c jsontext.Checker
	if err := v.each(func(e *rdb.Element) error { c.Add(e.Value); return nil }); err != nil {
		return err
	}
	f.raw(`,"value":"`)
	if c.Marked() {
		f.raw(jsontext.Mark)
		if err := f.flush(); err != nil {
			return err
		}
		w := base64.NewEncoder(base64.StdEncoding, f.out)
		if err := v.each(func(e *rdb.Element) error { _, err := w.Write(e.Value); return err }); err != nil {
			return err
		}
		if err := w.Close(); err != nil {
			return err
		}
	} else if err := v.each(func(e *rdb.Element) error {
		f.text = jsontext.AppendEscaped(f.text, e.Value)
		return f.flushFull()
	}); err != nil {
		return err
	}
	f.raw(`"`)
	return nil
}

// payload writes a value that only its module understands, as DUMP would give it.
func (f *jsonlFile) payload(v value) error {
	f.raw(`,"payload":"`)
	if err := f.flush(); err != nil {
		return err
	}
	w := base64.NewEncoder(base64.StdEncoding, f.out)
	head := append(append([]byte{}, v.b.Bytes(v.k.Prefix)...), v.Type)
	crc := rdb.CRC64(0, head)
	if _, err := w.Write(head); err != nil {
		return err
	}
	var body io.Reader = bytes.NewReader(v.b.Bytes(v.k.Value))
	if v.e.Big != nil {
		body = v.e.Big.Section(haul.BigSpan{Len: v.e.Big.Len})
	}
	if _, err := io.Copy(w, io.TeeReader(body, summing{&crc})); err != nil {
		return err
	}
	if _, err := w.Write(rdb.AppendFooter(nil, v.k.Footer, crc)); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	f.raw(`"`)
	return nil
}

// summing continues a checksum over what is written to it.
type summing struct{ crc *uint64 }

func (s summing) Write(p []byte) (int, error) {
	*s.crc = rdb.CRC64(*s.crc, p)
	return len(p), nil
}

func (f *jsonlFile) raw(s string) { f.text = append(f.text, s...) }

func (f *jsonlFile) int(label string, n int64) {
	f.text = strconv.AppendInt(append(f.text, label...), n, 10)
}

func (f *jsonlFile) str(label string, s []byte) {
	f.text = jsontext.AppendString(append(f.text, label...), s)
}

func (f *jsonlFile) flushFull() error {
	if len(f.text) < flushBytes {
		return nil
	}
	return f.flush()
}

func (f *jsonlFile) flush() error {
	_, err := f.out.Write(f.text)
	f.text = f.text[:0]
	return err
}

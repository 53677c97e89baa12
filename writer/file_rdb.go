package writer

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// rdbFile writes a snapshot that a server of the source's release loads: the values are the source's own bytes.
type rdbFile struct {
	out    io.Writer
	dbs    haul.DBMap
	source topology.Node
	crc    uint64
	format haul.Format // of the header; version 0 before it
	db     int32
	text   []byte // what is written next
	piece  []byte
}

func newRDBFile(out io.Writer, cfg FileConfig) *rdbFile {
	return &rdbFile{out: out, dbs: cfg.DBs, source: cfg.Node, db: unknownDB}
}

// Write adds to the checksum what it writes.
func (f *rdbFile) Write(p []byte) (int, error) {
	f.crc = rdb.CRC64(f.crc, p)
	return f.out.Write(p)
}

// head begins the file in the format of the source's snapshot.
func (f *rdbFile) head(format haul.Format) {
	f.format = format
	f.text = rdb.AppendHeader(f.text, format.Version, format.Valkey)
	if format.Version < 7 { // which knows no AUX
		return
	}
	product := "redis"
	if format.Valkey {
		product = "valkey"
	}
	if f.source.Version != "" {
		f.text = rdb.AppendAux(f.text, product+"-ver", f.source.Version)
	}
	f.text = rdb.AppendAux(f.text, "redis-bits", "64")
	f.text = rdb.AppendAux(f.text, "ctime", strconv.FormatInt(time.Now().Unix(), 10))
}

// write implements fileForm.
func (f *rdbFile) write(b *haul.Batch, first, n uint32) error {
	if f.format.Version == 0 {
		f.head(b.Format)
	}
	for i := first; i < first+n; i++ {
		e := &b.Entries[i]
		k := b.KeyOf(e)
		switch e.Kind {
		case haul.KindFunction:
			f.text = rdb.AppendFunction(f.text, k.Name)
			continue
		case haul.KindKey:
			f.key(b, e, k)
		default:
			return fmt.Errorf("a snapshot file cannot hold a command of the stream (position %d)", e.Start)
		}
		if err := f.value(b, e, k); err != nil {
			return fmt.Errorf("key %q of database %d: %w", k.Name, e.DB, err)
		}
	}
	return f.flush()
}

// key appends what stands before a value.
func (f *rdbFile) key(b *haul.Batch, e *haul.Entry, k *haul.Key) {
	if db := f.dbs.Of(e.DB); db != f.db {
		f.db = db
		f.text = rdb.AppendSelectDB(f.text, int(db))
	}
	r := rdb.Record{
		Type: k.Type, ExpireAt: k.ExpireAt, HasExpire: k.Has&haul.HasExpire != 0, Idle: k.Idle, HasIdle: k.Has&haul.HasIdle != 0,
		Freq: k.Freq, HasFreq: k.Has&haul.HasFreq != 0,
	}
	f.text = rdb.AppendKey(f.text, &r, b.Bytes(k.Prefix), k.Name)
}

func (f *rdbFile) value(b *haul.Batch, e *haul.Entry, k *haul.Key) error {
	if e.Big == nil {
		f.text = append(f.text, b.Bytes(k.Value)...)
		if len(f.text) < flushBytes {
			return nil
		}
		return f.flush()
	}
	if err := f.flush(); err != nil {
		return err
	}
	if f.piece == nil {
		f.piece = make([]byte, pieceBytes)
	}
	n, err := io.CopyBuffer(f, struct{ io.Reader }{e.Big.Section(haul.BigSpan{Len: e.Big.Len})}, f.piece)
	if err == nil && n != e.Big.Len {
		err = fmt.Errorf("only %d of %d bytes of the value could be read", n, e.Big.Len)
	}
	return err
}

func (f *rdbFile) flush() error {
	_, err := f.Write(f.text)
	f.text = f.text[:0]
	return err
}

// finish implements fileForm. Without any key the file is one that every release reads.
func (f *rdbFile) finish() error {
	if f.format.Version == 0 {
		f.head(haul.Format{Version: 9})
	}
	if err := f.flush(); err != nil {
		return err
	}
	_, err := f.out.Write(rdb.AppendEnd(nil, f.format.Version, f.crc))
	return err
}

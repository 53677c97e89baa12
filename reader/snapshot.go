package reader

import (
	"context"
	"fmt"
	"io"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/feed"
	"github.com/keyhaul/keyhaul/rdb"
)

// snapshotDecoder turns the bytes of an RDB into entries while they still arrive.
type snapshotDecoder struct {
	*batcher
	rdb *rdb.Decoder
	snapshotInput
	total func(keys int64)                  // hears how many keys the snapshot announces
	seen  func(db int32, name []byte) error // hears of every key
}

// snapshotInput is where the bytes of a snapshot come from.
type snapshotInput struct {
	source  feed.Source
	bytes   io.ReaderAt // for values that are not kept whole; by position
	from    int64       // position of the first byte
	whole   bool        // nothing may follow the snapshot
	expired int64       // keys whose deadline is before are not loaded; unix ms
}

// decodeSnapshot sends every key of a snapshot. It returns the database that the stream begins in, and the position behind
// the snapshot.
func decodeSnapshot(ctx context.Context, in snapshotInput, out *haul.Channel,
	total func(int64), seen func(int32, []byte) error,
) (db int32, end int64, err error) {
	k, err := newBatcher(ctx, out, true, haul.Position{})
	if err != nil {
		return 0, 0, err
	}
	defer k.discard()
	d := &snapshotDecoder{batcher: k, snapshotInput: in, total: total, seen: seen}
	d.rdb = rdb.NewDecoder(func(sum func([]byte)) *feed.Window {
		return feed.New(ctx, in.source, k, in.from, out.EntryLimit(), sum)
	})
	d.window = d.rdb.Window()
	if err := d.rdb.Header(); err != nil {
		return 0, 0, err
	}
	k.format = haul.Format{Version: d.rdb.Version, Valkey: d.rdb.Valkey}
	for announced := int64(0); ; {
		var r rdb.Record
		start := d.window.Offset()
		if err := d.rdb.Next(&r); err != nil {
			return 0, 0, err
		}
		if d.rdb.Keys != announced {
			announced = d.rdb.Keys
			d.total(announced)
		}
		if r.Kind == rdb.KindEnd {
			break
		}
		if err := d.add(start, &r); err != nil {
			return 0, 0, err
		}
	}
	end = d.window.Offset()
	if in.whole {
		if err := d.rdb.Last(); err != nil {
			return 0, 0, err
		}
	}
	d.end.Offset = end
	return int32(max(d.rdb.StreamDB, 0)), end, d.send(ctx)
}

// add puts the record that the window has in hand into the batch.
func (d *snapshotDecoder) add(start int64, r *rdb.Record) error {
	if b := d.batch; len(b.Entries) > 0 && b.Entries[0].DB != int32(r.DB) {
		if err := d.window.HandOn(); err != nil { // a batch of the snapshot has one database
			return err
		}
	}
	b := d.batch
	e := haul.Entry{
		Start: start, End: d.window.Offset(), Kind: haul.KindKey, DB: int32(r.DB),
		First: uint32(len(b.Keys)), N: 1,
	}
	name := r.Name
	if r.Kind == rdb.KindFunction {
		e.Kind, name = haul.KindFunction, r.Value
	}
	kept := d.window.Kept()
	key := haul.Key{ExpireAt: r.ExpireAt, Idle: r.Idle, Freq: r.Freq, Type: r.Type}
	var err error
	if key.Name, err = d.name(kept[name.Off : name.Off+name.Len]); err != nil {
		return fmt.Errorf("snapshot byte %d: name of a key: %w", start, err)
	}
	if r.Kind == rdb.KindKey {
		d.fill(&key, &e, r)
		if r.HasExpire && r.ExpireAt < d.expired {
			e.Drop = haul.DropExpired
		}
		v := rdb.Value{Type: r.Type, Valkey: d.rdb.Valkey}
		if e.Big == nil && v.Empty(kept[r.Value.Off:r.Value.Off+r.Value.Len]) {
			e.Drop = haul.DropEmpty
		}
	}
	if r.Kind == rdb.KindKey && e.Drop == haul.DropNone {
		if err := d.seen(e.DB, key.Name); err != nil {
			return err
		}
	}
	b.Keys = append(b.Keys, key)
	b.Entries = append(b.Entries, e)
	d.end.Offset = e.End
	return d.full()
}

func (d *snapshotDecoder) fill(key *haul.Key, e *haul.Entry, r *rdb.Record) {
	key.Footer = rdb.FooterVersion(r.Type, d.rdb.Valkey, r.Prefix.Len > 0)
	if d.rdb.Valkey {
		key.Has |= haul.FromValkey
	}
	if r.HasExpire {
		key.Has |= haul.HasExpire
	}
	if r.HasIdle {
		key.Has |= haul.HasIdle
	}
	if r.HasFreq {
		key.Has |= haul.HasFreq
	}
	mark := uint32(d.window.Mark())
	key.Prefix = haul.Span{Off: mark + uint32(r.Prefix.Off), Len: uint32(r.Prefix.Len)}
	if d.window.Large() {
		e.Big = &haul.Big{Bytes: d.bytes, Off: e.Start + r.Value.Off, Len: r.Value.Len}
		return
	}
	key.Value = haul.Span{Off: mark + uint32(r.Value.Off), Len: uint32(r.Value.Len)}
}

// name decodes an encoded string, in place where it is plain.
func (d *snapshotDecoder) name(enc []byte) ([]byte, error) {
	plain, _, err := rdb.StringForm(enc)
	if err != nil || plain != nil {
		return plain, err
	}
	b := d.batch
	from := len(b.Extra)
	b.Extra, err = rdb.AppendString(b.Extra, enc)
	return b.Extra[from:len(b.Extra):len(b.Extra)], err
}

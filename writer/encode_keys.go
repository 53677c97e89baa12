package writer

import (
	"bufio"
	"fmt"
	"io"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/rdb"
)

func (c *encoder) snapshot(o *outbox, it item) error {
	o.selectDB(c.db(it.entry().DB))
	plain := 0
	for i := it.first; i < it.first+it.n; i++ {
		e := &it.batch.Entries[i]
		k := it.batch.KeyOf(e)
		if it.n > 1 && c.strings && isPlainString(it.batch, e, k) {
			plain++
			continue
		}
		if err := c.key(o, item{it.batch, i, 1, it.part, it.slot}, e, k); err != nil {
			return err
		}
	}
	if plain > 0 {
		return c.msetStrings(o, item{it.batch, it.first, it.n, partStrings, it.slot})
	}
	return nil
}

// key appends one key or function library.
func (c *encoder) key(o *outbox, it item, e *haul.Entry, k *haul.Key) error {
	b := it.batch
	switch {
	case e.Alone:
		return c.build(o, it, e, k)
	case e.Big != nil && !c.missing(k):
		return c.bigKey(o, it, e, k)
	}
	o.ops = append(o.ops, op{item: it, kind: opOne, left: 1, total: 1, count: 1})
	switch {
	case e.Kind == haul.KindFunction:
		c.loadFunction(o, k.Name)
		return nil
	case c.asSet(b.Bytes(k.Value), k):
		return c.set(o, b.Bytes(k.Value), k)
	case c.takes(k):
		c.restore(o, b, k)
		return nil
	}
	return c.rewritten(o, it, k)
}

// settable reports whether SET says all that there is to a string of the snapshot, unless it was idle.
func (c *encoder) settable(k *haul.Key) bool {
	return k.Type == rdb.TypeString && (k.Has&haul.HasExpire == 0 || c.pxat && k.ExpireAt > 0) && k.Has&haul.HasFreq == 0 && k.Prefix.Len == 0
}

// asSet decides whether a string of the snapshot can travel as SET.
func (c *encoder) asSet(enc []byte, k *haul.Key) bool {
	if !c.settable(k) || k.Idle > 0 {
		return false
	}
	plain, size, err := rdb.StringForm(enc)
	return err == nil && (plain != nil || size <= decodedLimit)
}

// isPlainString decides whether a key can be one of many in an MSET.
func isPlainString(b *haul.Batch, e *haul.Entry, k *haul.Key) bool {
	if e.Kind != haul.KindKey || e.Big != nil || e.Drop != haul.DropNone || k.Type != rdb.TypeString ||
		k.Has&(haul.HasExpire|haul.HasFreq) != 0 || k.Idle > 0 || k.Prefix.Len > 0 {
		return false
	}
	_, size, err := rdb.StringForm(b.Bytes(k.Value))
	return err == nil && size < refBytes
}

// setHead begins a SET, up to its key; setTail ends it.
func (c *encoder) setHead(o *outbox, k *haul.Key) {
	args := 3
	if k.Has&haul.HasExpire != 0 {
		args += 2
	}
	if c.existing == ExistingSkip {
		args++
	}
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, args)
	o.arena = append(o.arena, "$3\r\nSET\r\n"...)
	o.arena = resp.AppendBulk(o.arena, k.Name)
	o.grown(n)
}

func (c *encoder) setTail(o *outbox, k *haul.Key) {
	n := len(o.arena)
	if k.Has&haul.HasExpire != 0 {
		o.arena = append(o.arena, "$4\r\nPXAT\r\n"...)
		o.arena = resp.AppendBulkInt(o.arena, c.held(k.ExpireAt))
	}
	if c.existing == ExistingSkip {
		o.arena = append(o.arena, "$2\r\nNX\r\n"...)
	}
	o.grown(n)
}

func (c *encoder) set(o *outbox, enc []byte, k *haul.Key) error {
	c.setHead(o, k)
	if err := c.decodedString(o, enc); err != nil {
		return fmt.Errorf("key %q: %w", k.Name, err)
	}
	c.setTail(o, k)
	return nil
}

// decodedString appends an encoded string as a bulk string.
func (c *encoder) decodedString(o *outbox, enc []byte) error {
	plain, size, err := rdb.StringForm(enc)
	if err != nil {
		return err
	}
	if plain != nil {
		c.bulk(o, plain)
		return nil
	}
	n := len(o.arena)
	if enc[0]&0x3f != 3 { // an integer: its length is known once it is written
		var digits [24]byte
		text, err := rdb.AppendString(digits[:0], enc)
		o.arena = resp.AppendBulk(o.arena, text)
		o.grown(n)
		return err
	}
	o.arena = resp.AppendBulkHeader(o.arena, size)
	if o.arena, err = rdb.AppendString(o.arena, enc); err != nil {
		return err
	}
	o.arena = append(o.arena, '\r', '\n')
	o.grown(n)
	return nil
}

// msetStrings appends one MSET of the plain strings in the item's range.
func (c *encoder) msetStrings(o *outbox, it item) error {
	o.selectDB(c.db(it.entry().DB))
	count := 0
	for i := it.first; i < it.first+it.n; i++ {
		e := &it.batch.Entries[i]
		if isPlainString(it.batch, e, it.batch.KeyOf(e)) {
			count++
		}
	}
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, 1+2*count)
	o.arena = append(o.arena, "$4\r\nMSET\r\n"...)
	o.grown(n)
	for i := it.first; i < it.first+it.n; i++ {
		e := &it.batch.Entries[i]
		k := it.batch.KeyOf(e)
		if !isPlainString(it.batch, e, k) {
			continue
		}
		n := len(o.arena)
		o.arena = resp.AppendBulk(o.arena, k.Name)
		o.grown(n)
		if err := c.decodedString(o, it.batch.Bytes(k.Value)); err != nil {
			return fmt.Errorf("key %q: %w", k.Name, err)
		}
	}
	o.ops = append(o.ops, op{item: it, kind: opStrings, left: 1, total: 1, count: int32(count)})
	return nil
}

// restoreHead begins a RESTORE, up to the header of its payload.
func (c *encoder) restoreHead(o *outbox, k *haul.Key, payload int64) {
	args := 4
	ttl := int64(0)
	if k.Has&haul.HasExpire != 0 {
		args++
		ttl = max(c.held(k.ExpireAt), 1) // 0 would mean for ever
	}
	if c.existing != ExistingSkip {
		args++
	}
	if k.Has&(haul.HasIdle|haul.HasFreq) != 0 {
		args += 2
	}
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, args)
	o.arena = append(o.arena, "$7\r\nRESTORE\r\n"...)
	o.arena = resp.AppendBulk(o.arena, k.Name)
	o.arena = resp.AppendBulkInt(o.arena, ttl)
	o.arena = resp.AppendBulkHeader(o.arena, int(payload))
	o.grown(n)
}

// restoreTail ends a payload and its RESTORE.
func (c *encoder) restoreTail(o *outbox, k *haul.Key, footer uint16, crc uint64) {
	n := len(o.arena)
	o.arena = rdb.AppendFooter(o.arena, footer, crc)
	o.arena = append(o.arena, '\r', '\n')
	if c.existing != ExistingSkip {
		o.arena = append(o.arena, "$7\r\nREPLACE\r\n"...)
	}
	if k.Has&haul.HasExpire != 0 {
		o.arena = append(o.arena, "$6\r\nABSTTL\r\n"...)
	}
	switch {
	case k.Has&haul.HasFreq != 0:
		o.arena = append(o.arena, "$4\r\nFREQ\r\n"...)
		o.arena = resp.AppendBulkInt(o.arena, int64(k.Freq))
	case k.Has&haul.HasIdle != 0:
		o.arena = append(o.arena, "$8\r\nIDLETIME\r\n"...)
		o.arena = resp.AppendBulkInt(o.arena, k.Idle)
	}
	o.grown(n)
}

func (c *encoder) restore(o *outbox, b *haul.Batch, k *haul.Key) {
	prefix, value := b.Bytes(k.Prefix), b.Bytes(k.Value)
	c.restoreHead(o, k, int64(len(prefix)+1+len(value)+rdb.FooterSize))
	crc := c.payloadStart(o, prefix, k.Type)
	o.put(value)
	c.restoreTail(o, k, k.Footer, rdb.CRC64(crc, value))
}

// payloadStart appends what precedes the value in a payload and returns its checksum.
func (c *encoder) payloadStart(o *outbox, prefix []byte, t byte) uint64 {
	n := len(o.arena)
	o.arena = append(o.arena, prefix...)
	o.arena = append(o.arena, t)
	o.grown(n)
	return rdb.CRC64(0, o.arena[n:])
}

// bigKey writes a key whose value is read from the spool. It flushes the outbox, so that no more of the value than a
// piece is in memory.
func (c *encoder) bigKey(o *outbox, it item, e *haul.Entry, k *haul.Key) error {
	o.ops = append(o.ops, op{item: it, kind: opOne, left: 1, total: 1, count: 1})
	if c.settable(k) && k.Has&haul.HasIdle == 0 {
		return c.bigSet(o, e, k)
	}
	prefix := it.batch.Bytes(k.Prefix)
	c.restoreHead(o, k, int64(len(prefix)+1)+e.Big.Len+rdb.FooterSize)
	crc := c.payloadStart(o, prefix, k.Type)
	err := o.stream(e.Big.Section(haul.BigSpan{Len: e.Big.Len}), func(p []byte) { crc = rdb.CRC64(crc, p) })
	c.restoreTail(o, k, k.Footer, crc)
	return err
}

// bigSet writes a string that is read from the spool.
func (c *encoder) bigSet(o *outbox, e *haul.Entry, k *haul.Key) error {
	c.setHead(o, k)
	begun := false
	v := rdb.Value{Type: k.Type}
	err := v.Elements(bigReader(e), func(x *rdb.Element) error {
		n := len(o.arena)
		if !begun {
			begun = true
			o.arena = resp.AppendBulkHeader(o.arena, int(x.Size))
		}
		o.arena = append(o.arena, x.Value...)
		o.grown(n)
		return o.flushPart()
	})
	if err != nil {
		return err
	}
	o.end()
	c.setTail(o, k)
	return nil
}

// bigReader reads a value from the spool.
func bigReader(e *haul.Entry) io.Reader {
	return bufio.NewReaderSize(spoolReader{e.Big.Section(haul.BigSpan{Len: e.Big.Len})}, pieceBytes)
}

// spoolReader tells errors of the spool from those of a connection.
type spoolReader struct{ io.Reader }

func (r spoolReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF { //nolint:errorlint // io.SectionReader returns the value itself
		err = &spoolError{err}
	}
	return n, err
}

package writer

import (
	"bytes"
	"fmt"
	"io"
	"slices"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/rdb"
)

// encoder writes items as the commands that this target takes.
type encoder struct {
	existing Existing
	pxat     bool // SET has PXAT: Redis 6.2
	strings  bool // keys of the snapshot that are plain strings travel in one MSET a batch
	function *command.Spec
}

// decodedLimit is the size up to which a compressed string is sent decoded; a larger one goes as a payload, which
// the target decodes.
const decodedLimit = 1 << 20

// encode appends an item to the outbox, and what is to be expected for it to o.ops.
func (c *encoder) encode(o *outbox, it item) error {
	before, ops := o.size, len(o.ops)
	var err error
	switch {
	case it.part == partStrings:
		err = c.msetStrings(o, it)
	case it.batch.Snapshot && it.entry().Kind != haul.KindCommand:
		err = c.snapshot(o, it)
	default:
		err = c.commands(o, it)
	}
	if n := len(o.ops); n > ops {
		o.ops[n-1].size += int32(o.size - before)
	}
	return err
}

func (c *encoder) snapshot(o *outbox, it item) error {
	o.selectDB(it.entry().DB)
	plain := 0
	for i := it.first; i < it.first+it.n; i++ {
		e := &it.batch.Entries[i]
		k := it.batch.KeyOf(e)
		if it.n > 1 && c.strings && isPlainString(it.batch, e, k) {
			plain++
			continue
		}
		if err := c.key(o, item{it.batch, i, 1, it.part}, e, k); err != nil {
			return err
		}
	}
	if plain > 0 {
		return c.msetStrings(o, item{it.batch, it.first, it.n, partStrings})
	}
	return nil
}

// key appends one key or function library.
func (c *encoder) key(o *outbox, it item, e *haul.Entry, k *haul.Key) error {
	b := it.batch
	if e.Big != nil {
		return c.bigKey(o, it, e, k)
	}
	o.ops = append(o.ops, op{item: it, kind: opOne, left: 1, total: 1, count: 1})
	switch {
	case e.Kind == haul.KindFunction:
		c.loadFunction(o, k.Name)
	case k.Type == rdb.TypeString && c.asSet(b.Bytes(k.Value), k):
		return c.set(o, b.Bytes(k.Value), k)
	default:
		c.restore(o, b, k)
	}
	return nil
}

func (c *encoder) loadFunction(o *outbox, code []byte) {
	o.text("*4\r\n$8\r\nFUNCTION\r\n$4\r\nLOAD\r\n$7\r\nREPLACE\r\n")
	c.bulk(o, code)
}

func (c *encoder) bulk(o *outbox, v []byte) {
	n := len(o.arena)
	o.arena = resp.AppendBulkHeader(o.arena, len(v))
	o.grown(n)
	o.put(v)
	o.end()
}

// end finishes a bulk string.
func (o *outbox) end() {
	o.arena = append(o.arena, '\r', '\n')
	o.size += 2
}

// asSet decides whether a string of the snapshot can travel as SET.
func (c *encoder) asSet(enc []byte, k *haul.Key) bool {
	if k.Has&haul.HasExpire != 0 && (!c.pxat || k.ExpireAt <= 0) || k.Has&haul.HasFreq != 0 || k.Idle > 0 || k.Prefix.Len > 0 {
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
		o.arena = resp.AppendBulkInt(o.arena, k.ExpireAt)
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
	o.selectDB(it.entry().DB)
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
		ttl = max(k.ExpireAt, 1) // 0 would mean for ever
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
func (c *encoder) restoreTail(o *outbox, k *haul.Key, crc uint64) {
	n := len(o.arena)
	o.arena = rdb.AppendFooter(o.arena, k.Footer, crc)
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
	c.restoreTail(o, k, rdb.CRC64(crc, value))
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
	if head, ok := c.bigString(e, k); ok {
		size := e.Big.Len - head
		c.setHead(o, k)
		o.arena = resp.AppendBulkHeader(o.arena, int(size))
		if err := o.stream(e.Big.Section(haul.BigSpan{Off: head, Len: size}), nil); err != nil {
			return err
		}
		o.end()
		c.setTail(o, k)
		return nil
	}
	prefix := it.batch.Bytes(k.Prefix)
	c.restoreHead(o, k, int64(len(prefix)+1)+e.Big.Len+rdb.FooterSize)
	crc := c.payloadStart(o, prefix, k.Type)
	err := o.stream(e.Big.Section(haul.BigSpan{Len: e.Big.Len}), func(p []byte) { crc = rdb.CRC64(crc, p) })
	c.restoreTail(o, k, crc)
	return err
}

// bigString tells whether a big value is a plain string that can travel as SET, and where in it the string begins.
func (c *encoder) bigString(e *haul.Entry, k *haul.Key) (head int64, ok bool) {
	if k.Type != rdb.TypeString || k.Has&haul.HasExpire != 0 && (!c.pxat || k.ExpireAt <= 0) ||
		k.Has&(haul.HasFreq|haul.HasIdle) != 0 || k.Prefix.Len > 0 {
		return 0, false
	}
	var first [1]byte
	if _, err := e.Big.Bytes.ReadAt(first[:], e.Big.Off); err != nil {
		return 0, false
	}
	switch {
	case first[0] == 0x80:
		return 5, true
	case first[0] == 0x81:
		return 9, true
	}
	return 0, false
}

// commands appends entries of the stream.
func (c *encoder) commands(o *outbox, it item) error {
	b, e := it.batch, it.entry()
	slot, partial := it.part.slot()
	switch {
	case e.Big != nil:
		return c.bigCommand(o, it)
	case e.Kind == haul.KindTransaction && it.n == 1:
		c.transaction(o, it)
		return nil
	case partial:
		o.selectDB(e.DB)
		c.split(o, b, &b.Commands[e.First], slot)
		o.ops = append(o.ops, op{item: it, kind: opOne, left: 1, total: 1, count: 1})
		return nil
	}
	c.run(o, it)
	return nil
}

// run appends consecutive entries, each one command: as they stand in the batch, in as few pieces as possible.
func (c *encoder) run(o *outbox, it item) {
	b := it.batch
	for i := it.first; i < it.first+it.n; {
		e := &b.Entries[i]
		if e.Kind == haul.KindTransaction {
			c.transaction(o, item{b, i, 1, whole})
			i++
			continue
		}
		o.selectDB(e.DB)
		cmd := &b.Commands[e.First]
		from, to := cmd.Raw.Off, cmd.Raw.Off+cmd.Raw.Len
		j := i + 1
		if cmd.Spec == c.function {
			c.command(o, b, cmd)
		} else {
			for ; j < it.first+it.n; j++ {
				next := &b.Entries[j]
				if next.Kind != haul.KindCommand || next.DB != e.DB {
					break
				}
				raw := &b.Commands[next.First]
				if raw.Raw.Off != to || raw.Spec == c.function {
					break
				}
				to += raw.Raw.Len
			}
			o.put(b.Buf[from:to])
		}
		n := int32(j - i)
		o.ops = append(o.ops, op{item: item{b, i, j - i, it.part}, kind: opEntries, left: n, total: n, count: n})
		i = j
	}
}

// command appends one command. FUNCTION LOAD gains REPLACE, so that it can be repeated.
func (c *encoder) command(o *outbox, b *haul.Batch, cmd *haul.Command) {
	if cmd.Spec == c.function && cmd.NArg == 3 && bytes.EqualFold(b.Arg(cmd, 1), []byte("LOAD")) {
		c.loadFunction(o, b.Arg(cmd, 2))
		return
	}
	o.put(b.Bytes(cmd.Raw))
}

// transaction appends MULTI, those commands that belong to the item's part, and EXEC.
func (c *encoder) transaction(o *outbox, it item) {
	b, e := it.batch, it.entry()
	slot, partial := it.part.slot()
	cmds := b.CommandsOf(e)
	queued, selected := int32(0), false
	o.selectDB(e.DB)
	o.text("*1\r\n$5\r\nMULTI\r\n")
	for i := range cmds {
		cmd := &cmds[i]
		if cmd.DB != o.db {
			o.queueSelect(cmd.DB)
			selected = true
			queued++
		}
		switch {
		case !partial:
			c.command(o, b, cmd)
		default:
			slots, _ := slotsOf(b, cmd)
			if !slices.Contains(slots, slot) {
				continue
			}
			if len(slots) > 1 {
				c.split(o, b, cmd, slot)
			} else {
				c.command(o, b, cmd)
			}
		}
		queued++
	}
	o.text("*1\r\n$4\r\nEXEC\r\n")
	if selected {
		o.db = unknownDB // if the transaction is refused, its SELECT never happens
	}
	o.ops = append(o.ops, op{item: it, kind: opTx, left: queued + 2, total: queued + 2, count: 1})
}

// queueSelect selects a database within a transaction.
func (o *outbox) queueSelect(db int32) {
	o.db = db
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, 2)
	o.arena = resp.AppendBulkString(o.arena, "SELECT")
	o.arena = resp.AppendBulkInt(o.arena, int64(db))
	o.grown(n)
}

// split appends what belongs to slot of a command that may be cut by keys.
func (c *encoder) split(o *outbox, b *haul.Batch, cmd *haul.Command, slot uint16) {
	step, num := cmd.Spec.Split()
	groups, tail := splitGroups(b, cmd, step)
	count := 0
	for g := range groups {
		if command.Slot(b.Arg(cmd, groups[g])) == slot {
			count++
		}
	}
	head := 1
	if num > 0 {
		head = 2
	}
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, head+count*step+int(cmd.NArg)-tail)
	o.arena = resp.AppendBulk(o.arena, b.Arg(cmd, 0))
	if num > 0 {
		o.arena = resp.AppendBulkInt(o.arena, int64(count))
	}
	o.grown(n)
	for _, g := range groups {
		if command.Slot(b.Arg(cmd, g)) != slot {
			continue
		}
		for i := g; i < g+step; i++ {
			c.bulk(o, b.Arg(cmd, i))
		}
	}
	for i := tail; i < int(cmd.NArg); i++ {
		c.bulk(o, b.Arg(cmd, i))
	}
}

// splitGroups returns the indices of the keys of a command that may be cut, and that of the first argument behind them.
func splitGroups(b *haul.Batch, cmd *haul.Command, step int) (keys []int, tail int) {
	keys, err := cmd.Spec.Keys(nil, int(cmd.NArg), func(i int) []byte { return b.Arg(cmd, i) })
	if err != nil || len(keys) == 0 {
		return nil, int(cmd.NArg)
	}
	return keys, keys[len(keys)-1] + step
}

// bigCommand writes a command that is read from the spool.
func (c *encoder) bigCommand(o *outbox, it item) error {
	e := it.entry()
	o.selectDB(e.DB)
	o.ops = append(o.ops, op{item: it, kind: opOne, left: 1, total: 1, count: 1})
	slot, partial := it.part.slot()
	if !partial {
		return o.stream(e.Big.Section(haul.BigSpan{Len: e.Big.Len}), nil)
	}
	return c.bigSplit(o, it, slot)
}

// bigSplit is split for a command that is read from the spool.
func (c *encoder) bigSplit(o *outbox, it item, slot uint16) error {
	e := it.entry()
	big, spec := e.Big, it.batch.Commands[e.First].Spec
	step, num := spec.Split()
	keys, err := bigKeys(e, spec)
	if err != nil {
		return err
	}
	var mine []int
	for _, k := range keys {
		name, err := bigArg(big, k)
		if err != nil {
			return err
		}
		if command.Slot(name) == slot {
			mine = append(mine, k)
		}
	}
	head := 1
	if num > 0 {
		head = 2
	}
	tail := keys[len(keys)-1] + step
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, head+len(mine)*step+len(big.Args)-tail)
	name, err := bigArg(big, 0)
	if err != nil {
		return err
	}
	o.arena = resp.AppendBulk(o.arena, name)
	if num > 0 {
		o.arena = resp.AppendBulkInt(o.arena, int64(len(mine)))
	}
	o.grown(n)
	args := make([]int, 0, len(mine)*step)
	for _, k := range mine {
		for i := k; i < k+step; i++ {
			args = append(args, i)
		}
	}
	for i := tail; i < len(big.Args); i++ {
		args = append(args, i)
	}
	for _, i := range args {
		o.arena = resp.AppendBulkHeader(o.arena, int(big.Args[i].Len))
		if err := o.stream(big.Section(big.Args[i]), nil); err != nil {
			return err
		}
		o.end()
	}
	return nil
}

// bigArg reads one argument of a big command.
func bigArg(big *haul.Big, i int) ([]byte, error) {
	p := make([]byte, big.Args[i].Len)
	_, err := io.ReadFull(big.Section(big.Args[i]), p)
	return p, err
}

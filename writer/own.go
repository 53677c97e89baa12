package writer

import (
	"slices"
	"strconv"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// ownKey is a key that the writer itself writes, or forgets to be ahead.
type ownKey struct {
	checkpoint.Ahead
	value haul.Value
}

// ownBatchBytes is how much of values goes into one batch, unless a single one is larger.
const ownBatchBytes = 64 << 20

// fitting returns how many keys go into one batch.
func fitting(keys []ownKey) int {
	size := 0
	for i := range keys {
		if size += len(keys[i].value.Payload); size > ownBatchBytes && i > 0 {
			return i
		}
	}
	return len(keys)
}

// ownBatch builds a batch of transactions, one for each slot. What is said of keys that are ahead is in the same
// transaction as the keys, so that a target which has the one has the other.
type ownBatch struct {
	*haul.Batch
	store *checkpoint.Store
}

// sendOwn gives lanes a transaction for each slot of keys, made by add. hold, unless it is nil, is not complete before
// all of them are.
func (c *cluster) sendOwn(at place, keys []ownKey, hold *haul.Batch, add func(b *ownBatch, keys []ownKey)) {
	slices.SortStableFunc(keys, func(a, b ownKey) int { return int(a.Slot) - int(b.Slot) })
	slots := 0
	for i := range keys {
		if i == 0 || keys[i].Slot != keys[i-1].Slot {
			slots++
		}
	}
	if hold != nil {
		hold.Expect(1)
	}
	size := int64(0)
	b := &ownBatch{store: c.d.cfg.Store}
	b.Batch = haul.NewOwn(slots, func() {
		c.rereads.held.Add(-size)
		signal(c.rereads.fewer)
		if hold != nil {
			hold.Done(1)
		}
	})
	b.End = at.end
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && keys[n].Slot == keys[0].Slot {
			n++
		}
		b.transaction(at, c.d.appliedTo(keys[0].Slot), keys[:n], add)
		keys = keys[n:]
	}
	c.d.rewriter.own(b.Batch)
	size = int64(len(b.Buf))
	c.rereads.held.Add(size)
	if c.d.cfg.Grace > 0 && c.d.cfg.PutOff.Known() {
		putOff(b.Batch, c.d.cfg.PutOff, c.d.cfg.DBs)
	}
	for i := range b.Entries {
		slot := command.Slot(b.Arg(&b.Commands[b.Entries[i].First], 1))
		c.send(item{b.Batch, uint32(i), 1, slotPart(slot), slot})
	}
}

// transaction appends the entry of one slot. The fence of the slot, which is written with it, must not go back behind
// what the slot has got in an earlier run.
func (b *ownBatch) transaction(at place, applied int64, keys []ownKey, add func(b *ownBatch, keys []ownKey)) {
	e := at.entry
	if applied > e.End {
		e.Start, e.End, e.Resume = applied, applied, applied
	}
	e.Kind, e.First = haul.KindTransaction, uint32(len(b.Commands))
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && keys[n].Key.DB == keys[0].Key.DB {
			n++
		}
		add(b, keys[:n])
		keys = keys[n:]
	}
	e.N = uint32(len(b.Commands)) - e.First
	b.Entries = append(b.Entries, e)
}

// restore appends what writes keys of one slot and database, and says that they are ahead.
func (b *ownBatch) restore(keys []ownKey) {
	fields := []string{"HSET", b.list(keys)}
	for _, k := range keys {
		name, value := k.Field()
		fields = append(fields, name, value)
		b.write(k.Key, k.value)
	}
	if b.store != nil {
		b.command(keys[0].Key.DB, fields...)
	}
}

// write appends the command that makes a key what the source has.
func (b *ownBatch) write(k haul.KeyName, v haul.Value) {
	switch {
	case v.Payload == "":
		b.command(k.DB, "DEL", k.Name)
	case v.ExpireAt == 0:
		b.command(k.DB, "RESTORE", k.Name, "0", v.Payload, "REPLACE")
	default:
		b.command(k.DB, "RESTORE", k.Name, strconv.FormatInt(v.ExpireAt, 10), v.Payload, "REPLACE", "ABSTTL")
	}
}

// forget appends what says that keys of one slot and database are not ahead any more.
func (b *ownBatch) forget(keys []ownKey) {
	fields := []string{"HDEL", b.list(keys)}
	for _, k := range keys {
		fields = append(fields, checkpoint.AheadField(k.Key))
	}
	b.command(keys[0].Key.DB, fields...)
}

// list is the key of the hash that says which of these keys are ahead.
func (b *ownBatch) list(keys []ownKey) string {
	if b.store == nil {
		return ""
	}
	return b.store.Keys().Ahead(keys[0].Slot)
}

// command appends one command.
func (b *ownBatch) command(db int32, args ...string) {
	cmd := haul.Command{Spec: command.Lookup([]byte(args[0])), Arg: uint32(len(b.Args)), NArg: uint32(len(args)), DB: db}
	from := len(b.Buf)
	b.Buf = resp.AppendArray(b.Buf, len(args))
	for _, a := range args {
		b.Buf = resp.AppendBulkString(b.Buf, a)
		b.Args = append(b.Args, haul.Span{Off: uint32(len(b.Buf) - 2 - len(a)), Len: uint32(len(a))})
	}
	cmd.Raw = haul.Span{Off: uint32(from), Len: uint32(len(b.Buf) - from)}
	b.Commands = append(b.Commands, cmd)
}

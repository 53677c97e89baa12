package writer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/rdb"
)

// A large value in one RESTORE would block the target for as long as it takes to build it. So it is built from many small
// commands, under a name of keyhaul's own in the same slot and database, and takes its key's place at the end, in one
// step. A process that dies meanwhile leaves a part under that name: what is built there next removes it first, as
// does the end of the haul.

// buildBytes is about how large one of the commands gets that build a value.
const buildBytes = 32 << 10

// builds reports whether the value of a key of the snapshot is built from commands. A string is one SET in any case, and
// what modules have made is known to them alone. A value that is read from the spool and that the target does not take as it is
// has no other form.
func (c *encoder) builds(e *haul.Entry, k *haul.Key) bool {
	if c.part == nil || e.Kind != haul.KindKey || k.Type == rdb.TypeString || k.Type == rdb.TypeModule2 || c.missing(k) {
		return false
	}
	size := int64(k.Value.Len)
	if e.Big != nil {
		size = e.Big.Len
	}
	return c.large > 0 && size >= c.large && k.Prefix.Len == 0 || e.Big != nil && !c.takes(k)
}

// setApart marks the keys of a batch whose values are built.
func (c *encoder) setApart(b *haul.Batch) {
	for i := range b.Entries {
		e := &b.Entries[i]
		e.Alone = c.builds(e, b.KeyOf(e))
	}
}

// partKeys returns the name under which the value of a key is built. While its slot moves, the lane may be building another
// value of the slot.
func partKeys(k checkpoint.Keys, cluster bool) func(key []byte, moving bool) string {
	if !cluster {
		return func([]byte, bool) string { return k.WholePart() }
	}
	return func(key []byte, moving bool) string {
		if moving {
			return k.MovingPart(command.Slot(key))
		}
		return k.Part(command.Slot(key))
	}
}

// errUnbuilt says that the rest of a value need not be sent: the target has refused some of it.
var errUnbuilt = errors.New("a command that builds a value was refused")

// build appends what builds the value of a key, flushing the outbox as it goes.
func (c *encoder) build(o *outbox, it item, e *haul.Entry, k *haul.Key) error {
	part := c.part(k.Name, o.moving)
	o.unfinished = true
	defer func() { o.unfinished = false }()
	o.step(it, "UNLINK", part)
	v := rdb.Value{Type: k.Type, Valkey: fromValkey(k)}
	from := func() io.Reader { return bytes.NewReader(it.batch.Bytes(k.Value)) }
	if e.Big != nil {
		from = func() io.Reader { return bigReader(e) }
	}
	lost, err := c.to.Commands(v, []byte(part), from, buildBytes, func(args ...[]byte) error {
		n := len(o.arena)
		o.arena = resp.AppendArray(o.arena, len(args))
		for _, a := range args {
			o.arena = resp.AppendBulk(o.arena, a)
		}
		o.grown(n)
		o.ops = append(o.ops, op{item: it, kind: opBuild, left: 1, total: 1})
		return o.flushBuilt()
	})
	if err == nil && c.existing == ExistingSkip && k.Has&haul.HasExpire != 0 {
		o.step(it, "PEXPIREAT", part, strconv.FormatInt(c.held(k.ExpireAt), 10))
	}
	if err == nil {
		err = o.answered()
	}
	if errors.Is(err, errUnbuilt) {
		o.unfinished = false
		o.control(opUnbuilt, "UNLINK", part)
		o.answers(it)
		return nil
	}
	if err != nil {
		return err
	}
	if lost == "" && k.Prefix.Len > 0 {
		_, lost = c.to.Form(k.Type, v.Valkey, true)
	}
	leave := false
	if lost != "" {
		if leave, err = c.lost(it, k, lost, true); err != nil {
			return err
		}
	}
	o.unfinished = false
	switch {
	case leave:
		o.control(opBuilt, "UNLINK", part)
		o.answers(it)
	case c.existing == ExistingSkip:
		c.place(o, it, k, part)
	default:
		c.replace(o, it, k, part)
	}
	return nil
}

// replace appends what gives a key the value that was built. What the key had is freed behind the scenes: else RENAME
// would free it, for as long as that takes.
func (c *encoder) replace(o *outbox, it item, k *haul.Key, part string) {
	calls := [][]string{{"MULTI"}, {"UNLINK", string(k.Name)}, {"RENAME", part, string(k.Name)}}
	if k.Has&haul.HasExpire != 0 { // not before: if it has passed, there is no part to be renamed
		calls = append(calls, []string{"PEXPIREAT", string(k.Name), strconv.FormatInt(c.held(k.ExpireAt), 10)})
	}
	calls = append(calls, []string{"EXEC"})
	n := len(o.arena)
	for _, args := range calls {
		o.arena = resp.AppendCommand(o.arena, args...)
	}
	o.grown(n)
	o.ops = append(o.ops, op{kind: opBuilt, left: int32(len(calls)), total: int32(len(calls))})
	o.answers(it)
}

// place appends what gives a key the value that was built unless there is such a key. The part is removed then, whatever is
// answered to that: the item is decided.
func (c *encoder) place(o *outbox, it item, k *haul.Key, part string) {
	o.control(opBuilt, "RENAMENX", part, string(k.Name))
	o.answers(it)
	o.control(opPing, "UNLINK", part)
}

// step appends a command that is one of several for an item.
func (o *outbox) step(it item, args ...string) {
	o.control(opBuild, args...)
	o.ops[len(o.ops)-1].item = it
}

// answers says that the op which was appended last is the one that decides an item.
func (o *outbox) answers(it item) {
	x := &o.ops[len(o.ops)-1]
	x.item, x.count = it, 1
}

// flushPart writes what has gathered of an item if it is enough.
func (o *outbox) flushPart() error {
	if o.size < flushBytes {
		return nil
	}
	err := o.flush()
	if o.moved != nil {
		o.moved()
	}
	return err
}

// flushBuilt is flushPart between commands that build a value. Of a slot that moves little is on its way at a time.
func (o *outbox) flushBuilt() error {
	switch {
	case o.size < flushBytes:
		return nil
	case o.moving:
		return o.answered()
	case o.refused():
		return errUnbuilt
	}
	return o.flushPart()
}

// answered writes what has gathered of an item, and waits until all of it is answered. A value of which a piece is missing must
// not be put in place: where keys are left as they are it would stay there.
func (o *outbox) answered() error {
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.settle(); err != nil {
		return err
	}
	if o.refused() {
		return errUnbuilt
	}
	return nil
}

// settle waits until everything that was written is answered. It belongs to the writing goroutine.
func (l *lane) settle(ctx context.Context) error {
	for l.settled.Load() < l.sent {
		select {
		case <-l.drained:
		case <-ctx.Done():
			return net.ErrClosed
		}
	}
	return nil
}

// buildReply handles the reply to one of the commands that build a value. What is refused is decided on with the last of them: until
// then the writing goroutine may be at work on the item.
func (l *lane) buildReply(b []byte) {
	if b[0] == resp.KindError && l.broken == nil {
		l.broken = errorOf(b)
		l.unbuilt.Store(true)
	}
}

// builtReply handles a reply that decides an item which was built.
func (l *lane) builtReply(o *op, b []byte) {
	switch {
	case l.broken != nil:
		why := l.broken
		l.forgetBroken()
		l.refused(o, o.item, why)
	case o.kind == opUnbuilt: // because of another one before it
		l.again(o, o.item, nil)
	case o.total > 1:
		l.txReply(o, b)
	case b[0] == resp.KindError:
		if e := errorOf(b); !l.d.expired(o, e) {
			l.refused(o, o.item, e)
		}
	case l.d.cfg.Existing == ExistingSkip && b[0] == resp.KindInteger && b[1] == '0':
		l.d.count("existing_skipped", 1)
	}
}

// expired reports whether e says that there is nothing to be put in place because deadlines have passed: of all fields of a hash, or,
// where the value gets its own before, that one. What the key had is removed then, unless it is to be left as it is.
func (d *dispatcher) expired(o *op, e *resp.Error) bool {
	if o.kind != opBuilt || e.Text != "ERR no such key" {
		return false
	}
	k := o.batch.KeyOf(o.entry())
	return rdb.FieldTTLs(k.Type) || d.cfg.Existing == ExistingSkip && k.Has&haul.HasExpire != 0
}

func (l *lane) forgetBroken() {
	l.broken = nil
	l.unbuilt.Store(false)
}

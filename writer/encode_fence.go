package writer

import (
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// begin opens a transaction of keyhaul's own.
func (o *outbox) begin() {
	o.text("*1\r\n$5\r\nMULTI\r\n")
	o.ops = append(o.ops, op{kind: opMulti, left: 1, total: 1})
	o.multi, o.moves = true, false
}

// discard gives the open transaction up.
func (o *outbox) discard() {
	o.text("*1\r\n$7\r\nDISCARD\r\n")
	o.ops = append(o.ops, op{kind: opDiscard, left: 1, total: 1})
	o.ended()
}

// ended says that there is no transaction any more. If it is refused, its SELECT never happens.
func (o *outbox) ended() {
	if o.moves {
		o.db = unknownDB
	}
	o.multi = false
}

// exec writes the fence of the open transaction and executes it. after are commands that go before the fence.
func (o *outbox) exec(key string, f checkpoint.Fence, after [][]string) {
	replies := int32(2)
	for _, args := range after {
		n := len(o.arena)
		o.arena = resp.AppendCommand(o.arena, args...)
		o.grown(n)
		replies++
		if args[0] == "SELECT" {
			o.db, o.moves = unknownDB, true
		}
	}
	if o.db != 0 {
		o.queueSelect(0)
		o.moves = true
		replies++
	}
	o.setFence(key, f)
	o.text("*1\r\n$4\r\nEXEC\r\n")
	o.ops = append(o.ops, op{kind: opExec, left: replies, total: replies, fence: f.Applied()})
	o.ended()
}

// setFence appends the SET of a fence or a mark.
func (o *outbox) setFence(key string, f checkpoint.Fence) {
	var buf [128]byte
	text := f.Append(buf[:0])
	n := len(o.arena)
	o.arena = append(o.arena, "*3\r\n$3\r\nSET\r\n"...)
	o.arena = resp.AppendBulkString(o.arena, key)
	o.arena = resp.AppendBulk(o.arena, text)
	o.grown(n)
}

// fenceAt is the fence behind an entry.
func fenceAt(b *haul.Batch, e *haul.Entry) checkpoint.Fence {
	at := b.End
	at.Offset, at.DB = e.Resume, e.After
	return checkpoint.Fence{Generation: at.Generation, At: at, Sub: e.End - e.Resume}
}

// flushing appends a command that may remove keyhaul's own keys, in a transaction with what writes them anew, if the
// target has transactions.
func (c *encoder) flushing(o *outbox, it item) {
	b, cmd := it.batch, &it.batch.Commands[it.entry().First]
	if c.plain {
		o.put(b.Bytes(cmd.Raw))
		o.expect(op{item: it, kind: opOne, left: 1, total: 1, count: 1})
		for _, args := range c.restand(b, cmd) {
			o.control(opPing, args...)
		}
		o.db = unknownDB
		return
	}
	o.text("*1\r\n$5\r\nMULTI\r\n")
	c.command(o, b, cmd)
	n := 3 + c.stand(o, b, cmd)
	o.text("*1\r\n$4\r\nEXEC\r\n")
	o.db = unknownDB
	o.ops = append(o.ops, op{item: it, kind: opTx, left: n, total: n, count: 1})
}

// stand appends what writes keyhaul's own keys anew behind a FLUSHALL, FLUSHDB or SWAPDB, and returns the number of
// commands.
func (c *encoder) stand(o *outbox, b *haul.Batch, cmd *haul.Command) int32 {
	calls := c.restand(b, cmd)
	for _, args := range calls {
		n := len(o.arena)
		o.arena = resp.AppendCommand(o.arena, args...)
		o.grown(n)
	}
	return int32(len(calls))
}

// restand returns what writes keyhaul's own keys anew. A SWAPDB has moved them to another database, where they are
// removed.
func (c *encoder) restand(b *haul.Batch, cmd *haul.Command) [][]string {
	var calls [][]string
	if cmd.Spec.Name == "SWAPDB" && cmd.NArg == 3 {
		one, ok1 := command.ParseDB(b.Arg(cmd, 1))
		two, ok2 := command.ParseDB(b.Arg(cmd, 2))
		one, two = c.dbs.Of(one), c.dbs.Of(two)
		if other := one + two; ok1 && ok2 && other > 0 && (one == 0 || two == 0) {
			calls = append(calls, []string{"SELECT", strconv.Itoa(int(other))}, append([]string{"DEL"}, c.own...))
		}
	}
	calls = append(calls, []string{"SELECT", "0"})
	return append(calls, c.standing()...)
}

// deferred appends a command with its deadlines held back: the target's clock must not decide what the source still may.
func (c *encoder) deferred(o *outbox, b *haul.Batch, cmd *haul.Command) {
	var room [4]command.Deadline
	all := cmd.Spec.Deadlines(room[:0], int(cmd.NArg), func(i int) []byte { return b.Arg(cmd, i) })
	from, end := cmd.Raw.Off, cmd.Raw.Off+cmd.Raw.Len
	for _, x := range all {
		arg := b.Args[cmd.Arg+uint32(x.Arg)]
		n, err := strconv.ParseInt(string(b.Bytes(arg)), 10, 64)
		if err != nil {
			continue // the target will refuse it as the source would have
		}
		head := arg.Off - uint32(len("$\r\n")+len(strconv.Itoa(int(arg.Len))))
		o.put(b.Buf[from:head])
		k := len(o.arena)
		o.arena = resp.AppendBulkInt(o.arena, n+c.graceOf(x, b.At))
		o.grown(k)
		from = arg.Off + arg.Len + 2
	}
	o.put(b.Buf[from:end])
}

// bigDeferred is deferred for a command that is read from the spool.
func (c *encoder) bigDeferred(o *outbox, big *haul.Big, spec *command.Spec, at int64) error {
	var readErr error
	arg := func(i int) []byte {
		p, err := bigArg(big, i)
		if err != nil {
			readErr = &spoolError{err}
		}
		return p
	}
	from := int64(0)
	for _, x := range spec.Deadlines(nil, len(big.Args), arg) {
		n, err := strconv.ParseInt(string(arg(x.Arg)), 10, 64)
		if readErr != nil {
			return readErr
		}
		if err != nil {
			continue
		}
		span := big.Args[x.Arg]
		head := span.Off - int64(len("$\r\n")+len(strconv.FormatInt(span.Len, 10)))
		if err := o.stream(big.Section(haul.BigSpan{Off: from, Len: head - from}), nil); err != nil {
			return err
		}
		k := len(o.arena)
		o.arena = resp.AppendBulkInt(o.arena, n+c.graceOf(x, at))
		o.grown(k)
		from = span.Off + span.Len + 2
	}
	if readErr != nil {
		return readErr
	}
	return o.stream(big.Section(haul.BigSpan{Off: from, Len: big.Len - from}), nil)
}

// graceOf is the grace in the unit of a deadline. One that counts from when the source has executed its command, at, is
// earlier by what has passed since.
func (c *encoder) graceOf(x command.Deadline, at int64) int64 {
	grace := c.grace
	if x.Relative && at > 0 {
		grace += at - time.Now().UnixMilli()
	}
	if x.Seconds {
		return grace / 1000
	}
	return grace
}

// option appends an argument behind the keys of a command that is split, a deadline held back.
func (c *encoder) option(o *outbox, b *haul.Batch, cmd *haul.Command, i int) {
	if c.grace > 0 && cmd.Spec.HasDeadline() {
		for _, x := range cmd.Spec.Deadlines(nil, int(cmd.NArg), func(i int) []byte { return b.Arg(cmd, i) }) {
			if n, err := strconv.ParseInt(string(b.Arg(cmd, i)), 10, 64); x.Arg == i && err == nil {
				k := len(o.arena)
				o.arena = resp.AppendBulkInt(o.arena, n+c.graceOf(x, b.At))
				o.grown(k)
				return
			}
		}
	}
	c.bulk(o, b.Arg(cmd, i))
}

// held returns a deadline of the snapshot as it is written.
func (c *encoder) held(at int64) int64 {
	if c.grace > 0 {
		return max(at, 1) + c.grace
	}
	return at
}

package haul

import (
	"sync/atomic"
	"time"
)

// Sizes of a batch: it is handed on when one of them is reached, or when its source has nothing more at the moment.
const (
	BatchBytes   = 64 << 10
	BatchEntries = 512
)

// Batch is a run of entries of one link that share one buffer. The reader fills it, the filters and the writer read
// it, and once every entry is Done it goes back to its Channel.
type Batch struct {
	Buf      []byte
	Entries  []Entry
	Keys     []Key
	Commands []Command
	Args     []Span
	Extra    []byte // decoded names that the buffer does not have

	Snapshot bool                           // entries of the snapshot; End.Offset then counts bytes of the RDB
	Format   Format                         // of that snapshot
	Own      bool                           // entries that the writer has made: see NewOwn
	Refused  func(entry uint32, why string) // of one of the writer's own: hears of an entry that the target refuses for what it is; nil if that is treated as any other
	End      Position                       // where the link stands once the whole batch is applied

	// Received tells when the byte of the stream at an offset was received, to a tenth of a second; zero if that is not
	// known. A stream's batch has it: times to live of older sources count from then.
	Received func(offset int64) time.Time

	pending atomic.Int32 // entries not yet acknowledged
	ticket  *ticket
	weight  int64 // bytes held of the channel's bound
	home    *Channel
	done    func() // of one of the writer's own, which has no home
}

// Format is the version of a snapshot's format.
type Format struct {
	Version int
	Valkey  bool
}

// NewOwn returns a batch that a writer makes itself, beside those of its channel. It is in nobody's bound, and moves no
// watermark: once all of its entries, n in number, are Done, done is called. Fences do not say whether these entries
// were applied, for they stand between two positions of the stream.
func NewOwn(n int, done func()) *Batch {
	b := &Batch{Entries: make([]Entry, 0, n), Own: true, done: done}
	b.pending.Store(int32(n))
	return b
}

// Bytes returns the bytes of s.
func (b *Batch) Bytes(s Span) []byte { return b.Buf[s.Off : s.Off+s.Len : s.Off+s.Len] }

// Arg returns argument i of c; argument 0 is the command's name.
func (b *Batch) Arg(c *Command, i int) []byte { return b.Bytes(b.Args[c.Arg+uint32(i)]) }

// CommandsOf returns the commands of a stream entry.
func (b *Batch) CommandsOf(e *Entry) []Command { return b.Commands[e.First : e.First+e.N] }

// KeyOf returns the key of a snapshot entry.
func (b *Batch) KeyOf(e *Entry) *Key { return &b.Keys[e.First] }

// Rewrite gives the batch another buffer in which a writer has put what it has written anew. By how much it is larger
// counts in the channel's bound; that is not waited for, the reader will have to.
func (b *Batch) Rewrite(buf []byte) {
	if add := int64(cap(buf) - cap(b.Buf)); add > 0 && b.home != nil {
		b.weight += add
		b.home.share.release(-add)
	}
	b.Buf = buf
}

// Expect says that n more parts must be Done than the batch has entries, because an entry is written in parts.
func (b *Batch) Expect(n int) { b.pending.Add(int32(n)) }

// Done acknowledges n more entries of the batch. After the last one the batch must not be touched any more.
func (b *Batch) Done(n int) {
	switch {
	case b.pending.Add(int32(-n)) != 0:
	case b.done != nil:
		b.done()
	default:
		b.home.complete(b)
	}
}

func (b *Batch) reset() {
	b.Buf = b.Buf[:0]
	clear(b.Entries)
	b.Entries = b.Entries[:0]
	clear(b.Commands)
	clear(b.Keys)
	b.Keys, b.Commands, b.Args, b.Extra = b.Keys[:0], b.Commands[:0], b.Args[:0], b.Extra[:0]
	b.Snapshot, b.ticket, b.Received = false, nil, nil
	b.End = Position{}
}

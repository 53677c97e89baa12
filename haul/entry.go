// Package haul holds the nouns of keyhaul and the pipeline that they travel through: entries move in batches from a
// Reader through a bounded Channel and the filters to a Writer, and a Watermark tells how far the target has
// acknowledged them.
package haul

import (
	"io"

	"github.com/keyhaul/keyhaul/internal/command"
)

// Kind tells what an entry is.
type Kind uint8

// Kinds of entries.
const (
	KindKey         Kind = iota + 1 // a key of the snapshot: Batch.Keys
	KindFunction                    // a function library of the snapshot: its code is the Name in Batch.Keys
	KindCommand                     // one command of the stream: Batch.Commands
	KindTransaction                 // MULTI … EXEC of the stream, without these two: Batch.Commands
)

// Span is a range of a batch's buffer, in bytes.
type Span struct{ Off, Len uint32 }

// Entry is one unit of work. Offsets are those of the stream for commands, and byte positions in the RDB for the
// snapshot.
type Entry struct {
	Start, End int64
	Resume     int64 // where reading goes on once it is applied: End, but for a piece of a transaction where that begins
	Kind       Kind
	Drop       Drop   // set by a filter: the entry is counted and completes, but is not written
	DB         int32  // database selected when the entry begins
	After      int32  // database selected at Resume
	Off        uint32 // of Start in the batch's buffer, unless it is Big; until a writer has rewritten the batch
	First, N   uint32 // its elements in Batch.Keys or Batch.Commands
	Big        *Big   // set if the entry was too large to be kept in the batch
	Alone      bool   // set by a writer: it is written by itself, not in one run with its neighbours
}

// Drop says why a filter took an entry out.
type Drop uint8

// Reasons of Drop.
const (
	DropNone        Drop = iota
	DropSentinel         // PUBLISH __sentinel__:hello, which would join the Sentinels of source and target
	DropTopology         // CLUSTER …, TRIMSLOTS: about the nodes of the source's cluster
	DropReserved         // a key of the source under the prefix that is keyhaul's own on the target
	DropMixed            // such a key among others of a command that cannot do without it: the writer refuses the entry
	DropDatabase         // a database that is left out
	DropUnmapped         // it cannot be done where databases have other numbers: the writer refuses the entry
	DropUnsupported      // set by a writer: the target has no form for it
	DropNeedless         // set by a writer: there is nothing to be done on the target
	DropApplied          // set by a writer: the target has it from an earlier run
	DropExpired          // set by a reader: a key of a file whose deadline has passed
	DropEmpty            // set by a reader: a key without elements, which servers leave out when they load one
	DropMoved            // set by a writer: its slot is not the link's, it is settled by what its new owner holds
	DropCovered          // set by a writer: what it does is in what was read when its slot was settled
)

func (d Drop) String() string {
	return [...]string{"none", "sentinel-hello", "cluster-topology", "reserved-key", "mixed-keys", "database", "unmapped", "unsupported", "needless", "applied", "expired", "empty", "moved-slot", "covered"}[d]
}

// Key is a key of the snapshot, as it stands in the RDB.
type Key struct {
	Name     []byte // decoded
	Prefix   Span   // what precedes the type byte in the value's payload (key metadata), mostly empty
	Value    Span   // RDB bytes of the value without the type; empty if the entry is Big
	ExpireAt int64  // unix milliseconds
	Idle     int64  // seconds since the last access
	Footer   uint16 // smallest RDB version that knows the value
	Freq     uint8
	Type     byte
	Has      Has
}

// Has tells which optional fields of a Key are set, and whose snapshot it is of.
type Has uint8

// Bits of Has.
const (
	HasExpire Has = 1 << iota
	HasIdle
	HasFreq
	FromValkey // the snapshot is Valkey's: types from 22 on differ
	Degraded   // set by a writer: it is written without what the target lacks, which was listed
	LeftOut    // set by a writer: it is not written, since the target lacks something, which was listed
)

// Command is one command of the stream. Its arguments are Batch.Args[Arg:Arg+NArg].
type Command struct {
	Spec *command.Spec // nil if the command is unknown
	Raw  Span
	Arg  uint32
	NArg uint32
	DB   int32
	Skip bool // of a transaction: this command of it is not written
}

// Big is what a batch does not hold of a large entry: it is read from the spool, in pieces, by the one who writes it.
// For a command, Off and Len cover its wire form, and Args gives every argument relative to Off. For a key they cover
// its value.
type Big struct {
	Bytes io.ReaderAt // by stream offset
	Off   int64
	Len   int64
	Args  []BigSpan
}

// BigSpan is a range of bytes relative to Big.Off.
type BigSpan struct{ Off, Len int64 }

// Section returns the bytes of s.
func (b *Big) Section(s BigSpan) *io.SectionReader {
	return io.NewSectionReader(b.Bytes, b.Off+s.Off, s.Len)
}

package aof

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"sort"
	"time"
)

// A segment is one file of the spool: a header, then blocks, each of which can be checked by itself.
//
//	header  0  magic "KEYHAUL\n"   block   0  CRC-32C of all behind it
//	        8  format version  u32         4  length of the bytes     u32
//	       12  kind            u32         8  stream offset           i64
//	       16  replication id  40 B       16  receive time, unix ms   i64
//	       56  generation      u64        24  bytes
//	       64  first offset    i64
//	       72  CRC-32C of all before it
//
// Magic and version stay where they are in every format, so that an older program can tell a newer file from a damaged
// one. A segment without a block is whole as well: its header says which id the history goes on under.
//
// What survives. A killed process loses what was not handed to the kernel yet, a power cut also what was not fsynced:
// stream segments are when they are closed and by Sync, those of a snapshot by Sync alone (without its end a snapshot is
// worth nothing). Nothing else is ordered, so a file may come back short, torn or with holes. Therefore only blocks that
// pass their CRC and follow each other without a gap are trusted; what is behind them is fetched again.
const (
	segmentMagic   = "KEYHAUL\n"
	segmentVersion = 1
	segmentHeader  = 76
	blockHeader    = 24
	blockBytes     = 128 << 10
	segmentShare   = 16          // a segment takes no more of the budget: the one being written is not removed
	segmentAge     = time.Minute // a segment of a quiet link is closed so that it can be removed
	segmentSuffix  = ".seg"
)

// SegmentBytes is how large a segment becomes at most.
const SegmentBytes = 64 << 20

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	order      = binary.LittleEndian
)

// ErrNewer says that the state directory holds a file of a later format. It is left as it is.
var ErrNewer = errors.New("written by a newer keyhaul")

// errBlock and errHeader say that a segment does not hold what was written.
var (
	errBlock  = errors.New("block is damaged")
	errHeader = errors.New("header is damaged")
)

// blockRef finds a block in its segment.
type blockRef struct {
	off int64 // stream offset
	pos int64 // in the file
	n   int32
}

// segment is one file. blocks, size, synced, listed and closed are guarded by the spool's mu and written under its io
// too; the rest belongs to who holds io.
type segment struct {
	path   string
	from   int64 // stream offset of the first byte
	replID string
	blocks []blockRef
	size   int64
	synced int64 // bytes of size that are known to survive a power cut
	born   time.Time
	file   *os.File
	marker bool // stays even without a block
	listed bool // among the spool's segments, and in the budget
	closed bool // nothing more is written
}

func (g *segment) end() int64 {
	if len(g.blocks) == 0 {
		return g.from
	}
	b := g.blocks[len(g.blocks)-1]
	return b.off + int64(b.n)
}

func (g *segment) find(off int64) blockRef {
	i := sort.Search(len(g.blocks), func(i int) bool { return g.blocks[i].off > off }) - 1
	return g.blocks[i]
}

// Kinds of a spool, as they stand in headers and file names.
const (
	SpoolSnapshot = "snapshot"
	SpoolStream   = "stream"
)

// segmentHead is what a header says.
type segmentHead struct {
	kind    string
	lineage Lineage
	first   int64
}

func (h *segmentHead) encode() []byte {
	b := make([]byte, segmentHeader)
	copy(b, segmentMagic)
	order.PutUint32(b[8:], segmentVersion)
	if h.kind == SpoolStream {
		order.PutUint32(b[12:], 1)
	}
	copy(b[16:56], h.lineage.ReplID)
	order.PutUint64(b[56:], h.lineage.Generation)
	order.PutUint64(b[64:], uint64(h.first))
	order.PutUint32(b[72:], crc32.Checksum(b[:72], castagnoli))
	return b
}

// parseHead returns ErrNewer for a header of a later format and errHeader for one that is damaged. b may be short.
func parseHead(b []byte) (h segmentHead, err error) {
	if len(b) < 12 || string(b[:8]) != segmentMagic {
		return h, errHeader
	}
	if order.Uint32(b[8:]) > segmentVersion {
		return h, ErrNewer
	}
	if len(b) < segmentHeader || order.Uint32(b[8:]) == 0 || order.Uint32(b[12:]) > 1 ||
		order.Uint32(b[72:]) != crc32.Checksum(b[:72], castagnoli) {
		return h, errHeader
	}
	h.kind = SpoolSnapshot
	if order.Uint32(b[12:]) == 1 {
		h.kind = SpoolStream
	}
	h.lineage.ReplID = string(bytes.TrimRight(b[16:56], "\x00"))
	h.lineage.Generation = order.Uint64(b[56:])
	h.first = int64(order.Uint64(b[64:]))
	return h, nil
}

// createSegment begins a file. Its name only keeps it apart from others (two generations may have the same id and
// offset); what counts is the header.
func createSegment(dir, kind string, l Lineage, first int64) (*segment, error) {
	path := filepath.Join(dir, fmt.Sprintf("%s-%d-%s-%020d%s", kind, l.Generation, l.ReplID, first, segmentSuffix))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	h := segmentHead{kind, l, first}
	if _, err := f.WriteAt(h.encode(), 0); err != nil {
		_ = f.Close()
		_ = os.Remove(path)
		return nil, err
	}
	return &segment{path: path, from: first, replID: l.ReplID, size: segmentHeader, born: time.Now(), file: f}, nil
}

// appendBlock writes p, which begins at stream offset off. The segment's fields are left to the caller.
func (g *segment) appendBlock(p []byte, off int64, at time.Time) error {
	var h [blockHeader]byte
	order.PutUint32(h[4:], uint32(len(p)))
	order.PutUint64(h[8:], uint64(off))
	order.PutUint64(h[16:], uint64(at.UnixMilli()))
	order.PutUint32(h[:], crc32.Update(crc32.Checksum(h[4:], castagnoli), castagnoli, p))
	if _, err := g.file.WriteAt(p, g.size+blockHeader); err != nil {
		return err
	}
	_, err := g.file.WriteAt(h[:], g.size)
	return err
}

// goodBlock checks the block that b holds, which is to begin at stream offset off.
func goodBlock(b []byte, off int64) bool {
	return order.Uint32(b) == crc32.Checksum(b[4:], castagnoli) && int64(order.Uint64(b[8:])) == off
}

// readBlock reads and checks the block at ref into buf and returns its bytes.
func readBlock(path string, ref blockRef, buf []byte) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // read only
	n := blockHeader + int(ref.n)
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := f.ReadAt(buf, ref.pos); err != nil {
		return nil, fmt.Errorf("%s: block at stream offset %d: %w", path, ref.off, err)
	}
	if !goodBlock(buf, ref.off) || order.Uint32(buf[4:]) != uint32(ref.n) {
		return nil, fmt.Errorf("%s: block at stream offset %d: %w", path, ref.off, errBlock)
	}
	return buf[blockHeader:], nil
}

package aof

import (
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
const (
	segmentVersion = 1
	segmentHeader  = 76
	blockHeader    = 24
	blockBytes     = 128 << 10
	segmentBytes   = 64 << 20
	segmentShare   = 16          // a segment takes no more of the budget: the one being written is not removed
	segmentAge     = time.Minute // a segment of a quiet link is closed so that it can be removed
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	order      = binary.LittleEndian
)

// errBlock says that a block of a segment does not hold what was written.
var errBlock = errors.New("block is damaged")

// blockRef finds a block in its segment.
type blockRef struct {
	off int64 // stream offset
	pos int64 // in the file
	n   int32
}

// segment is one file. blocks and closed are guarded by the spool's lock; the rest belongs to the goroutine that writes.
type segment struct {
	path   string
	blocks []blockRef
	size   int64
	born   time.Time
	file   *os.File
	closed bool // nothing more is written
}

func (g *segment) first() int64 { return g.blocks[0].off }

func (g *segment) end() int64 {
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

func createSegment(dir, kind string, l Lineage, first int64) (*segment, error) {
	path := filepath.Join(dir, fmt.Sprintf("%s-%s-%020d.seg", kind, l.ReplID, first))
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	h := make([]byte, segmentHeader)
	copy(h, "KEYHAUL\n")
	order.PutUint32(h[8:], segmentVersion)
	if kind == SpoolStream {
		order.PutUint32(h[12:], 1)
	}
	copy(h[16:56], l.ReplID)
	order.PutUint64(h[56:], l.Generation)
	order.PutUint64(h[64:], uint64(first))
	order.PutUint32(h[72:], crc32.Checksum(h[:72], castagnoli))
	if _, err := f.WriteAt(h, 0); err != nil {
		_ = f.Close()
		_ = os.Remove(path)
		return nil, err
	}
	return &segment{path: path, size: segmentHeader, born: time.Now(), file: f}, nil
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
	if order.Uint32(buf) != crc32.Checksum(buf[4:], castagnoli) ||
		int64(order.Uint64(buf[8:])) != ref.off || order.Uint32(buf[4:]) != uint32(ref.n) {
		return nil, fmt.Errorf("%s: block at stream offset %d: %w", path, ref.off, errBlock)
	}
	return buf[blockHeader:], nil
}

package reader

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhaul/keyhaul/internal/rdbfile"
	"github.com/keyhaul/keyhaul/rdb"
)

// Input is files that were opened to be read instead of a server. Positions are byte offsets in all of them together, in
// their order.
type Input struct {
	files *Files
	parts []*part
	end   int64 // of an append-only file: nothing behind it is read
}

// part is one file.
type part struct {
	path string
	file *os.File
	info os.FileInfo // when it was opened
	from int64       // position of its first byte; of snapshots as far as these are plain files
	size int64       // -1: it is a stream
	head []byte      // its first bytes
	pack rdbfile.Packing
	in   *bufio.Reader // of a stream: its bytes
	used bool          // of a stream: some were read
	base bool          // of an append-only file: what it began with
}

const (
	headBytes  = 64 << 10 // by which a snapshot is known, and as many at its end
	identBytes = 1 << 20  // by which an append-only file is known
)

// Open opens the files and looks at what they are. Nothing of them is read to the end, but for an append-only file that
// is to be read up to some time.
func (f *Files) Open(ctx context.Context) (*Input, error) {
	in := &Input{files: f}
	err := in.open(ctx)
	if err == nil && f.AOF {
		err = in.bound(ctx)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		in.Close()
		return nil, err
	}
	return in, nil
}

func (in *Input) open(ctx context.Context) error {
	var paths []string
	var base string
	var err error
	if in.files.AOF {
		if base, paths, err = in.files.manifest(); base != "" {
			paths = append([]string{base}, paths...)
		}
	} else {
		paths, err = in.files.expand()
	}
	if err != nil {
		return err
	}
	for i, path := range paths {
		p, err := openPart(ctx, path)
		if err == nil {
			p.base = i == 0 && base != ""
			p.from = in.size()
			in.parts = append(in.parts, p)
			err = in.judge(p)
		}
		if err != nil {
			return unusable(path, err)
		}
	}
	if in.files.AOF && in.size() == 0 {
		return unusable(paths[0], errEmpty)
	}
	in.end = in.size()
	return nil
}

// openPart opens one file, or standard input.
func openPart(ctx context.Context, path string) (*part, error) {
	p := &part{path: path}
	var err error
	if path == Stdin {
		p.path, p.file = stdinName, os.Stdin
	} else if p.file, err = os.Open(path); err != nil {
		return nil, err
	}
	if p.info, err = p.file.Stat(); err == nil {
		err = p.look(ctx)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// look reads the first bytes.
func (p *part) look(ctx context.Context) error {
	if p.info.IsDir() {
		return hint("name the file, or use a pattern such as /folder/*.rdb", "it is a folder")
	}
	if p.info.Mode().IsRegular() {
		p.size = p.info.Size()
		p.head = make([]byte, min(p.size, headBytes))
		_, err := p.file.ReadAt(p.head, 0)
		if errors.Is(err, io.EOF) {
			err = errors.New("it is changed while it is read")
		}
		return err
	}
	p.size = -1
	if p.file == os.Stdin { // so that a read can be broken off
		if err := unix.SetNonblock(0, true); err == nil {
			p.file = os.NewFile(0, p.path)
		}
	}
	p.in = bufio.NewReaderSize(p.file, headBytes)
	stop := context.AfterFunc(ctx, func() { _ = p.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	head, err := p.in.Peek(headBytes)
	p.head = bytes.Clone(head)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return err
}

// judge refuses what cannot be read as what it was named as.
func (in *Input) judge(p *part) error {
	starts := func(s string) bool { return bytes.HasPrefix(p.head, []byte(s)) }
	p.pack = rdbfile.PackingOf(p.head)
	switch {
	case in.files.AOF && p.size < 0:
		return errors.New("it is no regular file: keyhaul must be able to go on in the middle of it")
	case in.files.AOF && p.pack != rdbfile.PackNone:
		return hint("decompress it first", "it is compressed with %s, and keyhaul must be able to go on in the middle of it", p.pack)
	case in.files.AOF && !p.snapshot() && len(p.head) > 0 && p.head[0] != '*' && p.head[0] != '#':
		return hint("name appendonlydir, or the appendonly.aof of a server before 7.0", "it is no append-only file: it begins neither with a command nor with a snapshot")
	case in.files.AOF && p.snapshot() && p != in.parts[0]:
		return errors.New("it is a snapshot, where commands must follow")
	case in.files.AOF:
	case len(p.head) == 0:
		return errEmpty
	case p.pack == rdbfile.PackNone && (starts("*") || starts("#TS:")):
		return hint("name it as aof://… if it is one", "it is no snapshot: it begins as an append-only file does")
	case p.pack == rdbfile.PackNone && !p.snapshot():
		return hint("name a snapshot: the dump.rdb of a server, or what redis-cli --rdb writes", "it is no snapshot: it does not begin with REDIS or VALKEY")
	}
	if p.snapshot() && len(p.head) >= rdb.HeaderBytes {
		if _, _, err := rdb.ParseHeader(p.head[:rdb.HeaderBytes]); err != nil {
			return hint(newer, "%w", err)
		}
	}
	return nil
}

// snapshot tells whether the file begins with a snapshot.
func (p *part) snapshot() bool {
	return bytes.HasPrefix(p.head, []byte("REDIS")) || bytes.HasPrefix(p.head, []byte("VALKEY"))
}

// streamed tells whether the bytes of the snapshot can only be read once and in order.
func (p *part) streamed() bool { return p.size < 0 || p.pack != rdbfile.PackNone }

func (p *part) close() {
	if p.file != nil && p.file != os.Stdin {
		_ = p.file.Close()
	}
}

// Close closes the files.
func (in *Input) Close() {
	for _, p := range in.parts {
		p.close()
	}
}

// size is that of all files together; those of unknown size count nothing.
func (in *Input) size() (n int64) {
	for _, p := range in.parts {
		n += max(p.size, 0)
	}
	return n
}

// End is the position behind the last byte that is read of an append-only file; 0 for snapshots.
func (in *Input) End() int64 {
	if !in.files.AOF {
		return 0
	}
	return in.end
}

// AOF tells whether a stream of commands follows.
func (in *Input) AOF() bool { return in.files.AOF }

// Several tells whether snapshots of several files are read.
func (in *Input) Several() bool { return !in.files.AOF && len(in.parts) > 1 }

// Reads tells whether the file of this path is one of those that are read.
func (in *Input) Reads(path string) bool {
	info, err := os.Stat(path)
	return err == nil && slices.ContainsFunc(in.parts, func(p *part) bool { return os.SameFile(p.info, info) })
}

// Describe says in one line what is read.
func (in *Input) Describe() string {
	what, packed := "snapshot", ""
	if in.files.AOF {
		what = "append-only file"
	}
	names := make([]string, len(in.parts))
	for i, p := range in.parts {
		if names[i] = p.path; p.pack != rdbfile.PackNone {
			packed = ", compressed"
		}
	}
	size := fmt.Sprintf("%d bytes", in.size())
	if in.parts[0].size < 0 {
		size = "of unknown size"
	}
	text := fmt.Sprintf("%s, %s%s", what, size, packed)
	if len(names) > 1 {
		text += fmt.Sprintf(", %d files: %s", len(names), strings.Join(names[:min(len(names), 10)], " "))
	}
	if in.files.AOF && in.end < in.size() {
		text += fmt.Sprintf(", up to byte %d", in.end)
	}
	return text
}

// identify returns the id of the history that the files are, which is the one that known names if they begin in the same
// way: an append-only file may have grown since.
func (in *Input) identify(known string) (string, error) {
	hash, label := sha256.New(), "rdb"
	if in.files.AOF {
		n := min(in.size(), identBytes)
		var was int64
		if _, err := fmt.Sscanf(known, "aof-%d-", &was); err == nil && was > 0 && was <= in.size() {
			n = was
		}
		label = fmt.Sprintf("aof-%d", n)
		if _, err := io.Copy(hash, io.NewSectionReader(in, 0, n)); err != nil {
			return "", err
		}
		return label + "-" + hex.EncodeToString(hash.Sum(nil)[:16]), nil
	}
	for _, p := range in.parts {
		_, _ = fmt.Fprintf(hash, "%d\n", p.size)
		_, _ = hash.Write(p.head)
		if tail := min(p.size, headBytes); tail > 0 {
			if _, err := io.Copy(hash, io.NewSectionReader(p.file, p.size-tail, tail)); err != nil {
				return "", p.failed(err)
			}
		}
	}
	return label + "-" + hex.EncodeToString(hash.Sum(nil)[:16]), nil
}

// ReadAt reads from the file that has the position off. Nothing is read over the end of a file in one call.
func (in *Input) ReadAt(b []byte, off int64) (int, error) {
	done := 0
	for _, p := range in.parts {
		at := off + int64(done) - p.from
		if at < 0 || at >= p.size || done == len(b) {
			continue
		}
		n, err := p.file.ReadAt(b[done:min(int64(len(b)), int64(done)+p.size-at)], at)
		done += n
		if err != nil {
			return done, p.failed(err)
		}
	}
	if done < len(b) {
		return done, io.EOF
	}
	return done, nil
}

// unchanged fails if a file is not what it was when it was opened. The last of an append-only file may have grown.
func (in *Input) unchanged() error {
	for i, p := range in.parts {
		now, err := p.file.Stat()
		if err != nil {
			return p.failed(err)
		}
		grown := in.files.AOF && i == len(in.parts)-1 && now.Size() > p.size
		if p.size >= 0 && !grown && (now.Size() != p.size || !now.ModTime().Equal(p.info.ModTime())) {
			return p.failed(errChanged)
		}
	}
	return nil
}

var errEmpty = hint("copy it again; look whether a disk was full, or what the program said that it comes from", "it is empty")

var errChanged = errors.New("it was changed while it was read")

// failed says of which file an error is.
func (p *part) failed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errChanged
	}
	return &fileError{p.path, err}
}

// fileError is an error of one file.
type fileError struct {
	path string
	err  error
}

func (e *fileError) Error() string {
	if e.path == Stdin || e.path == stdinName {
		return fmt.Sprintf("%s: %v", stdinName, e.err)
	}
	return fmt.Sprintf("file %s: %v", e.path, e.err)
}

func (e *fileError) Unwrap() error { return e.err }

// modified is when the last part was written to.
func (in *Input) modified() time.Time { return in.parts[len(in.parts)-1].info.ModTime() }

// section is a feed.Source of the bytes from a position to another one, all in one file.
type section struct {
	part    *part
	off, to int64 // in the file
}

// Ready implements feed.Source.
func (s *section) Ready() bool { return true }

// Read implements feed.Source.
func (s *section) Read(ctx context.Context, b []byte) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if s.off >= s.to {
		return 0, io.EOF
	}
	n, err := s.part.file.ReadAt(b[:min(int64(len(b)), s.to-s.off)], s.off)
	s.off += int64(n)
	if n > 0 {
		return n, nil
	}
	return 0, s.part.failed(err)
}

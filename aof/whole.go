package aof

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Whole says that the snapshot of a generation was received to its end: from the segments alone, a snapshot that broke
// off at the border of a block looks the same.
type Whole struct {
	Generation  uint64
	ReplID      string
	StreamStart int64 // offset of the stream's first byte behind the snapshot
	Bytes       int64 // length of the snapshot, which is the end of its spool
}

const (
	wholeVersion = 1
	wholeSuffix  = ".whole"
	tempSuffix   = ".tmp"
)

func wholePath(dir string, generation uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s-%d%s", SpoolSnapshot, generation, wholeSuffix))
}

// encode writes one line a field; the last line is the CRC-32C of all before it, in every version of the format.
func (w *Whole) encode() string {
	text := fmt.Sprintf("keyhaul-whole %d\ngeneration %d\nreplid %s\nstream %d\nbytes %d\n",
		wholeVersion, w.Generation, w.ReplID, w.StreamStart, w.Bytes)
	return text + wholeCRC(text)
}

func wholeCRC(text string) string {
	return fmt.Sprintf("crc %08x\n", crc32.Checksum([]byte(text), castagnoli))
}

// parseWhole returns ErrNewer for a later format and errHeader for what is damaged.
func parseWhole(b []byte) (w Whole, err error) {
	text := string(b)
	cut := strings.LastIndex(text, "crc ")
	if cut < 0 || text[cut:] != wholeCRC(text[:cut]) {
		return w, errHeader
	}
	var version int
	if _, err := fmt.Sscanf(text, "keyhaul-whole %d\n", &version); err == nil && version > wholeVersion {
		return w, ErrNewer
	}
	if _, err := fmt.Sscanf(text, "keyhaul-whole %d\ngeneration %d\nreplid %s\nstream %d\nbytes %d\n",
		&version, &w.Generation, &w.ReplID, &w.StreamStart, &w.Bytes); err != nil || w.encode() != text {
		return Whole{}, errHeader
	}
	return w, nil
}

// WriteWhole records that a snapshot's spool is whole. Its segments must be on disk: Finish and Sync come first. After a
// crash the record is there or not, never half.
func WriteWhole(dir string, w Whole) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := wholePath(dir, w.Generation)
	f, err := os.OpenFile(path+tempSuffix, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(w.encode())
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(path+tempSuffix, path)
	}
	if err != nil {
		return errors.Join(err, removeFile(path+tempSuffix))
	}
	return syncFile(dir)
}

// ReadWhole returns what WriteWhole recorded of a generation, nil if there is nothing or it is damaged. It fails with
// ErrNewer for a later format. That the segments are still there is for OpenSpool and End to say.
func ReadWhole(dir string, generation uint64) (*Whole, error) {
	path := wholePath(dir, generation)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	w, err := parseWhole(b)
	if errors.Is(err, ErrNewer) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err != nil || w.Generation != generation {
		return nil, nil //nolint:nilerr // what is damaged counts as absent
	}
	return &w, nil
}

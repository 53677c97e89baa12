package aof

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// SegmentInfo describes a segment on disk.
type SegmentInfo struct {
	Kind    string
	Lineage Lineage
	First   int64 // stream offset of its first byte
	Size    int64 // of the file
	Path    string
}

// Segments returns the segments in dir whose header is good, ordered by file name. It fails with ErrNewer if there is
// one of a later format.
func Segments(dir string) ([]SegmentInfo, error) {
	files, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	var infos []SegmentInfo
	for _, f := range files {
		switch {
		case f.newer():
			return nil, fmt.Errorf("%s: %w", f.Path, ErrNewer)
		case f.segment && f.err == nil:
			infos = append(infos, f.SegmentInfo)
		}
	}
	return infos, nil
}

// RemoveStale deletes what earlier processes left in dir of generations other than those of keep, and files whose
// header is damaged, which nobody can use. If there is a file of a later format, it fails with ErrNewer and deletes
// nothing. No spool may be open of what it deletes.
func RemoveStale(dir string, keep ...Lineage) error {
	files, err := readDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		if f.newer() {
			return fmt.Errorf("%s: %w", f.Path, ErrNewer)
		}
	}
	return removeFiles(dir, func(f *file) bool {
		for _, l := range keep {
			if f.err == nil && f.Lineage.Generation == l.Generation {
				return false
			}
		}
		return true
	})
}

// removeEarlier deletes the segments of one kind and generation, and a mark that this snapshot is whole.
func removeEarlier(dir, kind string, generation uint64) error {
	return removeFiles(dir, func(f *file) bool {
		return f.err == nil && f.Kind == kind && f.Lineage.Generation == generation
	})
}

// removeFiles deletes those files of spools that gone names. The marks of whole snapshots go first: without them
// nothing that is half gone counts.
func removeFiles(dir string, gone func(*file) bool) error {
	files, err := readDir(dir)
	if err != nil {
		return err
	}
	for _, segments := range []bool{false, true} {
		for _, f := range files {
			if f.segment != segments || !gone(f) {
				continue
			}
			if err := removeFile(f.Path); err != nil {
				return err
			}
		}
	}
	return nil
}

// file is one of a spool's: a segment, or the mark of a whole snapshot.
type file struct {
	SegmentInfo
	segment bool
	err     error // its header is damaged, or of a later format
}

func (f *file) newer() bool { return errors.Is(f.err, ErrNewer) }

// readDir returns the files of spools in dir, none if there is no such directory.
func readDir(dir string) ([]*file, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []*file
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		f := &file{SegmentInfo: SegmentInfo{Path: filepath.Join(dir, e.Name())}}
		switch {
		case strings.HasSuffix(e.Name(), segmentSuffix):
			f.segment = true
			err = f.readHead()
		case strings.HasSuffix(e.Name(), wholeSuffix):
			err = f.readWhole()
		case strings.HasSuffix(e.Name(), wholeSuffix+tempSuffix):
			f.err = errHeader
		default:
			continue
		}
		if errors.Is(err, fs.ErrNotExist) { // a running spool is trimmed
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func (f *file) readHead() error {
	r, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer r.Close() //nolint:errcheck // read only
	info, err := r.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, segmentHeader)
	n, err := io.ReadFull(r, b)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	var h segmentHead
	h, f.err = parseHead(b[:n])
	f.Kind, f.Lineage, f.First, f.Size = h.kind, h.lineage, h.first, info.Size()
	return nil
}

func (f *file) readWhole() error {
	b, err := os.ReadFile(f.Path)
	if err != nil {
		return err
	}
	var w Whole
	w, f.err = parseWhole(b)
	if f.err == nil && f.Path != wholePath(filepath.Dir(f.Path), w.Generation) {
		f.err = errHeader
	}
	f.Kind, f.Lineage, f.Size = SpoolSnapshot, Lineage{w.ReplID, w.Generation}, int64(len(b))
	return nil
}

// Package rdbfile opens files of snapshots and commands as they lie on a disk or come from a pipe: plain, or packed by
// gzip or zstd, which their first bytes tell.
package rdbfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// Stdin is the name that stands for standard input.
const Stdin = "-"

// File is an open file. Read yields its content, unpacked. Read is for one goroutine; Consumed may be called by others.
type File struct {
	Name string
	Size int64 // bytes on the disk; -1 where that is not known

	file     *os.File
	content  io.ReadCloser
	consumed atomic.Int64
}

// Open opens the file of this name, or standard input for Stdin.
func Open(name string) (*File, error) {
	if name == Stdin {
		return open(&File{Name: "standard input", Size: -1, file: os.Stdin})
	}
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	f := &File{Name: name, Size: -1, file: file}
	info, err := file.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s is a folder", name)
	case info.Mode().IsRegular():
		f.Size = info.Size()
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return open(f)
}

func open(f *File) (*File, error) {
	raw := bufio.NewReaderSize(counter{f}, 256<<10)
	head, err := raw.Peek(len(zstdMagic))
	if err != nil && !errors.Is(err, io.EOF) {
		_ = f.Close()
		return nil, err
	}
	pack := PackingOf(head)
	if f.content, err = pack.Unpack(raw); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", f.Name, err)
	}
	return f, nil
}

// Read implements io.Reader.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.content.Read(p)
	if err != nil && !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%s: %w", f.Name, err)
	}
	return n, err
}

// Consumed returns how many bytes of the file on the disk were read.
func (f *File) Consumed() int64 { return f.consumed.Load() }

// Is tells whether the path names this file.
func (f *File) Is(path string) bool {
	own, ownErr := f.file.Stat()
	info, err := os.Stat(path)
	return ownErr == nil && err == nil && os.SameFile(own, info)
}

// Close closes the file, but for standard input.
func (f *File) Close() error {
	if f.content != nil {
		_ = f.content.Close() // of what was only read
	}
	if f.file == os.Stdin {
		return nil
	}
	return f.file.Close()
}

// counter reads the file and counts.
type counter struct{ f *File }

func (c counter) Read(p []byte) (int, error) {
	n, err := c.f.file.Read(p)
	c.f.consumed.Add(int64(n))
	return n, err
}

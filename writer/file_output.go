package writer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/rdbfile"
)

// partSuffix ends the name that a file has until it is whole.
const partSuffix = ".keyhaul-part"

// output is a file that is written under another name beside its own, and has its own once it is whole and on the disk. A
// name that ends in .gz or .zst has it compressed.
type output struct {
	cfg     FileConfig
	written atomic.Int64 // bytes, before they are compressed

	file *os.File // under its unfinished name
	pack io.WriteCloser
	buf  *bufio.Writer
	done bool
}

// openOutput makes and locks the unfinished file. What an earlier run has left of it is overwritten.
func openOutput(cfg FileConfig) (*output, error) {
	if err := cfg.MayBegin(); err != nil {
		return nil, err
	}
	file, err := lockedFile(cfg.Path + partSuffix)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, haul.Errorf(haul.ExitHeld, "wait for the other one, or name another file", "another keyhaul writes %s", cfg.Path)
	case err != nil:
		return nil, haul.Errorf(haul.ExitUsage, "name a file in a folder that keyhaul may write to", "target: %w", err)
	}
	o := &output{cfg: cfg, file: file}
	if err := o.restart(); err != nil {
		o.abort()
		return nil, err
	}
	return o, nil
}

// lockedFile opens a file of this name and locks it.
func lockedFile(path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		var mine, now os.FileInfo
		if err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			mine, err = file.Stat()
		}
		if err == nil {
			now, err = os.Stat(path)
		}
		if err == nil && os.SameFile(mine, now) {
			return file, nil
		}
		_ = file.Close()
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		// its last owner has given it another name, or removed it, between open and lock
	}
}

// MayBegin refuses a name that the file could not be given.
func (c FileConfig) MayBegin() error {
	info, err := os.Lstat(c.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return haul.Errorf(haul.ExitUsage, "name a file in a folder that keyhaul may read", "target: %w", err)
	case !info.Mode().IsRegular():
		return haul.Errorf(haul.ExitUsage, "name a file", "the target %s is no regular file", c.Path)
	case !c.Replace:
		return haul.Errorf(haul.ExitRefused, "remove it, name another file, or say --existing replace", "the target %s exists already", c.Path)
	}
	return nil
}

// restart begins with an empty file.
func (o *output) restart() error {
	if err := o.file.Truncate(0); err != nil {
		return o.failed(err)
	}
	if _, err := o.file.Seek(0, io.SeekStart); err != nil {
		return o.failed(err)
	}
	var err error
	if o.pack, err = rdbfile.PackingNamed(o.cfg.Path).Pack(o.file); err != nil {
		return o.failed(err)
	}
	o.buf = bufio.NewWriterSize(o.pack, pieceBytes)
	o.written.Store(0)
	return nil
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	n, err := o.buf.Write(p)
	o.written.Add(int64(n))
	return n, o.failed(err)
}

// failed says what is to be done about an error of the disk.
func (o *output) failed(err error) error {
	if err == nil || errors.As(err, new(*haul.Error)) {
		return err
	}
	remedy := "look at the disk, then start again: the file is written anew"
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		remedy = fmt.Sprintf("make room in %s or name a file elsewhere (one that ends in .zst needs less), then start again: the file is written anew",
			filepath.Dir(o.cfg.Path))
	}
	return haul.Errorf(haul.ExitFailed, remedy, "target %s: %w", o.cfg.Path, err)
}

// commit gives the file its name. A crash leaves the whole file under it, or none.
func (o *output) commit() error {
	err := o.buf.Flush()
	if err == nil {
		err = o.pack.Close()
	}
	if err == nil {
		err = o.file.Sync()
	}
	if err != nil {
		return o.failed(err)
	}
	if err := o.cfg.MayBegin(); err != nil { // what has appeared meanwhile is not replaced either
		return err
	}
	if err := os.Rename(o.file.Name(), o.cfg.Path); err != nil {
		return o.failed(err)
	}
	o.done = true
	return o.failed(errors.Join(o.file.Close(), syncFolder(filepath.Dir(o.cfg.Path))))
}

// syncFolder makes a new name in a folder outlive a crash of the machine.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// abort removes the file, unless it was committed.
func (o *output) abort() {
	if !o.done {
		_ = os.Remove(o.file.Name())
		_ = o.file.Close()
	}
}

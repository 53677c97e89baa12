package check

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// disk is what there is under the state directory.
type disk struct {
	dir  string // the nearest folder that exists
	free int64
	err  error // why it cannot be used
}

// SpoolRoom is what the spool takes of a disk unless it is told: the smaller of 50 GiB and 80 % of what is free.
func SpoolRoom(free int64) int64 {
	const most = 50 << 30
	return min(most, free/5*4)
}

// lookAtDisk looks at the file system that the state directory is on, or will be.
func lookAtDisk(dir string) disk {
	if dir == "" {
		return disk{}
	}
	d := disk{dir: dir}
	for {
		info, err := os.Stat(d.dir)
		if err == nil && !info.IsDir() {
			err = &fs.PathError{Op: "use", Path: d.dir, Err: unix.ENOTDIR}
		}
		if err == nil {
			break
		}
		parent := filepath.Dir(d.dir)
		if !errors.Is(err, fs.ErrNotExist) || parent == d.dir {
			d.err = err
			return d
		}
		d.dir = parent
	}
	if err := unix.Access(d.dir, unix.W_OK|unix.X_OK); err != nil {
		d.err = &fs.PathError{Op: "write to", Path: d.dir, Err: err}
		return d
	}
	var about unix.Statfs_t
	if err := unix.Statfs(d.dir, &about); err != nil {
		d.err = &fs.PathError{Op: "look at", Path: d.dir, Err: err}
		return d
	}
	d.free = int64(about.Bavail) * about.Bsize
	return d
}

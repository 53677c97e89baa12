package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/keyhaul/keyhaul/check"
	"github.com/keyhaul/keyhaul/haul"
)

// stateDir is the folder of one haul; the zero value is none. It is held by a lock as long as the process lives.
type stateDir struct {
	path string
	lock *os.File
}

// Files in the folder that tell other commands how to ask this process.
const (
	httpAddrFile  = "http.addr"
	httpTokenFile = "http.token"
)

// openState makes and locks <parent>/<name>.
func openState(parent, name string) (stateDir, error) {
	if parent == "" {
		return stateDir{}, nil
	}
	path := filepath.Join(parent, name)
	usable := func(err error) error {
		return haul.Errorf(haul.ExitUsage, "choose another --state-dir, or none to keep everything in memory", "state directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return stateDir{}, usable(err)
	}
	f, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return stateDir{}, usable(err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return stateDir{path: path, lock: f}, nil
	}
	_ = f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return stateDir{}, haul.Errorf(haul.ExitHeld, "stop the other one, or give this haul another --name",
			"another keyhaul on this machine runs the haul %q (state directory %s)", name, path)
	}
	return stateDir{}, usable(err)
}

func (s stateDir) close() {
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// file returns the path of a file in the folder, empty if there is no folder.
func (s stateDir) file(name string) string {
	if s.path == "" {
		return ""
	}
	return filepath.Join(s.path, name)
}

// saveHTTPAddr notes where `keyhaul status` finds this process.
func (s stateDir) saveHTTPAddr(addr string) error {
	if s.path == "" {
		return nil
	}
	if err := os.WriteFile(s.file(httpAddrFile), []byte(addr+"\n"), 0o600); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// forgetHTTPAddr ends what saveHTTPAddr said.
func (s stateDir) forgetHTTPAddr() {
	if s.path != "" {
		_ = os.Remove(s.file(httpAddrFile))
	}
}

// spoolLimit is the smaller of 50 GiB and 80 % of the free disk under dir; without one, a quarter of what memory may be
// used for buffers.
func spoolLimit(dir string, buffer int64) (int64, error) {
	if dir == "" {
		return 4 * buffer, nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("state directory %s: %w", dir, err)
	}
	return check.SpoolRoom(int64(fs.Bavail) * fs.Bsize), nil
}

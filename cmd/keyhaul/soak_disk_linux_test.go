package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// smallDisk mounts a file system of 16 MiB, or skips the test where that is not allowed.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Skipf("a small file system cannot be mounted (root is needed): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillDisk writes a file until there is no room left, and returns its path.
func fillDisk(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 1 << 10, 1} { // down to the last byte
		block := make([]byte, size)
		for err = nil; err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
	return f.Name()
}

// TestSoakDiskFull: the disk under the state directory is full for a while, by others' files or by the spool itself, and
// keyhaul is killed at such a moment, too.
func TestSoakDiskFull(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Run("others' files", func(t *testing.T) {
			t.Parallel()
			dir := smallDisk(t)
			s := newTrial(t, setup{cluster: cluster, flags: []string{"--spool-max-bytes", "1GiB"}})
			s.state = dir
			s.startLoad()
			s.start()
			for i := range rounds() {
				pause(500*time.Millisecond, time.Second)
				s.strike(func() {
					ballast := fillDisk(t, dir)
					time.Sleep(lasting(1500*time.Millisecond, 5*time.Second))
					if i%2 == 1 {
						s.kill()
					}
					if err := os.Remove(ballast); err != nil {
						t.Error(err)
					}
					if i%2 == 1 {
						s.start()
					}
				})
			}
			s.equal(1)
		})
		t.Run("the spool", func(t *testing.T) {
			t.Parallel()
			dir := smallDisk(t)
			s := newTrial(t, setup{cluster: cluster, flags: []string{"--spool-max-bytes", "1GiB"}})
			s.state = dir
			s.startLoad()
			s.start()
			s.strike(func() { s.eachNode((*rt.Server).Freeze) })
			fill(t, s.source, 300_000) // more than the disk takes
			rt.Eventually(t, patience, func() error {
				var fs unix.Statfs_t
				if err := unix.Statfs(dir, &fs); err != nil {
					t.Fatal(err)
				}
				if fs.Bavail*uint64(fs.Bsize) > 1<<20 {
					return errors.New("the disk is not full")
				}
				return nil
			})
			time.Sleep(time.Second) // with a full disk
			s.eachNode((*rt.Server).Thaw)
			s.moving(s.keyhaul)
			s.equal(1)
		})
	})
}

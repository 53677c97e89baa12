package main

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// unapplied freezes the target until the spool holds this many bytes that are not applied, and kills keyhaul.
func (s *trial) unapplied(bytes int64) {
	s.t.Helper()
	s.eachNode((*rt.Server).Freeze)
	defer s.eachNode((*rt.Server).Thaw)
	s.until(s.keyhaul, "spools", func(l haul.LinkStatus) bool { return l.Received-l.Applied > bytes })
	rt.Eventually(s.t, patience, func() error {
		if s.segment(bytes/2) == "" {
			return errors.New("the spool does not get to disk")
		}
		return nil
	})
	pause(100*time.Millisecond, 300*time.Millisecond) // more of it
	s.kill()
}

// segment returns the newest segment of the spool that is larger than least bytes, or nothing.
func (s *trial) segment(least int64) string {
	s.t.Helper()
	segments, err := filepath.Glob(filepath.Join(s.state, "default", "spool", "*.seg"))
	if err != nil {
		s.t.Fatal(err)
	}
	var last string
	var newest time.Time
	for _, path := range segments {
		info, err := os.Stat(path)
		if err == nil && info.Size() > least && !info.ModTime().Before(newest) { // a living keyhaul removes segments
			last, newest = path, info.ModTime()
		}
	}
	return last
}

// damage breaks the last segment of the spool in its last bytes.
func (s *trial) damage(how func(f *os.File, size, within int64) error, within int64) {
	s.t.Helper()
	last := s.segment(within)
	f, err := os.OpenFile(last, os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		err = how(f, size, within)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func truncated(f *os.File, size, within int64) error {
	return f.Truncate(size - 1 - rand.Int64N(within))
}

func flipped(f *os.File, size, within int64) error {
	var b [1]byte
	at := size - 1 - rand.Int64N(within)
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 1 << rand.IntN(8)
	_, err := f.WriteAt(b[:], at)
	return err
}

// TestSoakDamagedSpool: what is damaged between two processes is fetched again, never applied.
func TestSoakDamagedSpool(t *testing.T) {
	t.Parallel()
	const within = 50_000
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for name, how := range map[string]func(*os.File, int64, int64) error{"truncated": truncated, "a flipped bit": flipped} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster})
				s.startLoad()
				s.start()
				for range rounds() {
					pause(200*time.Millisecond, 600*time.Millisecond)
					s.strike(func() { s.unapplied(2 * within) })
					s.damage(how, within)
					s.start()
				}
				s.equal(1)
			})
		}
	})
}

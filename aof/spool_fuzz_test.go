package aof

import (
	"os"
	"testing"
)

// FuzzOpenSpool damages segments at random: whatever is served equals what was written.
func FuzzOpenSpool(f *testing.F) {
	f.Add([]byte{0, 1, 100, 9, 1, 0, 90, 0, 2, 3, 0, 0}, uint16(0))
	f.Add([]byte{2, 0, 200, 1}, uint16(900))
	f.Add([]byte{1, 2, 76, 1, 0, 3, 0, 0}, uint16(500))
	f.Add([]byte{2, 1, 180, 0}, uint16(laidEnd-laidStart))
	f.Fuzz(func(t *testing.T, damage []byte, from uint16) {
		l := layOut(t)
		for ; len(damage) >= 4; damage = damage[4:] {
			path := l.segments[int(damage[0])%laidSegments]
			b, err := os.ReadFile(path)
			if err != nil {
				continue // removed
			}
			at := int(damage[2]) + int(damage[3])<<8
			switch damage[1] % 4 {
			case 0:
				b = b[:min(at, len(b))]
			case 1:
				if at < len(b) && (at < 8 || at > 11) { // the version is another matter
					b[at] ^= damage[3]>>2 | 1
				}
			case 2:
				b = append(b, b[min(at, len(b)):]...)
			case 3:
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		at := laidStart + int64(from)
		s, err := OpenSpool(openConfig(l.dir), 7, at)
		if err != nil {
			t.Fatal(err)
		}
		if s == nil {
			return
		}
		if s.Start() > at || s.End() < at || s.End() > laidEnd {
			t.Fatalf("from %d: it holds %d to %d", at, s.Start(), s.End())
		}
		check(t, s, laidStart, l.data)
		s.Close()
		again := reopen(t, l.dir, at)
		if again.End() != s.End() || again.Start() > at {
			t.Fatalf("it held %d to %d, now %d to %d", s.Start(), s.End(), again.Start(), again.End())
		}
		again.Close()
	})
}

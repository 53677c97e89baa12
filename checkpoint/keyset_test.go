package checkpoint

import (
	"fmt"
	"os"
	"testing"
)

func TestKeySet(t *testing.T) {
	for _, test := range []struct {
		name      string
		dir       bool
		run, keys int
	}{
		{"empty", false, 10, 0},
		{"empty with a directory", true, 10, 0},
		{"in memory", false, 10, 5000},
		{"not spilled", true, 6000, 5000},
		{"whole runs", true, 1000, 5000},
		{"with a rest", true, 777, 5000},
		{"many small runs", true, 3, 5000},
		{"blocks are full", true, 512, 1024},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := ""
			if test.dir {
				dir = t.TempDir()
			}
			k := NewKeySet(dir)
			k.run = test.run
			key := func(i int) []byte { return fmt.Appendf(nil, "key:%d", i) }
			if _, err := k.Has(0, key(0)); err == nil {
				t.Error("asked before Seal")
			}
			for i := range test.keys {
				must(t, k.Add(int32(i%2), key(i)))
				if i%3 == 0 { // twice is as good as once
					must(t, k.Add(int32(i%2), key(i)))
				}
			}
			must(t, k.Seal())
			must(t, k.Seal())
			if k.Add(0, key(0)) == nil {
				t.Error("added after Seal")
			}
			for i := range 2 * test.keys {
				for db := range 2 {
					has, err := k.Has(int32(db), key(i))
					if err != nil || has != (i < test.keys && i%2 == db) {
						t.Fatalf("key %d of database %d: %v, %v", i, db, has, err)
					}
				}
			}
			if test.dir {
				files, err := os.ReadDir(dir)
				if err != nil || len(files) != 0 {
					t.Errorf("%d files are left, %v", len(files), err)
				}
			}
			must(t, k.Close())
			must(t, k.Close())
		})
	}
}

func TestKeySetWithoutItsDirectory(t *testing.T) {
	k := NewKeySet(t.TempDir() + "/none")
	k.run = 2
	must(t, k.Add(0, []byte("a")))
	if err := k.Add(0, []byte("b")); err == nil {
		t.Error("no error")
	}
}

func BenchmarkKeySet(b *testing.B) {
	k := NewKeySet(b.TempDir())
	k.run = 1 << 16
	key := []byte("user:0000000000:session")
	for i := range 1 << 20 {
		if err := k.Add(0, fmt.Appendf(key[:5], "%010d:session", i)); err != nil {
			b.Fatal(err)
		}
	}
	if err := k.Seal(); err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if _, err := k.Has(0, fmt.Appendf(key[:5], "%010d:session", i)); err != nil {
			b.Fatal(err)
		}
	}
}

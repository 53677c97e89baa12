package rdb

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// golden is a snapshot of a real server and what that server said about its keys; scripts/gen-golden.sh writes them.
type golden struct {
	name string
	data []byte

	Version   string `json:"version"`
	Policy    string `json:"maxmemory_policy"`
	Functions int    `json:"functions"`
	Keys      []struct {
		DB       int    `json:"db"`
		Name     []byte `json:"name"`
		Type     string `json:"type"`
		Encoding string `json:"encoding"`
		ExpireAt int64  `json:"expire_at_ms"`
		Idle     int64  `json:"idle_s"`
		Freq     int64  `json:"freq"`
	} `json:"keys"`
}

func goldens(t testing.TB) []golden {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.rdb")
	if err != nil || len(paths) < 10 {
		t.Fatalf("golden files: %v, %v", paths, err)
	}
	all := make([]golden, 0, len(paths))
	for _, path := range paths {
		g := golden{name: strings.TrimSuffix(filepath.Base(path), ".rdb")}
		if g.data, err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(strings.TrimSuffix(path, "rdb") + "json")
		if err == nil {
			err = json.Unmarshal(text, &g)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	return all
}

func TestGolden(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(g.name, func(t *testing.T) {
			for _, size := range []int{1, 13, 1 << 20} {
				for _, limit := range []int{256, 2000, 1 << 20} { // names of keys are shorter
					records, d, err := walk(g.data, size, limit)
					if err != nil {
						t.Fatalf("pieces of %d, limit %d: %v", size, limit, err)
					}
					if d.w.Offset() != int64(len(g.data)) {
						t.Errorf("it ends at %d of %d", d.w.Offset(), len(g.data))
					}
					g.compare(t, records, d)
				}
			}
		})
	}
}

// compare compares what was walked with what the server said.
func (g *golden) compare(t *testing.T, records []found, d *Decoder) {
	t.Helper()
	type place struct {
		db   int
		name string
	}
	keys := make(map[place]found)
	functions := 0
	for _, f := range records {
		if f.Kind == KindFunction {
			functions++
			if !strings.HasPrefix(f.code(), "#!lua name=") {
				t.Errorf("code of a function: %.40q", f.code())
			}
			continue
		}
		keys[place{f.DB, string(f.name)}] = f
	}
	if functions != g.Functions || len(keys) != len(g.Keys) || d.Keys != int64(len(g.Keys)) {
		t.Errorf("%d functions, %d keys, %d announced, want %d and %d", functions, len(keys), d.Keys, g.Functions, len(g.Keys))
	}
	for _, want := range g.Keys {
		f, ok := keys[place{want.DB, string(want.Name)}]
		if !ok {
			t.Errorf("key %q of database %d is missing", want.Name, want.DB)
			continue
		}
		if got := strings.TrimSuffix(TypeName(f.Type), " with field TTLs"); got != want.Type {
			t.Errorf("%q is of type %d, %s, want %s", want.Name, f.Type, got, want.Type)
		}
		if f.HasExpire != (want.ExpireAt > 0) || f.ExpireAt != want.ExpireAt {
			t.Errorf("%q expires at %d, want %d", want.Name, f.ExpireAt, want.ExpireAt)
		}
		isLRU, isLFU := strings.HasSuffix(g.Policy, "-lru"), strings.HasSuffix(g.Policy, "-lfu")
		if f.HasIdle != isLRU || f.Idle > want.Idle || f.Idle < want.Idle-5 { // it was asked soon after
			t.Errorf("%q is idle for %d s, want %d", want.Name, f.Idle, want.Idle)
		}
		if f.HasFreq != isLFU || int64(f.Freq) != want.Freq {
			t.Errorf("%q has frequency %d, want %d", want.Name, f.Freq, want.Freq)
		}
	}
}

// TestGoldenTypes makes sure that the golden files have what they are for.
func TestGoldenTypes(t *testing.T) {
	types := make(map[byte]string)
	for _, g := range goldens(t) {
		records, _, err := walk(g.data, 1<<20, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range records {
			if f.Kind == KindKey {
				types[f.Type] = g.name
			}
		}
	}
	for _, want := range []byte{
		TypeString, TypeSet, TypeHash, TypeZSet2, TypeSetIntset, TypeZSetZiplist, TypeHashZiplist, TypeListQuicklist,
		TypeStream, TypeHashListpack, TypeZSetListpack, TypeListQuicklist2, TypeStream2, TypeSetListpack, TypeStream3,
		Type22, TypeHashTTL, TypeHashTTLListpack,
	} {
		if types[want] == "" {
			t.Errorf("type %d, %s, is in no golden file", want, TypeName(want))
		}
	}
}

// TestGoldenTruncated: what ends early is never a success, at whichever byte.
func TestGoldenTruncated(t *testing.T) {
	for _, g := range goldens(t) {
		step := 1
		if len(g.data) > 4000 {
			step = 23
		}
		for cut := 0; cut < len(g.data); cut += step {
			size := 1 << 20
			if cut%2 == 0 {
				size = 100
			}
			_, _, err := walk(g.data[:cut], size, 1<<20)
			if !errors.Is(err, ErrTruncated) {
				t.Fatalf("%s cut at %d: %v", g.name, cut, err)
			}
			positioned(t, err, cut)
			if !strings.Contains(err.Error(), fmt.Sprintf("byte %d", cut)) {
				t.Fatalf("%s cut at %d: %v", g.name, cut, err)
			}
		}
	}
}

// TestGoldenFlipped: no byte may be another one. One file is saved without a checksum, and cannot tell.
func TestGoldenFlipped(t *testing.T) {
	for _, g := range goldens(t) {
		if g.name == "redis-7.0-plain" {
			continue
		}
		step := 1
		if len(g.data) > 4000 {
			step = 19
		}
		data := append([]byte{}, g.data...)
		for at := 0; at < len(data); at += step {
			for _, flip := range []byte{1, 0x80, 0xff} {
				data[at] ^= flip
				_, _, err := walk(data, 1<<20, 1<<20)
				if err == nil {
					t.Fatalf("%s: byte %d is %#x instead of %#x, and nobody minds", g.name, at, data[at], g.data[at])
				}
				if !errors.Is(err, ErrString) { // a name that cannot be decoded is met by the one who decodes it
					positioned(t, err, len(data))
				}
				data[at] = g.data[at]
			}
		}
	}
}

package inventory

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/rdb"
)

var options = Options{Top: 10, Separator: ":", Now: time.Unix(1, 0)}

func goldens(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob("../testdata/*.rdb")
	if err != nil || len(paths) < 10 {
		t.Fatalf("golden files: %v, %v", paths, err)
	}
	return paths
}

func TestGolden(t *testing.T) {
	for _, path := range goldens(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(strings.TrimSuffix(path, "rdb") + "json")
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				Functions int
				Keys      []struct {
					DB       int
					Type     string
					ExpireAt int64 `json:"expire_at_ms"`
				}
			}
			if err := json.Unmarshal(text, &want); err != nil {
				t.Fatal(err)
			}
			r, err := Read(t.Context(), path, bytes.NewReader(data), options)
			if err != nil {
				t.Fatal(err)
			}
			keys, got, expire := map[string]int64{}, map[string]int64{}, int64(0)
			for _, k := range want.Keys {
				keys[fmt.Sprint(k.DB, k.Type)]++
				if k.ExpireAt > 0 {
					expire++
				}
			}
			for _, d := range r.Databases {
				for _, x := range d.Types {
					got[fmt.Sprint(d.DB, strings.TrimSuffix(x.Name, " with field TTLs"))] += x.Keys
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(keys) || r.Expires != expire || len(r.Functions) != want.Functions {
				t.Errorf("%v, %d expire, %d functions; want %v, %d, %d", got, r.Expires, len(r.Functions), keys, expire, want.Functions)
			}
			if lru := strings.Contains(path, "lru"); lru != (len(r.Idle) > 0) {
				t.Errorf("idle: %+v", r.Idle)
			}
			if lfu := strings.Contains(path, "lfu"); lfu != (len(r.Frequency) > 0) {
				t.Errorf("frequency: %+v", r.Frequency)
			}
			forms(t, r)
		})
	}
}

// forms makes sure that what is written can be read by others.
func forms(t *testing.T, r *Report) {
	t.Helper()
	var table, text, cells, image bytes.Buffer
	if err := errors.Join(r.Table(&table), r.JSON(&text), r.CSV(&cells), r.Flame(&image)); err != nil {
		t.Fatal(err)
	}
	if !r.Complete != strings.Contains(table.String(), "INCOMPLETE") {
		t.Errorf("the table of a report that is complete %t:\n%s", r.Complete, table.String())
	}
	var back Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil || back.Totals != r.Totals || back.Complete != r.Complete {
		t.Errorf("JSON: %v, %+v", err, back.Totals)
	}
	lines, err := csv.NewReader(&cells).ReadAll()
	if err != nil || len(lines) < 2 || len(lines[len(lines)-1]) != len(csvHead) {
		t.Errorf("CSV: %v, %d lines", err, len(lines))
	}
	d := xml.NewDecoder(&image)
	for err == nil {
		_, err = d.Token()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("SVG: %v", err)
	}
}

// TestCut: what was read before the end is told, and that it is not all.
func TestCut(t *testing.T) {
	data, err := os.ReadFile("../testdata/redis-7.0.rdb")
	if err != nil {
		t.Fatal(err)
	}
	last := int64(0)
	for cut := 0; cut < len(data); cut += 97 {
		r, err := Read(t.Context(), "dump.rdb", bytes.NewReader(data[:cut]), options)
		var at *rdb.PositionError
		if !errors.As(err, &at) || at.Offset != int64(cut) || r.Complete || r.Error == "" {
			t.Fatalf("cut at %d: %v, complete %t", cut, err, r.Complete)
		}
		if r.Keys < last {
			t.Fatalf("cut at %d there are %d keys, and %d before", cut, r.Keys, last)
		}
		last = r.Keys
		if cut%970 == 0 {
			forms(t, r)
		}
	}
	if last < 20 {
		t.Errorf("only %d keys are told", last)
	}
}

// TestFor: what a release could not hold is found, with keys that show it.
func TestFor(t *testing.T) {
	for _, tt := range []struct {
		file, release, want string
	}{
		{"redis-8.0", "redis-8.0", "[]"},
		{"redis-8.0", "redis-7.0", "[{hash field TTLs degraded 3}]"},
		{"redis-8.0", "valkey-9.1", "[]"},
		{"valkey-9.1", "redis-6.0", "[{functions missing 2} {hash field TTLs degraded 3}]"},
		{"redis-6.0", "redis-8.0", "[]"},
		{"valkey-8.1", "redis-7.0", "[]"},
	} {
		release, err := rdb.ParseRelease(tt.release)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile("../testdata/" + tt.file + ".rdb")
		if err != nil {
			t.Fatal(err)
		}
		o := options
		o.For = NewCheck(release)
		r, err := Read(t.Context(), tt.file, bytes.NewReader(data), o)
		if err != nil {
			t.Fatal(err)
		}
		type lack struct {
			feature, outcome string
			keys             int64
		}
		got := []lack{}
		for _, l := range r.For.Lacks {
			got = append(got, lack{l.Feature, l.Outcome, l.Keys})
			if len(l.Examples) == 0 {
				t.Errorf("%s for %s: %s has no example", tt.file, tt.release, l.Feature)
			}
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s for %s: %v, want %s", tt.file, tt.release, got, tt.want)
		}
		forms(t, r)
	}
}

// TestPrefixesAreBounded: however many prefixes there are, those that matter are told exactly.
func TestPrefixesAreBounded(t *testing.T) {
	tree := newTree(":")
	rng := rand.New(rand.NewPCG(1, 2))
	heavy := Totals{}
	all := Totals{}
	for range 300_000 {
		key := Totals{Keys: 1, Memory: 10 + rng.Int64N(100)}
		name := fmt.Sprintf("user:%d:%d:profile", rng.IntN(1<<30), rng.IntN(1<<30))
		if rng.IntN(10) == 0 {
			name = fmt.Sprintf("user:heavy:%d", rng.Int())
			heavy.add(key)
		}
		all.add(key)
		tree.add(0, []byte(name), key)
		if tree.nodes > maxNodes+maxDepth {
			t.Fatalf("%d prefixes", tree.nodes)
		}
	}
	got := tree.biggest(2)
	if len(got) != 2 || got[0].Name != "user:" || got[0].Totals != all || got[1].Name != "user:heavy:" || got[1].Totals != heavy {
		t.Errorf("%+v, want %+v and %+v", got, all, heavy)
	}
	if got[0].Folded == 0 {
		t.Error("nothing is said to be folded")
	}
	nodes := 0
	for n := range tree.all() {
		sum := n.folded
		for _, c := range n.children {
			sum.add(c.total)
		}
		if sum.Keys > n.total.Keys || sum.Memory > n.total.Memory {
			t.Fatalf("%q has %+v, and parts of %+v", n.name(), n.total, sum)
		}
		nodes++
	}
	if nodes != tree.nodes+1 {
		t.Errorf("%d prefixes, counted as %d", nodes-1, tree.nodes)
	}
}

func BenchmarkRead(b *testing.B) {
	var data []byte
	for _, path := range goldens(b) {
		if strings.HasSuffix(path, "redis-7.0.rdb") {
			data, _ = os.ReadFile(path)
		}
	}
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Read(b.Context(), "", bytes.NewReader(data), options); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, path := range goldens(f) {
		if data, err := os.ReadFile(path); err == nil && len(data) < 4000 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Read(t.Context(), "", bytes.NewReader(data), options)
		if r.Complete != (err == nil) {
			t.Errorf("complete %t, %v", r.Complete, err)
		}
	})
}

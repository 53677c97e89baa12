package rdb

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/hdt3213/rdb/model"
	"github.com/hdt3213/rdb/parser"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

// corpusBroken are the files with values that no server takes either.
var corpusBroken = map[string]bool{
	"redis/corrupt_ziplist.rdb": true,
}

// TestCorpusElements reads every value of the snapshots of others, and compares with what another decoder reads.
func TestCorpusElements(t *testing.T) {
	paths, err := filepath.Glob(corpus + "/*/*.rdb")
	if err != nil || len(paths) == 0 {
		t.Skipf("no snapshots in %s: %v", corpus, err)
	}
	for _, path := range paths {
		name := strings.TrimPrefix(path, corpus+"/")
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		records, d, err := walk(data, 1<<20, 1<<20)
		if err != nil {
			continue // TestCorpus has it
		}
		want := oracleValues(data)
		broken := false
		for _, f := range records {
			if f.Kind != KindKey || f.Type == TypeModule2 {
				continue
			}
			got, err := listed(Value{f.Type, d.Valkey}, f.value)
			if err != nil {
				broken = true
				if !corpusBroken[name] || !known(err) {
					t.Errorf("%s: %q, type %d: %v", name, f.name, f.Type, err)
				}
				continue
			}
			if o, ok := want[fmt.Sprint(f.DB, " ", string(f.name))]; ok {
				sort.Strings(got)
				if !slices.Equal(got, o) {
					t.Errorf("%s: %q, type %d:\n%.300q\nthe other decoder says\n%.300q", name, f.name, f.Type, got, o)
				}
			}
		}
		if broken != corpusBroken[name] {
			t.Errorf("%s: broken is %t", name, broken)
		}
	}
}

// oracleValues is what github.com/hdt3213/rdb reads of strings, lists, sets, sorted sets and hashes, as sorted lines.
func oracleValues(data []byte) map[string][]string {
	defer func() { _ = recover() }() // it panics now and then
	all := make(map[string][]string)
	_ = parser.NewDecoder(bytes.NewReader(data)).Parse(func(o parser.RedisObject) bool {
		var l lines
		add := func(e Element) { _ = l.add(&e) }
		switch o := o.(type) {
		case *model.StringObject:
			add(Element{Kind: ElementPiece, Value: o.Value})
		case *model.ListObject:
			for _, v := range o.Values {
				add(Element{Kind: ElementItem, Value: v})
			}
		case *model.SetObject:
			for _, m := range o.Members {
				add(Element{Kind: ElementMember, Name: m})
			}
		case *model.ZSetObject:
			for _, e := range o.Entries {
				if !math.IsNaN(e.Score) {
					add(Element{Kind: ElementScored, Name: []byte(e.Member), Score: e.Score})
				}
			}
		case *model.HashObject:
			for f, v := range o.Hash {
				add(Element{Kind: ElementField, Name: []byte(f), Value: v, ExpireAt: max(o.FieldExpirations[f], 0)})
			}
		default:
			return true
		}
		sort.Strings(l)
		all[fmt.Sprint(o.GetDBIndex(), " ", o.GetKey())] = l
		return true
	})
	return all
}

// TestGoldenValuesAgainstOracle does the same with our own files.
func TestGoldenValuesAgainstOracle(t *testing.T) {
	compared := 0
	for _, g := range goldens(t) {
		want := oracleValues(g.data)
		records, d, err := walk(g.data, 1<<20, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range records {
			o, ok := want[fmt.Sprint(f.DB, " ", string(f.name))]
			if f.Kind != KindKey || !ok {
				continue
			}
			compared++
			got, err := listed(Value{f.Type, d.Valkey}, f.value)
			if sort.Strings(got); err != nil || !slices.Equal(got, o) {
				t.Errorf("%s: %q, type %d: %v\n%.300q\nthe other decoder says\n%.300q", g.name, f.name, f.Type, err, got, o)
			}
		}
	}
	if compared < 200 {
		t.Errorf("%d values compared", compared)
	}
}

// TestCorpusServers: a server that has loaded a file itself, and one that got its values rewritten, hold the same.
func TestCorpusServers(t *testing.T) {
	paths, err := filepath.Glob(corpus + "/*/*.rdb")
	if err != nil || len(paths) == 0 {
		t.Skipf("no snapshots in %s: %v", corpus, err)
	}
	for _, release := range []string{"redis-8.0", "valkey-9.1"} {
		redistest.Require(t, release)
	}
	for _, to := range []string{"redis-6.0", "valkey-9.1"} {
		redistest.Require(t, to)
		release, err := ParseRelease(to)
		if err != nil {
			t.Fatal(err)
		}
		target := redistest.Start(t, redistest.Options{Release: to})
		for _, path := range paths {
			corpusFile(t, target, release, path)
		}
	}
}

// corpusRefused are values by file and release that it rightly does not take: a stream that counts two entries more than it has.
var corpusRefused = map[string]string{"hdt3213/stream_listpacks_1.rdb": "valkey 9.1"}

func corpusFile(t *testing.T, target *redistest.Server, to Release, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(path, corpus+"/")
	records, d, err := walk(data, 1<<20, 1<<20)
	if err != nil || corpusRefused[name] == to.String() || corpusBroken[name] {
		return
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "dump.rdb"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	err = redistest.Run(t.Logf, func(tb redistest.TB) {
		from := "redis-8.0"
		if d.Valkey {
			from = "valkey-9.1"
		}
		source := redistest.Start(tb, redistest.Options{Release: from, Config: map[string]string{"dir": dir}})
		target.MustDo("FLUSHALL")
		for _, f := range records {
			if f.Kind != KindKey || f.HasExpire && f.ExpireAt < time.Now().UnixMilli() {
				continue
			}
			if l, err := listed(Value{f.Type, d.Valkey}, f.value); err == nil && len(l) == 0 {
				continue // a server that loads it leaves it out
			}
			target.MustDo("SELECT", f.DB)
			restoreRewritten(t, target, to, d.Valkey, f)
		}
		report, err := redistest.Compare(t.Context(), source.Endpoint(), target.Endpoint(), redistest.CompareOptions{IgnoreTTL: true, IgnoreReadCounts: true})
		if err != nil || !report.Equal() {
			t.Errorf("%s to %v: %v, %v", path, to, report, err)
		}
	})
	if err != nil {
		t.Logf("%s: no server loads it: %.60s", name, err)
	}
}

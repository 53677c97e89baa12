package rdb

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hdt3213/rdb/model"
	"github.com/hdt3213/rdb/parser"
)

// corpus is where snapshots written by others are, beside this project.
const corpus = "../../shared/rdb-corpus"

// fact is what two decoders must agree on.
type fact struct {
	db       int
	name     string
	typ      string
	expireMS int64
	idle     int64
	freq     int64
}

func (f found) fact() fact {
	x := fact{f.DB, string(f.name), strings.TrimSuffix(TypeName(f.Type), " with field TTLs"), 0, -1, -1}
	if f.HasExpire {
		x.expireMS = f.ExpireAt
	}
	if f.HasIdle {
		x.idle = f.Idle
	}
	if f.HasFreq {
		x.freq = int64(f.Freq)
	}
	return x
}

// oracle is what github.com/hdt3213/rdb finds; its error, if it does not know the format.
func oracle(data []byte) (facts []fact, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	err = parser.NewDecoder(bytes.NewReader(data)).Parse(func(o parser.RedisObject) bool {
		x := fact{o.GetDBIndex(), o.GetKey(), o.GetType(), 0, -1, -1}
		if at := o.GetExpiration(); at != nil {
			x.expireMS = at.UnixMilli()
		}
		if e, ok := o.(model.EvictionInfo); ok {
			x.idle, x.freq = e.GetIdleTime(), e.GetFreq()
		}
		facts = append(facts, x)
		return true
	})
	return facts, err
}

// corpusErrors are the files that are wrong on purpose, or of servers that nobody has.
var corpusErrors = map[string]error{
	"valkey/encodings-rdb75-unknown-types.rdb":  ErrUnsupported,
	"valkey/encodings-rdb987-unknown-types.rdb": ErrUnsupported,
	"valkey/encodings-rdb987.rdb":               ErrUnsupported,
}

func TestCorpus(t *testing.T) {
	paths, err := filepath.Glob(corpus + "/*/*.rdb")
	if err != nil || len(paths) == 0 {
		t.Skipf("no snapshots in %s: %v", corpus, err)
	}
	agreed := 0
	for _, path := range paths {
		name := strings.TrimPrefix(path, corpus+"/")
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, limit := range []int{1 << 10, 4 << 20} {
				records, _, err := walk(data, 1000, limit)
				if want := corpusErrors[name]; !errors.Is(err, want) {
					t.Fatalf("%d records, %v, want %v", len(records), err, want)
				}
				if err != nil {
					positioned(t, err, len(data))
					continue
				}
				checkCounts(t, path, records)
				want, err := oracle(data)
				if err != nil {
					t.Logf("%d records; the other decoder says: %v", len(records), err)
					continue
				}
				agreed++
				compareFacts(t, records, want)
			}
		})
	}
	t.Logf("both decoders agree on %d of %d files", agreed/2, len(paths))
}

func compareFacts(t *testing.T, records []found, want []fact) {
	t.Helper()
	var got []fact
	for _, f := range records {
		if f.Kind == KindKey {
			got = append(got, f.fact())
		}
	}
	if !slices.Equal(got, want) {
		for i := range min(len(got), len(want)) {
			if got[i] != want[i] {
				t.Errorf("record %d is %+v, the other decoder says %+v", i, got[i], want[i])
				break
			}
		}
		t.Errorf("%d keys, the other decoder finds %d", len(got), len(want))
	}
}

// checkCounts compares with the JSON beside a file.
func checkCounts(t *testing.T, path string, records []found) {
	t.Helper()
	text, err := os.ReadFile(strings.TrimSuffix(path, "rdb") + "json")
	if err != nil {
		return
	}
	var objects []struct {
		DB         int
		Key        string
		Type       string
		Expiration *time.Time
	}
	if err := json.Unmarshal(text, &objects); err != nil {
		t.Logf("the JSON beside it: %v", err)
		return
	}
	keys := make(map[string]found)
	for _, f := range records {
		keys[fmt.Sprint(f.DB, " ", strings.ToValidUTF8(string(f.name), "\ufffd"))] = f
	}
	for _, o := range objects {
		switch o.Type {
		case "aux", "dbsize", "functions":
			continue
		}
		f, ok := keys[fmt.Sprint(o.DB, " ", o.Key)]
		if !ok {
			t.Errorf("key %q of database %d is missing", o.Key, o.DB)
			continue
		}
		var at int64
		if o.Expiration != nil {
			at = o.Expiration.UnixMilli()
		}
		if x := f.fact(); x.typ != o.Type || x.expireMS != at {
			t.Errorf("%q: %+v, want %+v", o.Key, x, o)
		}
	}
}

// TestGoldenAgainstOracle does the same with our own files.
func TestGoldenAgainstOracle(t *testing.T) {
	for _, g := range goldens(t) {
		records, _, err := walk(g.data, 1<<20, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		want, err := oracle(g.data)
		if err != nil {
			t.Logf("%s: the other decoder says: %v", g.name, err)
			continue
		}
		compareFacts(t, records, want)
	}
}

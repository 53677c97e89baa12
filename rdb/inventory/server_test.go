package inventory

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/jsontext"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// saved fills a server and returns its snapshot.
func saved(t *testing.T, s *rt.Server) []byte {
	t.Helper()
	if err := rt.FillMixed(t.Context(), rt.Addr(s.Addr), 0.01, 7); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 { // collections that have tables of their own, and pieces of several nodes
		s.MustDo("RPUSH", "big:list", strings.Repeat(fmt.Sprint(i), 20))
		s.MustDo("HSET", "big:hash", i, strings.Repeat("v", i%50))
		s.MustDo("ZADD", "big:zset", i, fmt.Sprint("member", i))
		s.MustDo("SADD", "big:set", fmt.Sprint("member", i))
		s.MustDo("SADD", "big:ints", i)
	}
	s.MustDo("SET", "big:string", strings.Repeat("compressible ", 100_000))
	s.MustDo("SELECT", 3)
	s.MustDo("SET", "soon", 1, "PX", 30_000)
	s.MustDo("SET", "\xff\x00binary", 1)
	if s.Version.AtLeast(7, 0) {
		s.MustDo("FUNCTION", "LOAD", "#!lua name=mine\nredis.register_function('f', function() return 1 end)")
	}
	s.MustDo("SAVE")
	snapshot, err := os.ReadFile(filepath.Join(s.Dir, "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	return snapshot
}

// TestServer compares a report with what the server says of each key.
func TestServer(t *testing.T) {
	s := rt.Start(t, rt.Options{})
	snapshot := saved(t, s)
	r, err := Read(t.Context(), "dump.rdb", bytes.NewReader(snapshot), Options{Top: 100_000, Separator: ":", Now: time.Now()})
	if err != nil || !r.Complete || r.Read != int64(len(snapshot)) {
		t.Fatalf("%v, %d of %d bytes", err, r.Read, len(snapshot))
	}
	s.MustDo("SELECT", 0)
	all := s.MustDo("DBSIZE").Int
	s.MustDo("SELECT", 3)
	if all += s.MustDo("DBSIZE").Int; r.Keys != all || len(r.Biggest) != int(all) {
		t.Errorf("%d keys, %d listed; the server has %d", r.Keys, len(r.Biggest), all)
	}
	s.MustDo("DEBUG", "RELOAD") // what was written piece by piece may take more than what was loaded
	memory, estimates := map[string]int64{}, map[string]int64{}
	sum := Totals{}
	for _, k := range r.Biggest {
		sum.add(Totals{Keys: 1, Bytes: k.Bytes, Elements: k.Elements, Memory: k.Memory})
		name, err := jsontext.Bytes(k.Name)
		if err != nil {
			t.Fatal(err)
		}
		s.MustDo("SELECT", k.DB)
		if want := elements(s, k.Type, string(name)); k.Elements != want {
			t.Errorf("%q has %d elements, the server says %d", k.Name, k.Elements, want)
		}
		memory[k.Type] += s.MustDo("MEMORY", "USAGE", string(name), "SAMPLES", 0).Int
		estimates[k.Type] += k.Memory
	}
	sum.Expires = r.Expires
	if sum != r.Totals {
		t.Errorf("keys add up to %+v, the totals are %+v", sum, r.Totals)
	}
	for kind, got := range estimates {
		most := int64(13)
		if s.Version.Family == "valkey" { // whose tables are smaller
			most = 20
		}
		if want := memory[kind]; got < want*7/10 || got > want*most/10 {
			t.Errorf("%s: some %d bytes of memory, the server says %d", kind, got, want)
		}
	}
	if s.Version.AtLeast(7, 0) && (len(r.Functions) != 1 || r.Functions[0].Name != "mine" || r.Functions[0].Engine != "lua") {
		t.Errorf("functions: %+v", r.Functions)
	}
	if r.Made == nil || time.Since(*r.Made) > time.Minute {
		t.Errorf("made at %v", r.Made)
	}
	var soon int64
	for _, x := range r.Expiry {
		if x.Name == "within a minute" {
			soon = x.Keys
		}
	}
	if soon != 1 {
		t.Errorf("%d keys expire within a minute: %+v", soon, r.Expiry)
	}
}

// elements asks the server for the size of a collection.
func elements(s *rt.Server, kind, key string) int64 {
	count := map[string]string{"list": "LLEN", "set": "SCARD", "zset": "ZCARD", "hash": "HLEN", "stream": "XLEN"}[kind]
	if count == "" {
		return 1
	}
	return s.MustDo(count, key).Int
}

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/feed"
	"github.com/keyhaul/keyhaul/internal/jsontext"
	"github.com/keyhaul/keyhaul/internal/rdbfile"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/rdb"
)

// jsonKey is a line of a jsonl file.
type jsonKey struct {
	DB       int
	Key      string
	Type     string
	ExpireAt int64 `json:"expire_at_ms"`
	Value    json.RawMessage
	Fields   map[string]int64 `json:"field_expire_at_ms"`
	Function string
}

func TestToLinesOfJSON(t *testing.T) {
	source := rt.Start(t, rt.Options{})
	variety(t, source)
	path := filepath.Join(t.TempDir(), "keys.jsonl.gz")
	start(t, "--source", source.URL(), "--target", "jsonl://"+path, "--buffer-max-bytes", "1MiB").exit(haul.ExitDone)
	f, err := rdbfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // only read
	keys, functions := int64(0), 0
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF && len(line) == 0 { //nolint:errorlint // bufio returns the value itself
			break
		}
		var k jsonKey
		if err == nil {
			err = json.Unmarshal(line, &k)
		}
		if err != nil {
			t.Fatalf("%.200q: %v", line, err)
		}
		if k.Function != "" {
			functions++
			continue
		}
		keys++
		sameAsKey(t, source, k)
	}
	want := int64(0)
	for _, db := range []int{9, 0} {
		source.MustDo("SELECT", db)
		want += source.MustDo("DBSIZE").Int
	}
	if keys != want {
		t.Errorf("%d keys, want %d", keys, want)
	}
	if source.Version.AtLeast(7, 0) && functions != 1 {
		t.Errorf("%d functions", functions)
	}
}

// told returns the bytes that a string of JSON stands for.
func told(t *testing.T, text string) string {
	t.Helper()
	b, err := jsontext.Bytes(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sameAsKey compares a line with what the server has.
func sameAsKey(t *testing.T, s *rt.Server, k jsonKey) {
	t.Helper()
	name := told(t, k.Key)
	s.MustDo("SELECT", k.DB)
	if got := s.MustDo("TYPE", name).Text; got != k.Type {
		t.Errorf("%q is a %s, the line says %s", name, got, k.Type)
	}
	if ttl := s.MustDo("PTTL", name).Int; ttl > 0 != (k.ExpireAt > 0) {
		t.Errorf("%q lives for %d ms, the line says until %d", name, ttl, k.ExpireAt)
	}
	var got, want []string
	texts := func(r resp.Reply) (all []string) {
		for _, x := range r.Array {
			all = append(all, x.Text)
		}
		return all
	}
	switch k.Type {
	case "string":
		got, want = lineTexts(t, []byte("["+string(k.Value)+"]")), []string{s.MustDo("GET", name).Text}
	case "list":
		got, want = lineTexts(t, k.Value), texts(s.MustDo("LRANGE", name, 0, -1))
	case "set":
		got, want = lineTexts(t, k.Value), texts(s.MustDo("SMEMBERS", name))
		slices.Sort(got)
		slices.Sort(want)
	case "hash":
		got, want = linePairs(t, k.Value), hashPairs(s, name)
		if name == "ttl:hash" && k.Fields["b"] != 4102444800123 {
			t.Errorf("deadlines of fields: %v", k.Fields)
		}
	case "zset":
		got, want = lineScores(t, k.Value), texts(s.MustDo("ZRANGE", name, 0, -1, "WITHSCORES"))
		for i := 1; i < len(want); i += 2 {
			f, _ := strconv.ParseFloat(want[i], 64)
			want[i] = fmt.Sprint(f)
		}
	case "stream":
		got, want = lineStream(t, k.Value), streamFacts(s, name)
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q: the line says %.300q, the server %.300q", name, got, want)
	}
}

func lineTexts(t *testing.T, text []byte) []string {
	t.Helper()
	var all []string
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i] = told(t, all[i])
	}
	return all
}

func linePairs(t *testing.T, text []byte) (all []string) {
	t.Helper()
	var m map[string]string
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for name, value := range m {
		all = append(all, told(t, name)+"="+told(t, value))
	}
	slices.Sort(all)
	return all
}

func hashPairs(s *rt.Server, key string) (all []string) {
	flat := s.MustDo("HGETALL", key).Array
	for i := 0; i < len(flat); i += 2 {
		all = append(all, flat[i].Text+"="+flat[i+1].Text)
	}
	slices.Sort(all)
	return all
}

func lineScores(t *testing.T, text []byte) (all []string) {
	t.Helper()
	var pairs [][2]any
	if err := json.Unmarshal(text, &pairs); err != nil {
		t.Fatal(err)
	}
	type member struct {
		name  string
		score float64
	}
	var members []member
	for _, p := range pairs {
		score, ok := p[1].(float64)
		if text, isText := p[1].(string); isText {
			score, _ = strconv.ParseFloat(text, 64)
		} else if !ok {
			t.Fatalf("a score is %v", p[1])
		}
		members = append(members, member{told(t, p[0].(string)), score})
	}
	slices.SortFunc(members, func(a, b member) int {
		if a.score != b.score {
			return map[bool]int{true: -1, false: 1}[a.score < b.score]
		}
		return strings.Compare(a.name, b.name)
	})
	for _, m := range members {
		all = append(all, m.name, fmt.Sprint(m.score))
	}
	return all
}

// lineStream returns what streamFacts does.
func lineStream(t *testing.T, text []byte) (all []string) {
	t.Helper()
	var s struct {
		Entries [][2]any
		LastID  string `json:"last_id"`
		Length  int
		Groups  []struct {
			Name, LastID string
			Unowned      []any
			Consumers    []struct {
				Name    string
				Pending [][3]any
			}
		}
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%v: %.300s", err, text)
	}
	for _, e := range s.Entries {
		fields := []string{}
		for _, f := range e[1].([]any) {
			fields = append(fields, told(t, f.(string)))
		}
		all = append(all, fmt.Sprintf("%s %q", e[0], fields))
	}
	for _, g := range s.Groups {
		pending := 0
		for _, c := range g.Consumers {
			pending += len(c.Pending)
		}
		all = append(all, fmt.Sprintf("%s %d %d", told(t, g.Name), len(g.Consumers), pending))
	}
	return append(all, fmt.Sprint(s.Length), s.LastID)
}

// streamFacts are the entries of a stream, and its groups with their numbers of consumers and pending entries.
func streamFacts(s *rt.Server, key string) (all []string) {
	for _, e := range s.MustDo("XRANGE", key, "-", "+").Array {
		fields := []string{}
		for _, f := range e.Array[1].Array {
			fields = append(fields, f.Text)
		}
		all = append(all, fmt.Sprintf("%s %q", e.Array[0].Text, fields))
	}
	for _, g := range s.MustDo("XINFO", "GROUPS", key).Array {
		m := map[string]resp.Reply{}
		for i := 0; i < len(g.Array); i += 2 {
			m[g.Array[i].Text] = g.Array[i+1]
		}
		all = append(all, fmt.Sprintf("%s %d %d", m["name"].Text, m["consumers"].Int, m["pending"].Int))
	}
	info := s.MustDo("XINFO", "STREAM", key).Array
	for i := 0; i < len(info); i += 2 {
		if info[i].Text == "last-generated-id" {
			return append(all, fmt.Sprint(s.MustDo("XLEN", key).Int), info[i+1].Text)
		}
	}
	return all
}

// whole is a source and a keeper of a window that has all of a file.
type whole struct{ *bytes.Reader }

func (w whole) Read(_ context.Context, p []byte) (int, error) { return w.Reader.Read(p) }
func (whole) Ready() bool                                     { return true }

func (whole) Roll(_ context.Context, tail []byte, want int) ([]byte, error) {
	return append(make([]byte, 0, max(want, 1<<20)), tail...), nil
}

func (w whole) Idle(ctx context.Context, tail []byte) ([]byte, error) { return w.Roll(ctx, tail, 0) }

// records returns what a snapshot holds, byte by byte.
func records(t *testing.T, path string) (format string, all map[string]int) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	w, all := whole{bytes.NewReader(content)}, make(map[string]int)
	d := rdb.NewDecoder(func(sum func([]byte)) *feed.Window { return feed.New(t.Context(), w, w, 0, 1<<30, sum) })
	for err = d.Header(); err == nil; {
		var r rdb.Record
		if err = d.Next(&r); err != nil || r.Kind == rdb.KindEnd {
			break
		}
		kept := d.Window().Kept()
		part := func(s rdb.Span) []byte { return kept[s.Off : s.Off+s.Len] }
		name := part(r.Name)
		if r.Kind == rdb.KindKey {
			name, err = rdb.AppendString(nil, name)
		}
		value := part(r.Value)
		if r.Kind == rdb.KindFunction {
			value, err = rdb.AppendString(nil, value)
		}
		all[fmt.Sprintf("%d %d %d %q %q %x %d %d %d", r.Kind, r.DB, r.Type, name, part(r.Prefix), value, r.ExpireAt, r.Idle, r.Freq)]++
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return fmt.Sprint(d.Valkey, d.Version), all
}

// TestGoldenToSnapshotFile: the golden files are written again without a byte of a value lost.
func TestGoldenToSnapshotFile(t *testing.T) {
	paths, err := filepath.Glob("../../rdb/testdata/*.rdb")
	if err != nil || len(paths) < 10 {
		t.Fatalf("golden files: %v, %v", paths, err)
	}
	for _, path := range paths {
		for _, buffer := range []string{"1MiB", "64MiB"} {
			out := filepath.Join(t.TempDir(), "dump.rdb")
			start(t, "--source", "rdb://"+path, "--target", "rdb://"+out, "--buffer-max-bytes", buffer).exit(haul.ExitDone)
			wantFormat, want := records(t, path)
			gotFormat, got := records(t, out)
			if len(want) == 0 { // of an empty snapshot nothing but its end is known
				wantFormat = gotFormat
			}
			if gotFormat != wantFormat || !maps.Equal(got, want) {
				t.Errorf("%s: format %s with %d records, want %s with %d", path, gotFormat, len(got), wantFormat, len(want))
			}
		}
	}
}

// TestFilesToFiles: files are written from files, with the commands that follow a snapshot where there is room for them.
func TestFilesToFiles(t *testing.T) {
	source := rt.Start(t, logged("yes"))
	variety(t, source)
	rewriteAOF(t, source)
	base := rt.Start(t, rt.Options{})
	start(t, "--source", source.URL(), "--target", base.URL(), "--until", "snapshot", "--expiry-mode", "target").exit(haul.ExitDone)
	source.MustDo("INCRBY", "number", 7)
	source.MustDo("RPUSH", "big:list", "behind")
	from, dir := "aof://"+aofFiles(source), t.TempDir()
	start(t, "--source", from, "--target", "resp://"+dir+"/commands").exit(haul.ExitDone)
	equal(t, source.Endpoint(), piped(t, dir+"/commands").Endpoint())

	start(t, "--source", from, "--target", "rdb://"+dir+"/base.rdb").exit(haul.ExitUsage, "must be snapshot")
	start(t, "--source", from, "--target", "rdb://"+dir+"/base.rdb", "--until", "snapshot").exit(haul.ExitDone)
	equal(t, base.Endpoint(), loaded(t, dir+"/base.rdb").Endpoint())

	start(t, "--source", "rdb://"+dir+"/base.rdb", "--target", "resp://"+dir+"/again.gz").exit(haul.ExitDone)
	start(t, "--source", "rdb://"+dir+"/base.rdb,"+dir+"/base.rdb", "--target", "rdb://"+dir+"/twice.rdb").
		exit(haul.ExitRefused, "several snapshots")
}

package rdb

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func allReleases(t testing.TB) []Release {
	var all []Release
	for _, name := range []string{"redis 5.0", "redis 6.2", "redis 7.0", "redis 7.2", "redis 7.4", "redis 8.6", "redis 8.8", "valkey 8.1", "valkey 9.1"} {
		r, err := ParseRelease(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// TestRewrite: what is rewritten has the same elements, but for what is said to be lost.
func TestRewrite(t *testing.T) {
	for _, s := range append(goldenValues(t), madeValues()...) {
		for _, to := range allReleases(t) {
			checkRewrite(t, s, to)
		}
	}
}

func checkRewrite(t *testing.T, s sample, to Release) {
	t.Helper()
	form, lacks := to.Form(s.Type, s.Valkey, false)
	out, typ, lost, err := to.Rewrite([]byte("before"), s.Value, s.body)
	if form == FormMissing {
		if !errors.Is(err, ErrUnsupported) || string(out) != "before" {
			t.Errorf("%s to %v: %q, %v", s.name, to, out, err)
		}
		return
	}
	if s.name == "fuzzed" { // by its type alone it cannot have this
		lost = strings.Trim(strings.ReplaceAll(lost, lostUnowned, ""), ", ")
	}
	body, ok := bytes.CutPrefix(out, []byte("before"))
	if err != nil || !ok || !to.reads(typ, to.Valkey) || !strings.Contains(lacks, lost) && lost != lacks {
		t.Errorf("%s to %v: type %d, lost %q of %q, %v", s.name, to, typ, lost, lacks, err)
		return
	}
	if (form == FormAsItIs) != (typ == s.Type && bytes.Equal(body, s.body)) {
		t.Errorf("%s to %v: form %d, type %d from %d", s.name, to, form, typ, s.Type)
	}
	want, err := listed(s.Value, s.body)
	if err != nil {
		t.Fatal(err)
	}
	got, err := listed(Value{typ, to.Valkey}, body)
	if err != nil {
		t.Errorf("%s to %v: %v", s.name, to, err)
		return
	}
	if typeKind(s.Type, s.Valkey) == TypeStream && typ != s.Type {
		want = streamFor(want, typ)
	}
	if lost != "" && typeKind(s.Type, s.Valkey) == TypeHashTTL {
		for i := range want {
			want[i] = withDeadline(to, want[i])
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s to %v:\n%s\nwant\n%s", s.name, to, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// withDeadline gives the line of a field the deadline that the release has a place for.
func withDeadline(to Release, line string) string {
	words := strings.Split(line, " ")
	word := &words[len(words)-3]
	at, _ := strconv.ParseInt(*word, 10, 64)
	at, _ = to.fieldTTL(at)
	*word = fmt.Sprint(at)
	return strings.Join(words, " ")
}

// streamFor takes from the lines of a stream what a type of it has no place for.
func streamFor(lines []string, typ byte) []string {
	var out []string
	unowned := false
	for _, line := range lines {
		kind, _, _ := strings.Cut(line, " ")
		unowned = kind == "group" || unowned && kind == "pending"
		words := strings.Split(line, " ")
		switch {
		case kind == "producer" && typ < TypeStream4, kind == "pending" && unowned:
			continue
		case kind == "stream" && typ < TypeStream2:
			line = strings.Join(words[:4], " ") + " First:{MS:0 Seq:0} MaxDeleted:{MS:0 Seq:0} Added:0 Extended:false}"
		case kind == "group" && typ < TypeStream2, kind == "consumer" && typ < TypeStream3:
			line = strings.Join(append(words[:len(words)-1], "-1"), " ")
		}
		out = append(out, line)
	}
	return out
}

// TestRewriteLost: by the type alone a stream may lose something, and looked at it loses nothing.
func TestRewriteLost(t *testing.T) {
	plain := newSnapshot("").len(0, 0, 0, 0, 0, 0, 0, 0, 0, 1).str("g").len(0, 0, 0, 0, 0, 0, 100, 100, 0, 0, 0).b
	to := Release{Valkey: true, Major: 8, Minor: 1}
	if form, lacks := to.Form(TypeStream5, false, false); form != FormRewritten || lacks == "" {
		t.Errorf("form %d, lacks %q", form, lacks)
	}
	out, typ, lost, err := to.Rewrite(nil, Value{Type: TypeStream5}, plain)
	if err != nil || typ != TypeStream3 || lost != "" || len(out) != len(plain)-8 {
		t.Errorf("%x as %d, lost %q, %v", out, typ, lost, err)
	}
	_, _, lost, err = to.Rewrite(nil, Value{Type: TypeStream5}, madeStream(TypeStream5).b)
	if err != nil || lost != lostUnowned+", "+lostProducers {
		t.Errorf("lost %q, %v", lost, err)
	}
	hash := newSnapshot("").i64(5).len(1, 0).str("f", "v").b
	_, typ, lost, err = Release{Major: 6}.Rewrite(nil, Value{Type: TypeHashTTL}, hash)
	if err != nil || typ != TypeHash || lost != "" {
		t.Errorf("type %d, lost %q, %v", typ, lost, err)
	}
}

// TestRewriteTruncated: what is not copied blindly is never a success when it ends early.
func TestRewriteTruncated(t *testing.T) {
	to := Release{Major: 5}
	for _, s := range append(goldenValues(t), madeValues()...) {
		if form, _ := to.Form(s.Type, s.Valkey, false); form != FormRewritten && form != FormDegraded {
			continue
		}
		step := 1
		if len(s.body) > 3000 {
			step = 101
		}
		for cut := 0; cut < len(s.body); cut += step {
			if _, _, _, err := to.Rewrite(nil, s.Value, s.body[:cut]); !known(err) || !errors.Is(err, ErrTruncated) {
				t.Fatalf("%s cut at %d of %d: %v", s.name, cut, len(s.body), err)
			}
		}
		if _, _, _, err := to.Rewrite(nil, s.Value, append(slices.Clone(s.body), 0)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s with a byte more: %v", s.name, err)
		}
	}
}

func BenchmarkRewrite(b *testing.B) {
	to := Release{Major: 6, Minor: 2}
	for _, s := range goldenValues(b) {
		if form, _ := to.Form(s.Type, s.Valkey, false); form == FormAsItIs || len(s.body) < 500 || !strings.HasPrefix(s.name, "redis-8.0/") {
			continue
		}
		b.Run(fmt.Sprintf("%d/%s", s.Type, s.name), func(b *testing.B) {
			var dst []byte
			b.SetBytes(int64(len(s.body)))
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, _, _, err = to.Rewrite(dst[:0], s.Value, s.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package checkpoint

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
)

func TestFenceText(t *testing.T) {
	id := "8371b4fb1155b71f4a04d3e1bc3e18c4a990aeeb"
	for _, f := range []Fence{
		{Generation: 1, At: haul.Position{Generation: 1, ReplID: id}},
		{Generation: 7, At: haul.Position{Generation: 7, ReplID: id, Offset: 12345, DB: 15}, Sub: 99},
		{Generation: 7, At: haul.Position{Generation: 7, ReplID: id, Offset: 12345, DB: 15}, Sparse: true},
		{Generation: math.MaxUint64, At: haul.Position{Generation: math.MaxUint64, ReplID: id, Offset: math.MaxInt64, DB: math.MaxInt32}},
	} {
		got, err := ParseFence(string(f.Append(nil)))
		if err != nil || got != f {
			t.Errorf("%s: got %+v, %v", f.text(), got, err)
		}
	}
	if got, want := at(100).text(), "1 4 abc 100 3 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseFenceRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", "x", "0 1 a 1 0 0", "-1 1 a 1 0 0", "1", "1 ", "1 1 a 1 0", "1 1 a 1 0 0 ", "1 1 a 1 0 0 dense", "1 1 a 1 0 0 sparse x",
		"1 x a 1 0 0", "1 1  1 0 0", "1 1 a x 0 0", "1 1 a -1 0 0", "1 1 a 1 -1 0", "1 1 a 1 4294967296 0", "1 1 a 1 0 -5", "1  1 a 1 0 0",
	} {
		if f, err := ParseFence(text); err == nil || errors.Is(err, ErrNewer) {
			t.Errorf("%q: got %+v, %v", text, f, err)
		}
	}
	for _, text := range []string{"2 1 a 1 0 0", "2", "10 what ever"} {
		if _, err := ParseFence(text); !errors.Is(err, ErrNewer) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseFence(f *testing.F) {
	f.Add("1 4 abc 100 3 0")
	f.Add("1 4 abc 100 3 0 sparse")
	f.Fuzz(func(t *testing.T, text string) {
		fence, err := ParseFence(text)
		if err != nil {
			return
		}
		if again, err := ParseFence(fence.text()); err != nil || again != fence {
			t.Errorf("%q: %+v became %+v, %v", text, fence, again, err)
		}
	})
}

func TestFenceAppendDoesNotAllocate(t *testing.T) {
	dst, f := make([]byte, 0, 128), at(1<<40)
	if n := testing.AllocsPerRun(100, func() { dst = f.Append(dst[:0]) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkFenceAppend(b *testing.B) {
	dst, f := make([]byte, 0, 128), at(1<<40)
	b.ReportAllocs()
	for b.Loop() {
		dst = f.Append(dst[:0])
	}
}

func TestRecordText(t *testing.T) {
	r := Record{
		Version: 1, Generation: 4, Phase: PhaseSnapshot, Start: at(5).At, Began: BeganFlushed,
		Syncs: []int64{1, 2}, Grace: 3, Import: true, Finishing: finishingRaise, Finished: 9,
	}
	text, err := r.text()
	want := `{"version":1,"generation":4,"phase":"snapshot","began":"flushed","syncs":[1,2],"grace_ms":3,"import":true,` +
		`"finishing":"raise","finished":9,"start":{"replid":"abc","offset":5,"db":3}}`
	if err != nil || text != want {
		t.Fatalf("got  %s, %v\nwant %s", text, err, want)
	}
	if got, err := parseRecord(text); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("got %+v, %v", got, err)
	}
	for text, newer := range map[string]bool{
		`{"version":2,"generation":"changed"}`:              true,
		`{"version":1}`:                                     false,
		`{"version":1,"phase":"streaming","generation":-1}`: false,
		`hello`: false,
		`{}`:    false,
	} {
		if _, err := parseRecord(text); err == nil || errors.Is(err, ErrNewer) != newer {
			t.Errorf("%s: %v", text, err)
		}
	}
	if _, err := json.Marshal(Refusal{}); err != nil {
		t.Error(err)
	}
}

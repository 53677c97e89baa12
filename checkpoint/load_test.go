package checkpoint

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/redistest"
)

func TestLoadOfAnEmptyTarget(t *testing.T) {
	_, s := standalone(t, redistest.Options{})
	st := load(t, s)
	if st.Found || st.Lost != nil || st.Tombstone || len(st.Nodes) != 1 || st.Nodes[0].RunID == "" || len(s.Standing("")) != 0 {
		t.Errorf("%+v", st)
	}
}

func TestSaveAndLoad(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	ctx := testContext(t)
	server.MustDo("SADD", namesKey, "other")
	r := streaming
	for i := range int64(12) {
		r.Syncs = append(r.Syncs, i)
	}
	must(t, s.Save(ctx, r))
	must(t, s.Spread(ctx, at(100)))
	refusal := Refusal{Offset: 5, DB: 2, Command: "INCR", Keys: []string{"a"}, Error: "WRONGTYPE", Time: time.Unix(1e9, 0).UTC()}
	must(t, s.Note(ctx, refusal))
	st := load(t, newStore(t, server.Endpoint(), false, "w2"))
	r.Version, r.Syncs = 1, r.Syncs[2:]
	if !reflect.DeepEqual(st.Record, r) || !reflect.DeepEqual(s.Record(), r) {
		t.Errorf("record %+v", st.Record)
	}
	if !st.Found || st.Lost != nil || st.Tombstone || !slices.Equal(st.Others, []string{"other"}) || !reflect.DeepEqual(st.Refusals, []Refusal{refusal}) {
		t.Errorf("%+v", st)
	}
	if st.Base != at(100).At || st.Highest != 100 || !slices.Equal(st.Applied, []int64{100}) {
		t.Errorf("%+v", st)
	}
	must(t, s.Forget(ctx))
	server.MustDo("SET", s.Keys().Tombstone(), "1")
	must(t, s.Save(ctx, r))
	if st := load(t, s); len(st.Refusals) > 0 || !st.Tombstone {
		t.Errorf("%+v", st)
	}
}

func TestJudgementOfAStandalone(t *testing.T) {
	const none = "none"
	sub := at(100)
	sub.Sub = 50
	old := at(100)
	old.Generation, old.At.Generation = 3, 3
	tests := map[string]struct {
		fence, mark string
		lost        string
		base        Fence
	}{
		"fence behind":         {at(100).text(), at(200).text(), "", at(200)},
		"fence ahead":          {at(300).text(), at(200).text(), "", at(300)},
		"sub counts":           {sub.text(), at(120).text(), "", sub},
		"mark above sub":       {sub.text(), at(160).text(), "", at(160)},
		"mark missing":         {at(100).text(), none, "", at(100)},
		"fence missing":        {none, at(200).text(), "missing", at(200)},
		"both missing":         {none, none, "missing", Fence{}},
		"fence of an earlier":  {old.text(), at(200).text(), "generation 3", at(200)},
		"mark of an earlier":   {at(100).text(), old.text(), "generation 3", at(100)},
		"fence is no fence":    {"hello", at(200).text(), "cannot be read", at(200)},
		"mark is no mark":      {at(100).text(), "hello", "cannot be read", at(100)},
		"fence of a later one": {strings.Replace(at(100).text(), " 4 ", " 5 ", 1), at(200).text(), "generation 5", at(200)},
	}
	server, s := standalone(t, redistest.Options{})
	begun(t, s)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for key, text := range map[string]string{s.Keys().Whole(): test.fence, s.Keys().WholeMark(): test.mark} {
				if server.MustDo("DEL", key); text != none {
					server.MustDo("SET", key, text)
				}
			}
			st := load(t, s)
			if test.lost == "" != (st.Lost == nil) || st.Lost != nil && (!errors.Is(st.Lost, ErrLost) || !strings.Contains(st.Lost.Error(), test.lost)) {
				t.Errorf("lost: %v", st.Lost)
			}
			if st.Base != test.base.At || st.Sub != test.base.Sub || st.Applied[0] != test.base.Applied() {
				t.Errorf("base %v, sub %d, applied %d", st.Base, st.Sub, st.Applied[0])
			}
		})
	}
}

func TestANewerFormatIsRefused(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	for _, key := range []string{s.Keys().Whole(), s.Keys().WholeMark(), s.Keys().Record()} {
		server.MustDo("FLUSHALL")
		begun(t, s)
		server.MustDo("SET", key, `2 x`)
		if key == s.Keys().Record() {
			server.MustDo("SET", key, `{"version":2}`)
		}
		if _, err := s.Load(testContext(t)); !errors.Is(err, ErrNewer) || haul.ExitOf(err) != haul.ExitRefused {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestJudgementOfACluster(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	k := s.Keys()
	text := func(f Fence) string { return f.text() }
	generation := func(f Fence, n uint64) Fence {
		f.Generation, f.At.Generation = n, n
		return f
	}
	sparse := at(150)
	sparse.Sparse = true
	first := func(node int) uint16 { return uint16(node * 16384 / 3) }
	tests := []struct {
		name string
		set  map[string]string // by key; an empty text deletes it
		lost string
		base int64
		at   int64 // applied in slot 8000, of the second node
	}{
		{"as written", nil, "", 100, 100},
		{"a fence ahead", map[string]string{k.Fence(8000): text(at(170))}, "", 100, 170},
		{"marks ahead", map[string]string{k.Mark(first(0)): text(at(120)), k.Mark(first(1)): text(at(130)), k.Mark(first(2)): text(at(140))}, "", 120, 120},
		{"the higher of two marks of a node", map[string]string{k.Mark(first(1)): text(at(130)), k.Mark(8000): text(at(110)), k.Mark(first(0)): text(at(120)), k.Mark(first(2)): text(at(125))}, "", 120, 120},
		{"the later of two marks alike", map[string]string{k.Mark(first(1)): text(at(150)), k.Mark(8000): text(sparse), k.Fence(8000): ""}, "fence of slot 8000", 100, 100},
		{"one fence missing", map[string]string{k.Fence(8000): ""}, "fence of slot 8000 on", 100, 100},
		{"one fence of an earlier generation", map[string]string{k.Fence(8000): text(generation(at(100), 3))}, "generation 3", 100, 100},
		{"one fence of a later generation", map[string]string{k.Fence(8000): text(generation(at(100), 5))}, "generation 5", 100, 100},
		{"one mark missing", map[string]string{k.Mark(first(1)): ""}, "the mark on", 0, 0},
		{"one mark of an earlier generation", map[string]string{k.Mark(first(1)): text(generation(at(100), 3))}, "generation 3", 0, 0},
		{"one mark of a later generation", map[string]string{k.Mark(first(1)): text(generation(at(100), 5))}, "generation 5", 0, 0},
		{"a mark left over from an earlier generation", map[string]string{k.Mark(8000): text(generation(at(1), 3))}, "", 100, 100},
		{"sparse", map[string]string{k.Mark(first(1)): text(sparse), k.Fence(8000): "", k.Fence(8001): ""}, "", 100, 150},
		{"sparse elsewhere", map[string]string{k.Mark(first(0)): text(sparse), k.Fence(8000): ""}, "fence of slot 8000", 100, 100},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			begun(t, s)
			for key, value := range test.set {
				if value == "" {
					c.MustDo(key, "DEL", key)
				} else {
					c.MustDo(key, "SET", key, value)
				}
			}
			st := load(t, newStore(t, c.Endpoint(), true, "w2"))
			if test.lost == "" != (st.Lost == nil) || st.Lost != nil && !strings.Contains(st.Lost.Error(), test.lost) {
				t.Errorf("lost: %v", st.Lost)
			}
			if test.lost == "" && st.Base.Offset != test.base || test.lost == "" && st.Applied[8000] != test.at {
				t.Errorf("base %v, applied %d", st.Base, st.Applied[8000])
			}
			if len(st.Nodes) != 3 || len(st.Nodes[1].Slots) < 5461 || st.Nodes[2].RunID == "" {
				t.Errorf("nodes: %d", len(st.Nodes))
			}
		})
	}
	t.Run("a snapshot is not judged", func(t *testing.T) {
		r := streaming
		r.Phase = PhaseSnapshot
		must(t, s.Save(testContext(t), r))
		c.MustDo(k.Fence(8000), "DEL", k.Fence(8000))
		if st := load(t, s); st.Lost != nil || !st.Found {
			t.Errorf("%v", st.Lost)
		}
	})
}

func TestAllFencesAreLoadedWithinASecond(t *testing.T) {
	_, s := cluster(t, redistest.ClusterOptions{})
	began := time.Now()
	begun(t, s)
	wrote := time.Since(began)
	began = time.Now()
	load(t, s)
	took := time.Since(began)
	t.Logf("written in %v, loaded in %v", wrote, took)
	if took > 3*time.Second {
		t.Errorf("loaded in %v", took)
	}
}

func TestApplied(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	begun(t, s)
	ctx, k := testContext(t), s.Keys()
	c.MustDo(k.Fence(5), "SET", k.Fence(5), at(500).text())
	into := make([]int64, 16384)
	into[6] = 600
	owner := c.NodeFor(5).Addr
	must(t, s.Applied(ctx, owner, []uint16{5, 6, 7}, into))
	if into[5] != 500 || into[6] != 600 || into[7] != 100 || into[8] != 0 {
		t.Error(into[5:9])
	}
	if err := s.Applied(ctx, owner, []uint16{16000}, into); code(err) != "MOVED" {
		t.Errorf("%v", err)
	}
	c.MustDo(k.Fence(6), "DEL", k.Fence(6))
	if err := s.Applied(ctx, owner, []uint16{5, 6, 7}, into); !errors.Is(err, ErrLost) {
		t.Errorf("%v", err)
	}
}

func TestAppliedOnAStandalone(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	begun(t, s)
	into := []int64{700}
	must(t, s.Applied(testContext(t), server.Addr, nil, into))
	if into[0] != 100 {
		t.Error(into)
	}
	server.MustDo("DEL", s.Keys().Whole())
	if err := s.Applied(testContext(t), server.Addr, nil, into); !errors.Is(err, ErrLost) {
		t.Errorf("%v", err)
	}
}

func TestMarkFollowsMovedSlots(t *testing.T) {
	c, s := cluster(t, redistest.ClusterOptions{})
	begun(t, s)
	ctx := testContext(t)
	must(t, s.Mark(ctx, at(200)))
	from, to := c.Nodes[0], c.Nodes[1]
	c.MoveSlot(0, from, to) // the one with the first node's mark
	must(t, s.Mark(ctx, at(300)))
	st := load(t, newStore(t, c.Endpoint(), true, "w2"))
	if st.Lost != nil || st.Base.Offset != 300 {
		t.Errorf("base %v, lost %v", st.Base, st.Lost)
	}
	c.MoveSlot(0, to, from) // and its second mark goes home
	must(t, s.Mark(ctx, at(400)))
	if st := load(t, s); st.Lost != nil || st.Base.Offset != 400 {
		t.Errorf("base %v, lost %v", st.Base, st.Lost)
	}
	c.MoveSlot(1, from, to)
	other := newStore(t, c.Endpoint(), true, "w3")
	load(t, other)
	must(t, other.Mark(ctx, at(500)))
	if st := load(t, s); st.Lost != nil || st.Base.Offset != 500 || st.Nodes[0].Mark.Applied() != 500 {
		t.Errorf("base %v, lost %v", st.Base, st.Lost)
	}
}

func TestSaveTriesUntilTheTargetIsBack(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	must(t, s.Save(testContext(t), streaming))
	server.Stop()
	done := make(chan error, 1)
	go func() { done <- s.Mark(testContext(t), at(200)) }()
	if err := <-done; err == nil {
		t.Error("a mark was written to no one")
	}
	go func() { done <- s.Save(testContext(t), streaming) }()
	time.Sleep(300 * time.Millisecond)
	server.Restart()
	must(t, <-done)
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	server.Stop()
	if err := s.Save(ctx, streaming); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestSaveGivesUpOnWhatNeverHeals(t *testing.T) {
	server, s := standalone(t, redistest.Options{})
	server.MustDo("SET", namesKey, "a string")
	if err := s.Save(testContext(t), streaming); code(err) != "WRONGTYPE" || !strings.Contains(err.Error(), server.Addr) {
		t.Errorf("%v", err)
	}
}

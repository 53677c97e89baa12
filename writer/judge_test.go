package writer

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// judged is a cluster's router that knows of keys which are ahead, and a batch of one entry from offset 100 to 200.
func judged(ahead map[string]int64, applied map[string]int64, lines []string) (*cluster, item) {
	var known []checkpoint.Ahead
	for name, offset := range ahead {
		k := haul.KeyName{Name: name}
		known = append(known, checkpoint.Ahead{Key: k, Slot: slotOf(k), Offset: offset})
	}
	d := newDispatcher(Config{Node: topology.Node{Cluster: true}, Ahead: known})
	d.applied = make([]int64, command.Slots)
	for name, offset := range applied {
		d.applied[command.Slot([]byte(name))] = offset
	}
	b := &ownBatch{Batch: haul.NewOwn(1, func() {})}
	for _, line := range lines {
		b.command(0, strings.Fields(line)...)
	}
	e := haul.Entry{Start: 100, End: 200, Resume: 200, Kind: haul.KindCommand, N: uint32(len(lines))}
	if len(lines) > 1 {
		e.Kind = haul.KindTransaction
	}
	b.Entries = append(b.Entries, e)
	return newCluster(d), item{batch: b.Batch, n: 1}
}

func TestJudge(t *testing.T) {
	tests := map[string]struct {
		commands []string
		ahead    map[string]int64
		applied  map[string]int64 // slots of these keys
		need     string
		covered  []int
		left     bool
	}{
		"one key":                           {commands: []string{"INCR a"}, left: true},
		"one key, ahead":                    {commands: []string{"INCR a"}, ahead: map[string]int64{"a": 200}, covered: []int{0}},
		"one key, ahead of what was before": {commands: []string{"INCR a"}, ahead: map[string]int64{"a": 100}, left: true},
		"two slots":                         {commands: []string{"RENAME a b"}, need: "a b", covered: []int{0}},
		"two slots, both ahead":             {commands: []string{"RENAME a b"}, ahead: map[string]int64{"a": 200, "b": 300}, covered: []int{0}},
		"two slots, one ahead":              {commands: []string{"RENAME a b"}, ahead: map[string]int64{"a": 200}, need: "b", covered: []int{0}},
		"two slots, one applied":            {commands: []string{"RENAME a b"}, applied: map[string]int64{"a": 200}, need: "b", covered: []int{0}},
		"two slots, both applied":           {commands: []string{"RENAME a b"}, applied: map[string]int64{"a": 200, "b": 200}, covered: []int{0}},
		"only the result is read":           {commands: []string{"SUNIONSTORE d a b"}, need: "d", covered: []int{0}},
		"the result is ahead":               {commands: []string{"SUNIONSTORE d a b"}, ahead: map[string]int64{"d": 200}, covered: []int{0}},
		"one slot":                          {commands: []string{"SUNIONSTORE {x}d {x}a"}, left: true},
		"one slot, meets one ahead":         {commands: []string{"SUNIONSTORE {x}d {x}a"}, ahead: map[string]int64{"{x}a": 200}, need: "{x}d", covered: []int{0}},
		"one slot, meets one in two":        {commands: []string{"LMOVE {x}d {x}a LEFT LEFT"}, ahead: map[string]int64{"{x}a": 200}, need: "{x}d", covered: []int{0}},
		"reads what it does not name":       {commands: []string{"SORT {x}a BY w_* STORE {x}d"}, need: "{x}d", covered: []int{0}},
		"split":                             {commands: []string{"MSET a 1 b 2"}, left: true},
		"split, one ahead":                  {commands: []string{"DEL a b"}, ahead: map[string]int64{"a": 200}, need: "b", covered: []int{0}},
		"no key":                            {commands: []string{"FLUSHALL"}, left: true},
		"transaction":                       {commands: []string{"INCR a", "INCR b"}, left: true},
		"transaction, one key ahead":        {commands: []string{"INCR a", "INCR b"}, ahead: map[string]int64{"b": 200}, covered: []int{1}, left: true},
		"transaction, what is read covers the rest": {
			commands: []string{"INCR a", "INCR c", "RENAME a b", "APPEND b x", "PUBLISH m x"}, need: "a b", covered: []int{0, 2, 3}, left: true,
		},
		"transaction, what is read meets others": {
			commands: []string{"RPOPLPUSH {x}c {x}a", "RENAME {x}a b"}, need: "{x}a b {x}c", covered: []int{0, 1},
		},
		"another database":            {commands: []string{"COPY {x}a {x}b DB 2"}, ahead: map[string]int64{"{x}b": 200}, left: true},
		"another database, one ahead": {commands: []string{"MOVE a 2"}, ahead: map[string]int64{"a": 200}, need: "2:a", covered: []int{0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c, it := judged(tt.ahead, tt.applied, tt.commands)
			v, err := c.judge(context.Background(), it, &keySet{})
			var need []string
			for _, k := range v.need.list {
				if k.DB > 0 {
					k.Name = fmt.Sprintf("%d:%s", k.DB, k.Name)
				}
				need = append(need, k.Name)
			}
			if err != nil || strings.Join(need, " ") != tt.need || !slices.Equal(v.covered, tt.covered) || v.left != tt.left {
				t.Errorf("%q, covered %v, left %v, error %v; want %q, %v, %v", need, v.covered, v.left, err, tt.need, tt.covered, tt.left)
			}
		})
	}
}

func TestAheadTable(t *testing.T) {
	at := func(name string, offset int64) checkpoint.Ahead {
		k := haul.KeyName{Name: name}
		return checkpoint.Ahead{Key: k, Slot: slotOf(k), Offset: offset}
	}
	table := newAheadTable([]checkpoint.Ahead{at("c", 30), at("a", 10), at("b", 20)})
	table.set(at("a", 40))
	if gone := table.reached(30, 10); len(gone) != 2 || gone[0].Key.Name != "b" || gone[1].Key.Name != "c" {
		t.Errorf("reached 30: %v", gone)
	}
	k := haul.KeyName{Name: "a"}
	if !table.has(slotOf(k), k, 40) || table.has(slotOf(k), k, 41) || table.empty() {
		t.Error("a is not at 40")
	}
	table.flushed(false, 1, func(uint16) bool { return false })
	table.flushed(true, 0, func(uint16) bool { return true })
	if table.empty() {
		t.Error("a was flushed with another database, or where that was done before")
	}
	table.expire()
	if gone := table.reached(0, 10); len(gone) != 1 || !table.empty() {
		t.Errorf("expired: %v", gone)
	}
}

// TestOwnFence: a transaction between two entries never takes the fence of its slot back.
func TestOwnFence(t *testing.T) {
	_, it := judged(nil, nil, []string{"RENAME a b"})
	b := &ownBatch{Batch: haul.NewOwn(2, func() {})}
	at := before(it.batch, it.entry())
	b.transaction(at, 50, []ownKey{{}}, (*ownBatch).restore)
	b.transaction(at, 500, []ownKey{{}}, (*ownBatch).restore)
	for i, want := range []int64{100, 500} {
		if got := fenceAt(b.Batch, &b.Entries[i]).Applied(); got != want {
			t.Errorf("fence %d: %d, want %d", i, got, want)
		}
	}
	piece := haul.Entry{Start: 100, End: 200, Resume: 40, After: 3}
	p := before(it.batch, &piece)
	f := fenceAt(it.batch, &p.entry)
	if f.At.Offset != 40 || f.At.DB != 3 || f.Applied() != 100 {
		t.Errorf("in front of a piece: %+v", f)
	}
}

package filter

import (
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
)

func TestHousekeeping(t *testing.T) {
	for line, drop := range map[string]haul.Drop{
		"PUBLISH __sentinel__:hello 127.0.0.1,26379,x": haul.DropSentinel,
		"publish __sentinel__:hello x":                 haul.DropSentinel,
		"PUBLISH __sentinel__:hello2 x":                haul.DropNone,
		"PUBLISH news __sentinel__:hello":              haul.DropNone,
		"PUBLISH":                                      haul.DropNone,
		"SPUBLISH __sentinel__:hello x":                haul.DropNone,
		"CLUSTER SETSLOT 1 NODE x":                     haul.DropTopology,
		"cluster syncslots finish":                     haul.DropTopology,
		"TRIMSLOTS RANGES 1 0 5":                       haul.DropTopology,
		"SET PUBLISH __sentinel__:hello":               haul.DropNone,
		"UNKNOWN __sentinel__:hello":                   haul.DropNone,
		"FLUSHALL":                                     haul.DropNone,
	} {
		b := &haul.Batch{}
		add(b, strings.Fields(line))
		NewHousekeeping().Apply(b)
		if got := b.Entries[0].Drop; got != drop {
			t.Errorf("%s: %v, want %v", line, got, drop)
		}
	}
}

func TestHousekeepingLeavesOtherEntries(t *testing.T) {
	b := &haul.Batch{}
	add(b, []string{"CLUSTER", "SETSLOT"})
	b.Entries[0].Big = &haul.Big{} // its arguments are not at hand
	b.Commands[0].NArg = 0
	add(b, []string{"PUBLISH", "__sentinel__:hello", "x"})
	b.Entries[1].Kind = haul.KindTransaction
	b.Keys = append(b.Keys, haul.Key{})
	b.Entries = append(b.Entries, haul.Entry{Kind: haul.KindKey, N: 1}, haul.Entry{Kind: haul.KindFunction, N: 1})
	NewHousekeeping().Apply(b)
	for i, e := range b.Entries {
		if e.Drop != haul.DropNone {
			t.Errorf("entry %d is dropped: %v", i, e.Drop)
		}
	}
}

func add(b *haul.Batch, args []string) {
	c := haul.Command{Spec: command.Lookup([]byte(args[0])), Arg: uint32(len(b.Args)), NArg: uint32(len(args))}
	for _, a := range args {
		b.Args = append(b.Args, haul.Span{Off: uint32(len(b.Buf)), Len: uint32(len(a))})
		b.Buf = append(b.Buf, a...)
	}
	b.Commands = append(b.Commands, c)
	b.Entries = append(b.Entries, haul.Entry{Kind: haul.KindCommand, First: uint32(len(b.Commands) - 1), N: 1})
}

func BenchmarkHousekeeping(b *testing.B) {
	batch := &haul.Batch{}
	for range haul.BatchEntries {
		add(batch, []string{"SET", "key", "value"})
	}
	f := NewHousekeeping()
	b.ReportAllocs()
	for b.Loop() {
		f.Apply(batch)
	}
}

package filter

import (
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// entryOf is a batch of one command in a database.
func entryOf(db int32, args ...string) *haul.Batch {
	b := haul.NewOwn(1, func() {})
	for _, a := range args {
		b.Args = append(b.Args, haul.Span{Off: uint32(len(b.Buf)), Len: uint32(len(a))})
		b.Buf = append(b.Buf, a...)
	}
	b.Commands = []haul.Command{{Spec: command.Lookup([]byte(args[0])), NArg: uint32(len(args)), DB: db}}
	b.Entries = append(b.Entries, haul.Entry{Kind: haul.KindCommand, DB: db, N: 1})
	return b
}

func TestDatabases(t *testing.T) {
	apart := haul.DBMap{1: 5, 2: 0, 0: 2, 3: haul.DropDB}
	together := haul.DBMap{0: 0, 1: 0}
	for _, tt := range []struct {
		to   haul.DBMap
		db   int32
		args []string
		want haul.Drop
	}{
		{apart, 1, []string{"SET", "k", "v"}, haul.DropNone},
		{apart, 3, []string{"SET", "k", "v"}, haul.DropDatabase},
		{apart, 5, []string{"SET", "k", "v"}, haul.DropUnmapped}, // database 1 goes there
		{apart, 3, []string{"FLUSHALL"}, haul.DropNone},
		{apart, 3, []string{"PUBLISH", "c", "m"}, haul.DropNone},
		{apart, 3, []string{"FLUSHDB"}, haul.DropDatabase},
		{apart, 5, []string{"FLUSHDB"}, haul.DropDatabase}, // it is empty
		{apart, 1, []string{"FLUSHDB"}, haul.DropNone},
		{together, 1, []string{"FLUSHDB"}, haul.DropUnmapped},
		{together, 0, []string{"SET", "k", "v"}, haul.DropNone},
		{apart, 0, []string{"SWAPDB", "0", "2"}, haul.DropNone},
		{apart, 0, []string{"SWAPDB", "0", "3"}, haul.DropUnmapped},
		{together, 0, []string{"SWAPDB", "0", "2"}, haul.DropUnmapped},
		{apart, 0, []string{"MOVE", "k", "1"}, haul.DropNone},
		{apart, 3, []string{"MOVE", "k", "1"}, haul.DropUnmapped},
		{apart, 3, []string{"COPY", "k", "l"}, haul.DropDatabase},
		{apart, 0, []string{"COPY", "k", "l", "DB", "3"}, haul.DropDatabase},
		{apart, 0, []string{"COPY", "k", "l", "DB", "5"}, haul.DropUnmapped},
		{together, 0, []string{"MOVE", "k", "1"}, haul.DropUnmapped},
		{apart, 3, []string{"MODULE.CMD", "k"}, haul.DropDatabase},
	} {
		b := entryOf(tt.db, tt.args...)
		Databases{tt.to}.Apply(b)
		if got := b.Entries[0].Drop; got != tt.want {
			t.Errorf("%v: %q in database %d: %v, want %v", tt.to, tt.args, tt.db, got, tt.want)
		}
	}
}

// TestMovedAway: a key that moves to a database that is left out is deleted.
func TestMovedAway(t *testing.T) {
	b := entryOf(0, "MOVE", "key", "3")
	Databases{haul.DBMap{3: haul.DropDB}}.Apply(b)
	cmd := &b.Commands[0]
	if want := string(resp.AppendCommand(nil, "DEL", "key")); string(b.Bytes(cmd.Raw)) != want || cmd.Spec.Name != "DEL" ||
		string(b.Arg(cmd, 0)) != "DEL" || string(b.Arg(cmd, 1)) != "key" {
		t.Errorf("%q, want %q", b.Bytes(cmd.Raw), want)
	}
}

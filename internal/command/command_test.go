package command

import (
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	for _, name := range []string{"SET", "set", "sEt", "restore-asking", "GEORADIUSBYMEMBER_RO", "trimslots", "vadd"} {
		s := Lookup([]byte(name))
		if s == nil || s.Name != strings.ToUpper(name) {
			t.Errorf("Lookup(%q) = %+v", name, s)
		}
	}
	for _, name := range []string{"", "SE", "SETT", "XGROUP CREATE", "S\x05T", strings.Repeat("x", 100)} {
		if s := Lookup([]byte(name)); s != nil {
			t.Errorf("Lookup(%q) = %s", name, s.Name)
		}
	}
}

func TestEveryNameFitsTheLookup(t *testing.T) {
	if len(byName) != len(generated)+len(extra) {
		t.Errorf("%d names for %d specs: extra.go repeats the generated table", len(byName), len(generated)+len(extra))
	}
	for name, s := range byName {
		if Lookup([]byte(strings.ToLower(name))) != s {
			t.Errorf("%s is not found", name)
		}
		for i := range s.subs {
			sub := &s.subs[i]
			_, word, ok := strings.Cut(sub.Name, name+" ")
			if !ok || s.Resolve([]byte(strings.ToLower(word))) != sub {
				t.Errorf("%s is not found in %s", sub.Name, name)
			}
		}
	}
}

func TestResolve(t *testing.T) {
	tests := []struct{ name, sub, want string }{
		{"XGROUP", "create", "XGROUP CREATE"},
		{"FUNCTION", "LOAD", "FUNCTION LOAD"},
		{"SET", "key", "SET"},
		{"XGROUP", "nonsense", ""},
		{"nonsense", "x", ""},
	}
	for _, tt := range tests {
		got := ""
		if s := Lookup([]byte(tt.name)).Resolve([]byte(tt.sub)); s != nil {
			got = s.Name
		}
		if got != tt.want {
			t.Errorf("%s %s: %q, want %q", tt.name, tt.sub, got, tt.want)
		}
	}
}

// spec finds a command or, behind a blank, a subcommand.
func spec(t *testing.T, name string) *Spec {
	t.Helper()
	command, sub, _ := strings.Cut(name, " ")
	s := Lookup([]byte(command))
	if sub != "" {
		s = s.Resolve([]byte(sub))
	}
	if s == nil {
		t.Fatalf("%s is unknown", name)
	}
	return s
}

func TestFlags(t *testing.T) {
	tests := []struct {
		name                    string
		write, denyOOM, keyless bool
		firstKey, step, num     int
	}{
		{name: "SET", write: true, denyOOM: true, firstKey: 1},
		{name: "GET", firstKey: 1},
		{name: "SREM", write: true, firstKey: 1},
		{name: "RESTORE-ASKING", write: true, denyOOM: true, firstKey: 1},
		{name: "XIDMPRECORD", write: true, denyOOM: true, firstKey: 1},
		{name: "SPUBLISH", firstKey: 1},
		{name: "XGROUP", write: true, denyOOM: true},
		{name: "XGROUP CREATE", write: true, denyOOM: true, firstKey: 2},
		{name: "XGROUP HELP"},
		{name: "RENAME", write: true},
		{name: "BLPOP", write: true},
		{name: "SORT", write: true, denyOOM: true},
		{name: "SORT_RO"},
		{name: "EVAL"},
		{name: "DEL", write: true, step: 1},
		{name: "UNLINK", write: true, step: 1},
		{name: "TOUCH", step: 1},
		{name: "EXISTS", step: 1},
		{name: "MGET", step: 1},
		{name: "MSET", write: true, denyOOM: true, step: 2},
		{name: "MSETEX", write: true, denyOOM: true, step: 2, num: 1},
		{name: "MSETNX", write: true, denyOOM: true},
		{name: "PFMERGE", write: true, denyOOM: true},
		{name: "FLUSHALL", write: true, keyless: true},
		{name: "FLUSHDB", write: true, keyless: true},
		{name: "SWAPDB", write: true, keyless: true},
		{name: "TRIMSLOTS", write: true, keyless: true},
		{name: "SFLUSH", write: true, keyless: true},
		{name: "PUBLISH", keyless: true},
		{name: "FUNCTION", write: true, denyOOM: true, keyless: true},
		{name: "FUNCTION LOAD", write: true, denyOOM: true, keyless: true},
		{name: "FUNCTION RESTORE", write: true, denyOOM: true, keyless: true},
		{name: "FUNCTION DELETE", write: true, keyless: true},
		{name: "FUNCTION FLUSH", write: true, keyless: true},
		{name: "FUNCTION LIST"},
		{name: "SCRIPT", keyless: true},
		{name: "SCRIPT LOAD", keyless: true},
		{name: "SCRIPT FLUSH", keyless: true},
		{name: "SCRIPT EXISTS"},
		{name: "CLUSTER FLUSHSLOT", write: true, keyless: true},
		{name: "CLUSTER SETSLOT"},
		{name: "SELECT"},
		{name: "MULTI"},
		{name: "EXEC"},
		{name: "PING"},
		{name: "REPLCONF"},
	}
	for _, tt := range tests {
		s := spec(t, tt.name)
		if s.Write != tt.write || s.DenyOOM != tt.denyOOM || s.Keyless() != tt.keyless || s.FirstKey() != tt.firstKey {
			t.Errorf("%s: write %t, denyoom %t, keyless %t, first key %d", tt.name,
				s.Write, s.DenyOOM, s.Keyless(), s.FirstKey())
		}
		if step, num := s.Split(); step != tt.step || num != tt.num {
			t.Errorf("%s: split in steps of %d, number at %d", tt.name, step, num)
		}
	}
}

func TestUnknownSpec(t *testing.T) {
	s := Lookup([]byte("nonsense"))
	if step, _ := s.Split(); s.Resolve(nil) != nil || s.FirstKey() != 0 || s.Keyless() || step != 0 {
		t.Error("a nil spec says something")
	}
}

func BenchmarkLookup(b *testing.B) {
	names := [][]byte{[]byte("SET"), []byte("hset"), []byte("PEXPIREAT"), []byte("XADD"), []byte("zunionstore")}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if Lookup(names[i]) == nil {
			b.Fatal("unknown")
		}
		if i++; i == len(names) {
			i = 0
		}
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	set, group, create := []byte("set"), []byte("xgroup"), []byte("create")
	allocs := testing.AllocsPerRun(100, func() {
		if Lookup(set).FirstKey() != 1 || Lookup(group).Resolve(create).FirstKey() != 2 {
			t.Error("wrong first key")
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

package command

import (
	"strings"
	"testing"
)

func safeOf(argv [][]byte) bool {
	return Lookup(argv[0]).ReplaySafe(len(argv), func(i int) []byte { return argv[i] })
}

func TestReplaySafe(t *testing.T) {
	tests := []struct {
		command string
		want    bool
	}{
		{"SET k v", true},
		{"set k v keepttl", true},
		{"SET k v PXAT 5", true},
		{"SET k v ExAt 5", true},
		{"SET k NX", true},
		{"SET EX EX", true},
		{"SET k v PXAT NX", true}, // an operand; the server refuses it whenever it comes
		{"SET k v EX 5", false},
		{"SET k v PX 5", false},
		{"SET k v NX", false},
		{"SET k v xx", false},
		{"SET k v GET", false},
		{"SET k v PXAT 5 NX", false},
		{"SET k v KEEPTTL GET", false},
		{"SET k v IFEQ w", false},
		{"SET k v IFNE w", false},
		{"SET k v IFDEQ w", false},
		{"SET k v IFDNE PXAT", false},
		{"SET k v PXAT", false},
		{"SET k v NEWOPTION", false},
		{"SET k", false},
		{"SET", false},

		{"HSET k f v", true},
		{"HSET k f v NX v", true},
		{"HMSET k f v", false}, // the same as HSET, but streams of today do not hold it
		{"HSETNX k f v", false},
		{"HSETEX k FIELDS 1 f v", false},
		{"SADD k m", true},
		{"PFADD k m", false},
		{"PFMERGE k j", false},
		{"SETBIT k 1 1", true},
		{"BITFIELD k SET u8 0 1", false},
		{"SETRANGE k 1 v", true},
		{"APPEND k v", false},
		{"MSET k v j w", true},
		{"MSETNX k v", false},
		{"MSETEX 1 k v", false},
		{"DEL k", true},
		{"unlink k j", true},
		{"GETDEL k", false},

		{"ZADD k 1 m", true},
		{"ZADD k -inf NX", true},
		{"ZADD k 1 GT 2 INCR", true},
		{"ZADD k NX 1 m", false},
		{"ZADD k xx 1 m", false},
		{"ZADD k GT 1 m", false},
		{"ZADD k LT 1 m", false},
		{"ZADD k CH 1 m", false},
		{"ZADD k INCR 1 m", false},
		{"ZADD k CH NX 1 m", false},
		{"ZADD k", false},
		{"ZADD", false},
		{"ZINCRBY k 1 m", false},

		{"RESTORE k 0 p REPLACE", true},
		{"RESTORE k 0 p replace absttl", true},
		{"RESTORE k 5 p ABSTTL REPLACE", true},
		{"RESTORE k 5 p REPLACE ABSTTL IDLETIME 3 FREQ 1", true},
		{"RESTORE k 5 p REPLACE", false},
		{"RESTORE k 00 p REPLACE", false},
		{"RESTORE k 0 p", false},
		{"RESTORE k 5 p ABSTTL", false},
		{"RESTORE k 0 REPLACE", false},
		{"RESTORE k 0 p FREQ REPLACE", false},
		{"RESTORE k 0 p REPLACE NEWOPTION", false},
		{"RESTORE", false},
		{"RESTORE-ASKING k 0 p REPLACE ABSTTL", false},

		{"INCR k", false},
		{"GETSET k v", false},
		{"SETNX k v", false},
		{"SETEX k 5 v", false},
		{"SREM k m", false},
		{"HDEL k f", false},
		{"ZREM k m", false},
		{"SPOP k", false},
		{"PEXPIREAT k 5", false},
		{"PERSIST k", false},
		{"RPUSH k v", false},
		{"XADD k 1-1 f v", false},
		{"XGROUP CREATE k g 0", false},
		{"XCLAIM k g c 0 1-1 TIME 5 RETRYCOUNT 1 FORCE JUSTID LASTID 1-1", false},
		{"RENAME k j", false},
		{"COPY k j REPLACE", false},
		{"EVAL s 1 k", false},
		{"FLUSHALL", false},
		{"GET k", false},
		{"MULTI", false},
		{"nonsense k", false},
	}
	for _, tt := range tests {
		if got := safeOf(words(tt.command)); got != tt.want {
			t.Errorf("%s: %t", tt.command, got)
		}
	}
}

// TestEveryShapeIsACommand catches a name that is misspelt in shapes: the command would silently be plain.
func TestEveryShapeIsACommand(t *testing.T) {
	for name, want := range shapes {
		if s := byName[name]; s == nil || s.shape != want {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestFlushes(t *testing.T) {
	for _, s := range byName {
		want := s.Name == "FLUSHALL" || s.Name == "FLUSHDB" || s.Name == "SWAPDB"
		if s.Flushes() != want {
			t.Errorf("%s: %t", s.Name, s.Flushes())
		}
	}
	if Lookup([]byte("nonsense")).Flushes() {
		t.Error("a nil spec flushes")
	}
}

func TestReplaySafeAndDeadlinesDoNotAllocate(t *testing.T) {
	dst := make([]Deadline, 0, 4)
	for _, line := range []string{
		"SET k v", "SET k v PXAT 5", "ZADD k 1 m", "RESTORE k 5 p REPLACE ABSTTL", "MSETEX 1 k v PX 5", "PEXPIREAT k 5",
	} {
		argv := words(line)
		arg := func(i int) []byte { return argv[i] }
		s := Lookup(argv[0])
		allocs := testing.AllocsPerRun(100, func() {
			s.ReplaySafe(len(argv), arg)
			if s.HasDeadline() {
				dst = s.Deadlines(dst[:0], len(argv), arg)
			}
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations", line, allocs)
		}
	}
}

func BenchmarkReplaySafe(b *testing.B) {
	for _, command := range []string{"SET k v", "SET k v PXAT 1700000000000", "HSET k f v", "ZADD k 1 m", "INCR k"} {
		b.Run(strings.ReplaceAll(command, " ", "_"), func(b *testing.B) {
			argv := words(command)
			arg := func(i int) []byte { return argv[i] }
			s := Lookup(argv[0])
			b.ReportAllocs()
			for b.Loop() {
				s.ReplaySafe(len(argv), arg)
			}
		})
	}
}

package command

import (
	"bytes"
	"slices"
	"testing"
)

func deadlinesOf(argv [][]byte) []Deadline {
	return Lookup(argv[0]).Deadlines(nil, len(argv), func(i int) []byte { return argv[i] })
}

func TestDeadlines(t *testing.T) {
	at := func(i int) []Deadline { return []Deadline{{Arg: i}} }
	atSeconds := func(i int) []Deadline { return []Deadline{{Arg: i, Seconds: true}} }
	in := func(i int) []Deadline { return []Deadline{{Arg: i, Relative: true}} }
	inSeconds := func(i int) []Deadline { return []Deadline{{Arg: i, Seconds: true, Relative: true}} }
	tests := []struct {
		command string
		want    []Deadline
	}{
		{"EXPIRE k 5", inSeconds(2)},
		{"expire k 5 NX", inSeconds(2)},
		{"PEXPIRE k 5", in(2)},
		{"EXPIREAT k 5", atSeconds(2)},
		{"PEXPIREAT k 5 GT", at(2)},
		{"PEXPIREAT k", nil},
		{"SETEX k 5 v", inSeconds(2)},
		{"PSETEX k 5 v", in(2)},

		{"SET k v", nil},
		{"SET k v KEEPTTL", nil},
		{"SET k v EX 5", inSeconds(4)},
		{"SET k v px 5", in(4)},
		{"SET k v EXAT 5", atSeconds(4)},
		{"SET k v PXAT 5", at(4)},
		{"SET k v NX PXAT 5", at(5)},
		{"SET k v PXAT 5 XX GET", at(4)},
		{"SET k EX EX 10", inSeconds(4)},
		{"SET EX PX", nil},
		{"SET PX EX EX 10 NX", inSeconds(4)},
		{"SET k v IFEQ PX PXAT 5", at(6)},
		{"SET k v PXAT 5 IFDNE EX", at(4)},
		{"SET k v IFNE EX", nil},
		{"SET k v IFDEQ EX GET", nil},
		{"SET k v PX", nil},
		{"SET k", nil},
		{"SET", nil},

		{"GETEX k", nil},
		{"GETEX k PERSIST", nil},
		{"GETEX k EX 5", inSeconds(3)},
		{"GETEX k PX 5", in(3)},
		{"GETEX k EXAT 5", atSeconds(3)},
		{"GETEX EX PXAT 5", at(3)},

		{"MSETEX 1 k v", nil},
		{"MSETEX 1 k v EX 5", inSeconds(5)},
		{"MSETEX 2 k EX EX v NX PXAT 5", at(8)},
		{"MSETEX 2 k v EX 5", nil}, // a key and its value
		{"MSETEX 1 k v KEEPTTL", nil},
		{"MSETEX 99999999999999999999 k v EX 5", nil},
		{"MSETEX 9 k v EX 5", nil},
		{"MSETEX x k v EX 5", nil},
		{"MSETEX", nil},

		{"RESTORE k 0 p", nil},
		{"RESTORE k 0 p REPLACE ABSTTL", nil},
		{"RESTORE k 5 p REPLACE", in(2)},
		{"RESTORE k 5 p REPLACE absttl", at(2)},
		{"RESTORE k 5 ABSTTL", in(2)},
		{"RESTORE-ASKING k 5 p REPLACE ABSTTL", at(2)},
		{"RESTORE-ASKING k 0 p", nil},
		{"RESTORE k 5", nil},

		{"HPEXPIREAT k 5 FIELDS 1 f", nil},
		{"HEXPIRE k 5 FIELDS 1 f", nil},
		{"HSETEX k PXAT 5 FIELDS 1 f v", nil},
		{"HGETEX k PX 5 FIELDS 1 f", nil},
		{"PERSIST k", nil},
		{"HSET k EX 5", nil},
		{"MSET k v EX 5", nil},
		{"GETSET k v", nil},
		{"ZADD k 5 EX", nil},
		{"nonsense k EX 5", nil},
	}
	for _, tt := range tests {
		argv := words(tt.command)
		got := deadlinesOf(argv)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.command, got, tt.want)
		}
		if len(got) > 0 && !Lookup(argv[0]).HasDeadline() {
			t.Errorf("%s has a deadline, and HasDeadline says no", tt.command)
		}
	}
}

func TestHasDeadline(t *testing.T) {
	with := []string{
		"EXPIRE", "EXPIREAT", "GETEX", "MSETEX", "PEXPIRE", "PEXPIREAT", "PSETEX", "RESTORE", "RESTORE-ASKING", "SET", "SETEX",
	}
	var got []string
	for _, s := range byName {
		if s.HasDeadline() {
			got = append(got, s.Name)
		}
	}
	if slices.Sort(got); !slices.Equal(got, with) {
		t.Errorf("%q, want %q", got, with)
	}
	if Lookup([]byte("nonsense")).HasDeadline() {
		t.Error("a nil spec has one")
	}
}

func TestDeadlinesAppends(t *testing.T) {
	argv := words("SET k v PXAT 5")
	got := Lookup(argv[0]).Deadlines([]Deadline{{Arg: 9}}, len(argv), func(i int) []byte { return argv[i] })
	if want := []Deadline{{Arg: 9}, {Arg: 4}}; !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// FuzzArguments looks for arguments outside of the command, by index or by panic.
func FuzzArguments(f *testing.F) {
	for _, seed := range []string{
		"SET k v PXAT 5 KEEPTTL", "SET k EX EX 10", "SET k v IFEQ EX", "GETEX k EX 5", "MSETEX 2 k v j w PXAT 5", "MSETEX 9 k",
		"RESTORE k 5 p REPLACE ABSTTL FREQ 1", "RESTORE-ASKING k 0 p", "PEXPIREAT k 5", "SETEX k 5 v", "ZADD k NX 1 m", "DEL k",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		argv := bytes.Split(line, []byte(" "))
		s := Lookup(argv[0])
		last := 0
		for _, d := range deadlinesOf(argv) {
			if d.Arg <= last || d.Arg >= len(argv) {
				t.Errorf("%q: deadline at argument %d of %d, after %d", line, d.Arg, len(argv), last)
			}
			last = d.Arg
		}
		if last > 0 && !s.HasDeadline() {
			t.Errorf("%q has a deadline, and HasDeadline says no", line)
		}
		if safeOf(argv) && !s.Write {
			t.Errorf("%q is said to be safe, and does not write", line)
		}
		safeOf(argv[:1])
		deadlinesOf(argv[:1])
	})
}

func TestDeadlineReach(t *testing.T) {
	for name, want := range map[string]Reach{
		"SET": ReachKeys, "SETEX": ReachKeys, "GETEX": ReachKeys, "MSETEX": ReachKeys, "RESTORE": ReachKeys, "RESTORE-ASKING": ReachKeys,
		"EXPIRE": ReachKeys, "PEXPIRE": ReachKeys, "EXPIREAT": ReachKeys, "PEXPIREAT": ReachKeys,
		"RENAME": ReachKeys, "RENAMENX": ReachKeys, "COPY": ReachAny, "SORT": ReachKeys, "LMOVE": ReachKeys,
		"MOVE": ReachAny, "SWAPDB": ReachAny, "EVAL": ReachAny, "EVALSHA": ReachAny, "FCALL": ReachAny, "": ReachAny,
		"INCR": ReachNone, "HSET": ReachNone, "HPEXPIREAT": ReachNone, "DEL": ReachNone, "MSET": ReachNone, "PERSIST": ReachNone,
		"XGROUP": ReachNone, "XGROUP CREATE": ReachNone, "FUNCTION": ReachNone, "FLUSHALL": ReachNone, "PUBLISH": ReachNone, "FUNCTION LOAD": ReachNone, "SCRIPT LOAD": ReachNone,
	} {
		var s *Spec
		if name != "" {
			s = spec(t, name)
		}
		if got := s.DeadlineReach(); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

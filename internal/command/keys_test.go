package command

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

// words splits a command at blanks; "" stands for an empty argument.
func words(command string) [][]byte {
	var argv [][]byte
	for _, w := range strings.Fields(command) {
		if w == `""` {
			w = ""
		}
		argv = append(argv, []byte(w))
	}
	return argv
}

func keysOf(dst []int, argv [][]byte) ([]int, error) {
	return Lookup(argv[0]).Keys(dst, len(argv), func(i int) []byte { return argv[i] })
}

func TestKeys(t *testing.T) {
	tests := []struct {
		command string
		want    []int
	}{
		// one fixed key
		{"SET k v PX 5", []int{1}},
		{"get k", []int{1}},
		{"XADD k MAXLEN = 5 LIMIT 1 1-1 f v", []int{1}},
		{"RESTORE-ASKING k 0 payload REPLACE ABSTTL", []int{1}},
		{"GEORADIUS_RO k 1 1 1 m", []int{1}},
		{"HSETEX k KEEPTTL FIELDS 1 f v", []int{1}},
		{"VADD k VALUES 1 1 e", []int{1}},
		{"DELIFEQ k v", []int{1}},
		{"DELEX k IFEQ v", []int{1}},
		{"INCREX k BYINT 5", []int{1}},
		{"XIDMPRECORD k pid iid 1-1", []int{1}},
		{"ARMSET k 1 a 2 b", []int{1}},
		{"SPUBLISH channel message", []int{1}},
		// several fixed keys
		{"RENAME a b", []int{1, 2}},
		{"COPY a b DB 3 REPLACE", []int{1, 2}},
		{"LMOVE a b LEFT RIGHT", []int{1, 2}},
		{"LCS a b LEN", []int{1, 2}},
		{"GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 m STOREDIST", []int{1, 2}},
		// ranges to the end, or nearly
		{"DEL a", []int{1}},
		{"UNLINK a b c", []int{1, 2, 3}},
		{"BLPOP a b 0", []int{1, 2}},
		{"BITOP AND d a b", []int{2, 3, 4}},
		{"SUNIONSTORE d a b", []int{1, 2, 3}},
		{"PFMERGE d", []int{1}},
		{"SSUBSCRIBE a b", []int{1, 2}},
		// pairs
		{"MSET a 1 b 2", []int{1, 3}},
		{"MSETNX a 1", []int{1}},
		// counted
		{"ZUNIONSTORE d 2 a b WEIGHTS 1 2", []int{1, 3, 4}},
		{"ZDIFF 1 a WITHSCORES", []int{2}},
		{"LMPOP 2 a b LEFT", []int{2, 3}},
		{"BLMPOP 0 2 a b LEFT", []int{3, 4}},
		{"MSETEX 2 a 1 b 2 PXAT 5", []int{2, 4}},
		{"EVAL script 2 a b arg", []int{3, 4}},
		{"EVALSHA sha 0", nil},
		{"FCALL f 0 arg", nil},
		{"FCALL f 01 a", []int{3}},
		// subcommands
		{"XGROUP CREATE k g 0 MKSTREAM", []int{2}},
		{"xgroup createconsumer k g c", []int{2}},
		{"XGROUP HELP", nil},
		{"OBJECT ENCODING k", []int{2}},
		{"MEMORY USAGE k", []int{2}},
		{"XINFO STREAM k FULL", []int{2}},
		{"FUNCTION LOAD REPLACE code", nil},
		{"COMMAND", nil},
		// no keys
		{"FLUSHALL ASYNC", nil},
		{"SWAPDB 0 1", nil},
		{"PUBLISH channel message", nil},
		{"TRIMSLOTS RANGES 1 0 5", nil},
		{"SELECT 3", nil},
		{"MULTI", nil},
		// by hand
		{"SORT k", []int{1}},
		{"SORT k BY w* LIMIT 0 5 GET # GET p* DESC ALPHA STORE d", []int{1, 14}},
		{"SORT k store d LIMIT 0 5", []int{1, 3}},
		{"SORT k GET STORE STORE d", []int{1, 5}},
		{"SORT k BY STORE GET x", []int{1}},
		{"SORT k STORE a STORE b", []int{1, 5}},
		{"SORT k STORE STORE", []int{1, 3}},
		{"SORT store", []int{1}},
		{"SORT_RO k GET STORE", []int{1}},
		{"GEORADIUS k 1 1 1 m", []int{1}},
		{"GEORADIUS k 1 1 1 m COUNT 3 ANY STOREDIST d", []int{1, 10}},
		{"GEORADIUS k 1 1 1 m STORE a StoreDist b", []int{1, 9}},
		{"GEORADIUSBYMEMBER k STORE 1 m STORE d", []int{1, 6}},
		{"MIGRATE h 1 k 0 1 COPY", []int{3}},
		{`MIGRATE h 1 "" 0 1 COPY AUTH KEYS KEYS a b`, []int{10, 11}},
		{`MIGRATE h 1 "" 0 1 AUTH2 keys KEYS REPLACE KEYS KEYS a`, []int{11, 12}},
		{"MIGRATE h 1 k 0 1 AUTH2 user keys", []int{3}},
		{"XREAD STREAMS a b 0 0", []int{2, 3}},
		{"XREAD COUNT 1 BLOCK 0 streams STREAMS $", []int{6}},
		{"XREADGROUP GROUP streams STREAMS COUNT 1 NOACK STREAMS streams b > >", []int{8, 9}},
		{"XREADGROUP GROUP g c CLAIM 5 STREAMS a >", []int{7}},
	}
	for _, tt := range tests {
		got, err := keysOf(nil, words(tt.command))
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v; want %v", tt.command, got, err, tt.want)
		}
	}
}

func TestKeysErrors(t *testing.T) {
	tests := []struct {
		command string
		want    error
	}{
		{"NONSENSE a", ErrNoSpec},
		{"JSON.SET k $ 1", ErrNoSpec},
		{"XGROUP NONSENSE k", ErrNoSpec},
		{"SET k", ErrBadArgs},
		{"RENAME a", ErrBadArgs},
		{"DEL", ErrBadArgs},
		{"BLPOP a", ErrBadArgs},
		{"XGROUP CREATE k", ErrBadArgs},
		{"MSET a 1 b", ErrBadArgs},
		{"MSET a", ErrBadArgs},
		{"EVAL script x a", ErrBadArgs},
		{"EVAL script 1x a", ErrBadArgs},
		{`EVAL script "" a`, ErrBadArgs},
		{"EVAL script -1 a", ErrBadArgs},
		{"EVAL script 2 a", ErrBadArgs},
		{"EVAL script 99999999999999999999 a", ErrBadArgs},
		{"LMPOP 0 a LEFT", ErrBadArgs},
		{"ZUNIONSTORE d 0 a", ErrBadArgs},
		{"ZUNIONSTORE d 2 a", ErrBadArgs},
		{"MSETEX 2 a 1 b", ErrBadArgs},
		{"MSETEX 1 a", ErrBadArgs},
		{"XREAD STREAMS a b 0", ErrBadArgs},
		{"XREAD COUNT 1 STREAMS", ErrBadArgs},
		{"XREAD COUNT 1 BLOCK", ErrBadArgs},
		{"XREAD NONSENSE STREAMS a 0", ErrBadArgs},
		{"MIGRATE h 1 k 0 1 KEYS a", ErrBadArgs},
		{`MIGRATE h 1 "" 0 1 KEYS`, ErrBadArgs},
	}
	for _, tt := range tests {
		got, err := keysOf([]int{7}, words(tt.command))
		if !errors.Is(err, tt.want) || !slices.Equal(got, []int{7}) {
			t.Errorf("%s: %v, %v; want %v", tt.command, got, err, tt.want)
		}
	}
}

func TestKeysAppends(t *testing.T) {
	got, err := keysOf([]int{7}, words("BITOP OR d a"))
	if want := []int{7, 2, 3}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
}

// TestByHandIsComplete fails when a server's new command needs a hand that nobody has written yet.
func TestByHandIsComplete(t *testing.T) {
	argv := words(`x a "" 0 0 0 STREAMS k 0`)
	arg := func(i int) []byte { return argv[i] }
	for _, s := range byName {
		for _, k := range s.keys {
			if k.kind != byHand {
				continue
			}
			if _, err := keysByHand(s.Name, nil, len(argv), arg); errors.Is(err, ErrNoSpec) {
				t.Errorf("%s has key positions that only byhand.go can tell, and it does not", s.Name)
			}
		}
	}
}

func FuzzKeys(f *testing.F) {
	for _, seed := range []string{
		"SET k v", "MSET a 1 b", "EVAL s 2 a b", "ZUNIONSTORE d 2 a b", "MSETEX 1 a 1", "SORT k STORE d", "XGROUP CREATE k",
		"GEORADIUS k 1 1 1 m STORE d", "MIGRATE h 1  0 1 KEYS a", "XREAD STREAMS a 0", "BLPOP a 0", "BITOP NOT d a", "LCS a b",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		argv := bytes.Split(line, []byte(" "))
		keys, err := keysOf(nil, argv)
		if err != nil && len(keys) > 0 {
			t.Errorf("%q: %v beside %v", line, keys, err)
		}
		for _, k := range keys {
			if k < 1 || k >= len(argv) {
				t.Errorf("%q: key at argument %d of %d", line, k, len(argv))
			}
		}
		if first := Lookup(argv[0]).FirstKey(); first > 0 && err == nil && !slices.Equal(keys, []int{first}) {
			t.Errorf("%q: keys %v, but the only key is %d", line, keys, first)
		}
	})
}

func BenchmarkKeys(b *testing.B) {
	for _, command := range []string{"SET k v", "MSET a 1 b 2 c 3", "ZUNIONSTORE d 2 a b", "XGROUP SETID k g 0"} {
		name, _, _ := strings.Cut(command, " ")
		b.Run(name, func(b *testing.B) {
			argv := words(command)
			arg := func(i int) []byte { return argv[i] }
			s := Lookup(argv[0])
			var keys []int
			b.ReportAllocs()
			for b.Loop() {
				keys, _ = s.Keys(keys[:0], len(argv), arg)
			}
		})
	}
}

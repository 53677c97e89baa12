package filter

import (
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// TestReserved: commands about keys under keyhaul's own prefix alone are dropped, whatever their form.
func TestReserved(t *testing.T) {
	for line, drop := range map[string]haul.Drop{
		"SET keyhaul:default:fence 1":                 haul.DropReserved,
		"set keyhaul: 1":                              haul.DropReserved,
		"HSET keyhaul:default:{haul}:record f v":      haul.DropReserved,
		"DEL keyhaul:a":                               haul.DropReserved,
		"DEL keyhaul:a keyhaul:b":                     haul.DropReserved,
		"UNLINK keyhaul:a keyhaul:b":                  haul.DropReserved,
		"MSET keyhaul:a 1 keyhaul:b 2":                haul.DropReserved,
		"RENAME keyhaul:a keyhaul:b":                  haul.DropReserved,
		"EVAL x 1 keyhaul:x y":                        haul.DropReserved,
		"ZUNIONSTORE keyhaul:a 2 keyhaul:b keyhaul:c": haul.DropReserved,
		"XGROUP CREATE keyhaul:a g 0":                 haul.DropReserved,
		"SET Keyhaul:a 1":                             haul.DropNone,
		"SET keyhaul 1":                               haul.DropNone,
		"SET x:keyhaul:a 1":                           haul.DropNone,
		"SET other keyhaul:a":                         haul.DropNone,
		"PUBLISH keyhaul:a x":                         haul.DropNone,
		"FLUSHALL":                                    haul.DropNone,
		"UNKNOWN keyhaul:a":                           haul.DropNone, // who knows what that is
		"SET":                                         haul.DropNone,
	} {
		b := &haul.Batch{}
		add(b, strings.Fields(line))
		Reserved{}.Apply(b)
		if got := b.Entries[0].Drop; got != drop {
			t.Errorf("%s: %v, want %v", line, got, drop)
		}
	}
}

// TestReservedKeys: so are such keys of the snapshot, and nothing else of it.
func TestReservedKeys(t *testing.T) {
	b := &haul.Batch{Snapshot: true}
	for _, name := range []string{"keyhaul:default:fence", "other", "keyhaul:"} {
		b.Entries = append(b.Entries, haul.Entry{Kind: haul.KindKey, First: uint32(len(b.Keys)), N: 1})
		b.Keys = append(b.Keys, haul.Key{Name: []byte(name)})
	}
	b.Entries[2].Big = &haul.Big{}
	b.Entries = append(b.Entries, haul.Entry{Kind: haul.KindFunction, First: uint32(len(b.Keys)), N: 1})
	b.Keys = append(b.Keys, haul.Key{Name: []byte("keyhaul:code")})
	Reserved{}.Apply(b)
	for i, want := range []haul.Drop{haul.DropReserved, haul.DropNone, haul.DropReserved, haul.DropNone} {
		if got := b.Entries[i].Drop; got != want {
			t.Errorf("entry %d: %v, want %v", i, got, want)
		}
	}
}

// TestReservedInTransactions: they are taken out of a transaction, which goes on without them; one of which nothing is
// left is dropped.
func TestReservedInTransactions(t *testing.T) {
	for _, c := range []struct {
		lines []string
		skip  []bool
		drop  haul.Drop
	}{
		{[]string{"SET keyhaul:a 1", "INCR n", "DEL keyhaul:a"}, []bool{true, false, true}, haul.DropNone},
		{[]string{"SET keyhaul:a 1", "DEL keyhaul:a"}, []bool{true, true}, haul.DropReserved},
		{[]string{"INCR n", "FLUSHALL"}, []bool{false, false}, haul.DropNone},
	} {
		b := &haul.Batch{}
		for _, line := range c.lines {
			add(b, strings.Fields(line))
		}
		b.Entries = []haul.Entry{{Kind: haul.KindTransaction, N: uint32(len(c.lines))}}
		Reserved{}.Apply(b)
		if got := b.Entries[0].Drop; got != c.drop {
			t.Errorf("%v: %v, want %v", c.lines, got, c.drop)
		}
		for i, want := range c.skip {
			if got := b.Commands[i].Skip; got != want {
				t.Errorf("%v: command %d is skipped: %t, want %t", c.lines, i, got, want)
			}
		}
	}
}

// TestReservedAmongOthers: commands that can be cut by keys lose the reserved ones, others are refused as a whole.
func TestReservedAmongOthers(t *testing.T) {
	for line, want := range map[string]string{
		"MSET a 1 keyhaul:x 2 b 3":            "MSET a 1 b 3",
		"MSET keyhaul:x 2 b 3 keyhaul:y 2":    "MSET b 3",
		"DEL keyhaul:x a":                     "DEL a",
		"UNLINK a b keyhaul:x c":              "UNLINK a b c",
		"MSETEX 2 a 1 keyhaul:x 2 EX 100":     "MSETEX 1 a 1 EX 100",
		"RENAME a keyhaul:x":                  "",
		"COPY keyhaul:x a":                    "",
		"SUNIONSTORE keyhaul:x a b":           "",
		"EVAL script 2 a keyhaul:x 1":         "",
		"MSETNX a 1 keyhaul:x 2":              "",
		"MSET a keyhaul:x keyhaul:x keyhaul:": "MSET a keyhaul:x",
	} {
		for _, kind := range []haul.Kind{haul.KindCommand, haul.KindTransaction} {
			b := &haul.Batch{}
			add(b, []string{"SET", "first", "1"})
			add(b, strings.Fields(line))
			b.Entries[1].Kind = kind
			Reserved{}.Apply(b)
			if want == "" {
				if got := b.Entries[1].Drop; got != haul.DropMixed {
					t.Errorf("%s: %v, want %v", line, got, haul.DropMixed)
				}
				continue
			}
			c := &b.Commands[1]
			var got []string
			for i := range int(c.NArg) {
				got = append(got, string(b.Arg(c, i)))
			}
			wire := string(resp.AppendCommand(nil, got...))
			if b.Entries[1].Drop != haul.DropNone || strings.Join(got, " ") != want || string(b.Bytes(c.Raw)) != wire {
				t.Errorf("%s: %v, %q, on the wire %q", line, b.Entries[1].Drop, got, b.Bytes(c.Raw))
			}
		}
	}
}

package main

import (
	"strings"
	"testing"
)

// TestReservedKeys: what the source has under keyhaul's own prefix, by the very names of a haul's keys too, is neither
// copied nor taken for what keyhaul itself has written.
func TestReservedKeys(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster})
		do := func(line string) {
			t.Helper()
			var args []any
			for _, f := range strings.Fields(line) {
				args = append(args, f)
			}
			s.source.MustDo(args...)
		}
		const far = "1"
		names := []string{"keyhaul:default:fence", "keyhaul:default:mark", "keyhaul:default:{haul}:record", "keyhaul:default:{haul}:lease", "keyhaul:x", "keyhaul:default:fence:{0}"}
		for i, name := range names { // of the snapshot
			if i%2 == 0 {
				s.source.MustDo("SET", name, "1 1 "+strings.Repeat("a", 40)+" 999999999999 0 0")
			} else {
				s.source.MustDo("HSET", name, "f", far)
			}
		}
		s.start()
		s.streams()
		dropped := func() int64 { return s.keyhaul.status().Target.Counts["dropped_reserved-key"] }
		if n := dropped(); n != int64(len(names)) {
			t.Errorf("%d keys of the snapshot are counted as dropped, want %d", n, len(names))
		}
		want := dropped()
		for _, name := range names {
			do("DEL " + name)
			do("SET " + name + " 1")
			do("RENAME " + name + " " + name + "2")
			do("EXPIRE " + name + "2 1000")
			do("APPEND " + name + " x")
			want += 5
			do("MULTI")
			do("SET " + name + " 2")
			do("INCR {r}beside")
			do("EXEC")
			do("MULTI")
			do("SET " + name + " 2")
			do("DEL " + name)
			do("EXEC")
			want++
		}
		do("MSET keyhaul:default:fence 1 keyhaul:default:{haul}:record 2")
		want++
		s.applies()
		if n := dropped(); n != want {
			t.Errorf("%d entries are counted as dropped, want %d", n, want)
		}
		s.keepsItsKeys("behind reserved keys")
		s.kill()
		s.start()
		s.streams()
		s.equal(1)
		s.keepsItsKeys("resumed")
	})
}

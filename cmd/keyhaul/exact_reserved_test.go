package main

import (
	"strings"
	"testing"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
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

// TestReservedKeysAmongOthers: of a command with such keys among others they are left out, or it is refused; they are
// never written.
func TestReservedKeysAmongOthers(t *testing.T) {
	t.Parallel()
	const foreign = "a-foreign-value"
	onEachTarget(t, func(t *testing.T, cluster bool) {
		for _, line := range []string{
			"MSET {haul}a 1 keyhaul:default:{haul}:record " + foreign + " {haul}b 2",
			"MSET a 1 keyhaul:default:fence " + foreign + " b 2",
			"DEL {haul}gone keyhaul:default:{haul}:record",
			"DEL gone keyhaul:default:fence",
			"RENAME {haul}text keyhaul:default:{haul}:record",
			"COPY {haul}text keyhaul:default:{haul}:lease REPLACE",
			"RENAME keyhaul:{haul}mine {haul}there",
			"SUNIONSTORE keyhaul:default:{haul}:record {haul}set",
			"MULTI; MSET {haul}a 1 keyhaul:default:{haul}:record " + foreign + "; INCR {haul}n; EXEC",
			"MULTI; DEL {haul}gone keyhaul:default:{haul}:record; INCR {haul}n; EXEC",
		} {
			t.Run(line, func(t *testing.T) {
				t.Parallel()
				s := newTrial(t, setup{cluster: cluster, flags: []string{"--on-error", "skip"}})
				if strings.HasPrefix(line, "COPY") && !s.source.Version.AtLeast(7, 0) {
					t.Skip("COPY is of Redis 6.2")
				}
				s.source.MustDo("SET", "{haul}text", foreign)
				s.source.MustDo("SADD", "{haul}set", foreign)
				s.source.MustDo("MSET", "gone", 1, "{haul}gone", 1, "keyhaul:{haul}mine", foreign, "keyhaul:default:{haul}:record", foreign)
				s.start()
				s.streams()
				s.applies()
				for part := range strings.SplitSeq(line, "; ") {
					var args []any
					for _, f := range strings.Fields(part) {
						args = append(args, f)
					}
					s.source.MustDo(args...)
				}
				s.source.MustDo("INCR", "behind")
				s.applies()
				r := s.keyhaul.status()
				t.Logf("%v", r.Target.Counts)
				s.kill()
				s.keepsItsKeys("behind it")
				for _, key := range []string{"keyhaul:default:{haul}:record", "keyhaul:default:{haul}:lease"} {
					s.eachNode(func(node *rt.Server) {
						if r := node.Do("GET", key); strings.Contains(r.Text, foreign) {
							t.Errorf("%s holds the source's value", key)
						}
					})
				}
				s.start()
				s.streams()
				s.level()
				if got := s.compare(rt.CompareOptions{Grace: grace}); !got.Equal() && r.Target.Counts["skipped"] == 0 {
					t.Errorf("source and target differ, and nothing was skipped: %s", got)
				}
				if n := s.source.FullSyncs(); n != 1 {
					t.Errorf("%d full copies", n)
				}
			})
		}
	})
}

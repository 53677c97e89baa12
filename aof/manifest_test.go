package aof

import (
	"reflect"
	"testing"
)

func TestParseManifest(t *testing.T) {
	for text, want := range map[string]Manifest{
		"file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n": {
			Base: "appendonly.aof.1.base.rdb", Incrs: []string{"appendonly.aof.1.incr.aof"},
		},
		"# a comment\nfile a.2.base.aof seq 2 type b\nfile a.1.base.aof seq 1 type h\nfile a.3.incr.aof seq 3 type i\nfile a.7.incr.aof seq 7 type i": {
			Base: "a.2.base.aof", Incrs: []string{"a.3.incr.aof", "a.7.incr.aof"},
		},
		"FILE a.incr SEQ 1 TYPE i startoffset 17 endoffset 99\r\n": {Incrs: []string{"a.incr"}}, // Redis 8.0
		`file "with space.\x41" seq 1 type i`:                      {Incrs: []string{"with space.A"}},
	} {
		if got, err := ParseManifest([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "# nothing", "\n", "file a seq 1", "file a seq x type i", "file a seq 0 type i", "file a seq 1 type z",
		"file a/b seq 1 type i", "file .. seq 1 type i", `file "a seq 1 type i`, "seq 1 type i more words",
		"file a seq 1 type b\nfile b seq 2 type b", "file a seq 2 type i\nfile b seq 2 type i", "file a seq 1 type i\n\nfile b seq 2 type i",
	} {
		if got, err := ParseManifest([]byte(text)); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// FuzzManifest: what is read names files beside the manifest only.
func FuzzManifest(f *testing.F) {
	f.Add([]byte("file appendonly.aof.1.base.rdb seq 1 type b\nfile \"x\\x20y\" seq 1 type i\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			return
		}
		for _, name := range append(m.Incrs, m.Base) {
			if name == "." || name == ".." || len(name) > len(b) || len(m.Base) == 0 && len(m.Incrs) == 0 {
				t.Errorf("%q", name)
			}
			for _, c := range name {
				if c == '/' {
					t.Errorf("%q", name)
				}
			}
		}
	})
}

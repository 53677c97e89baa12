package aof

import (
	"errors"
	"io"
	"strings"
	"testing"
)

func TestAnnotation(t *testing.T) {
	for text, want := range map[string]struct {
		seconds int64
		found   bool
		err     error
	}{
		"#TS:1700000000\r\n":                  {1700000000, true, nil},
		"#TS:1700000000\n":                    {1700000000, true, nil},
		"# a remark\r\n":                      {0, true, nil},
		wire("PING"):                          {0, false, nil},
		"":                                    {0, false, io.EOF},
		"#TS:17":                              {0, false, io.ErrUnexpectedEOF},
		"#TS:soon\r\n":                        {0, false, ErrCorrupt},
		"#TS:-1\r\n":                          {0, false, ErrCorrupt},
		"#" + strings.Repeat("x", 2000):       {0, false, ErrCorrupt},
		"#" + strings.Repeat("x", 900) + "\n": {0, true, nil},
	} {
		for size := 1; size < 40; size += 3 {
			behind := wire("GET", "k")
			if want.err != nil {
				behind = ""
			}
			w := windowOf([]byte(text+behind), size, 1<<20)
			w.Begin()
			seconds, found, err := Annotation(w)
			if seconds != want.seconds || found != want.found || !errors.Is(err, want.err) {
				t.Fatalf("%.20q: %d, %t, %v", text, seconds, found, err)
			}
			if err != nil {
				continue
			}
			if args, err := Read(w, nil); err != nil || len(args) == 0 {
				t.Fatalf("%.20q: behind it %v, %v", text, args, err)
			}
		}
	}
}

package jsontext

import (
	"bytes"
	"encoding/json"
	"testing"
)

func FuzzString(f *testing.F) {
	for _, s := range []string{"", "plain", "quo\"te\\ \n\t\r\x00\x1f\x7f", "\xff\xfe", "base64:", "base64:AA==", "ünï – 漢字 \u2028", "\xed\xa0\x80"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		var text string
		if err := json.Unmarshal(AppendString(nil, s), &text); err != nil {
			t.Fatal(err)
		}
		if text != Text(s) {
			t.Errorf("%q is written as %q, and its text is %q", s, text, Text(s))
		}
		if got, err := Bytes(text); err != nil || !bytes.Equal(got, s) {
			t.Errorf("%q comes back as %q, %v", s, got, err)
		}
		for size := 1; size < 6; size++ {
			var c Checker
			for at := 0; at < len(s); at += size {
				c.Add(s[at:min(at+size, len(s))])
			}
			if c.Marked() != Marked(s) {
				t.Errorf("%q in pieces of %d: %t", s, size, c.Marked())
			}
		}
		if pieces := AppendEscaped(AppendEscaped(nil, s[:len(s)/2]), s[len(s)/2:]); !bytes.Equal(pieces, AppendEscaped(nil, s)) {
			t.Errorf("%q in pieces: %q", s, pieces)
		}
	})
}

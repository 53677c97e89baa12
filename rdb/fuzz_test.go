package rdb

import (
	"bytes"
	"slices"
	"testing"
)

// seeds adds values of every type, none of them large.
func seeds(f *testing.F) {
	for _, s := range append(madeValues(), goldenValues(f)...) {
		if len(s.body) < 1000 {
			f.Add(s.Type, s.Valkey, s.body)
		}
	}
}

// FuzzElements: any bytes are an error or a value, which is the same from memory and from a reader.
func FuzzElements(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, typ byte, valkey bool, body []byte) {
		v := Value{typ, valkey}
		want, err := listed(v, body)
		var got lines
		if readErr := v.Elements(bytes.NewReader(body), got.add); !slices.Equal(got, want) || (err == nil) != (readErr == nil) {
			t.Fatalf("type %d: %d elements, %v; from a reader %d, %v", typ, len(want), err, len(got), readErr)
		}
		if err != nil && !known(err) {
			t.Fatalf("type %d: %v", typ, err)
		}
	})
}

// FuzzRewrite: a value has the same elements in every form, and commands for as many.
func FuzzRewrite(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, typ byte, valkey bool, body []byte) {
		v := Value{typ, valkey}
		_, broken := listed(v, body)
		for _, to := range allReleases(t) {
			if broken == nil {
				checkRewrite(t, sample{"fuzzed", v, body, nil}, to)
			} else if _, _, _, err := to.Rewrite(nil, v, body); err != nil && !known(err) && typeKind(typ, valkey) != 0 && typ != TypeArray {
				t.Fatalf("type %d to %v: %v", typ, to, err)
			}
			if _, _, err := asCommands(to, v, body, 1000); broken != nil && err == nil {
				t.Fatalf("type %d to %v: commands, but %v", typ, to, broken)
			}
		}
	})
}

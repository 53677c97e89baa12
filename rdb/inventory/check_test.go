package inventory

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/rdb"
)

// TestCheckVectorSets: values of vector sets are those of a module, and are missing where that is not a part of the server. Of
// other modules nothing is known.
func TestCheckVectorSets(t *testing.T) {
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	module := func(key, name string) string {
		var id uint64
		for _, c := range name {
			id = id<<6 | uint64(strings.IndexRune(set, c))
		}
		b := append([]byte{rdb.TypeModule2, byte(len(key))}, key...)
		b = binary.BigEndian.AppendUint64(append(b, 0x81), id<<10)
		return string(append(b, 0))
	}
	snapshot := "REDIS0012\xfe\x00" + module("vectors", vectorSet) + module("doc", "ReJSON-RL") + "\xff\x00\x00\x00\x00\x00\x00\x00\x00"
	for release, missing := range map[string]bool{"redis-7.4": true, "redis-8.0": false, "valkey-9.1": true} {
		to, err := rdb.ParseRelease(release)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Read(t.Context(), "f", bytes.NewReader([]byte(snapshot)), Options{For: NewCheck(to), Now: options.Now})
		if err != nil {
			t.Fatal(err)
		}
		lacks := r.For.Lacks
		if missing != (len(lacks) == 1) || missing && (lacks[0].Feature != "vector sets" || lacks[0].Outcome != outcomeMissing || lacks[0].Examples[0] != "vectors") {
			t.Errorf("%s: %+v", release, lacks)
		}
	}
}

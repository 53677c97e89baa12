package rdb

import "testing"

func TestEmpty(t *testing.T) {
	const (
		listpack = "\x07\x07\x00\x00\x00\x00\x00\xff"
		ziplist  = "\x0b\x0b\x00\x00\x00\x0a\x00\x00\x00\x00\x00\xff"
	)
	for _, x := range []struct {
		t    byte
		body string
		want bool
	}{
		{TypeList, "\x00", true},
		{TypeSet, "\x00", true},
		{TypeHash, "\x00", true},
		{TypeZSet, "\x00", true},
		{TypeZSet2, "\x00", true},
		{TypeSet, "\x01\x01a", false},
		{TypeString, "\x00", false},
		{TypeHashListpack, listpack, true},
		{TypeSetListpack, listpack, true},
		{TypeHashZiplist, ziplist, true},
		{TypeListZiplist, ziplist, true},
		{TypeListQuicklist, "\x00", true},
		{TypeListQuicklist, "\x01" + ziplist, true},
		{TypeListQuicklist2, "\x01\x02" + listpack, true},
		{TypeSetIntset, "\x08\x02\x00\x00\x00\x00\x00\x00\x00", true},
		{TypeSetIntset, "\x0a\x02\x00\x00\x00\x01\x00\x00\x00\x05\x00", false},
		{TypeHashTTL, "\x00\x00\x00\x00\x00\x00\x00\x00\x00", true},
		{TypeHashZipmap, "\x02\x00\xff", true},
		{TypeHashListpack, "\x03bad", false},
	} {
		if got := (Value{Type: x.t}).Empty([]byte(x.body)); got != x.want {
			t.Errorf("type %d, %q: %t", x.t, x.body, got)
		}
	}
}

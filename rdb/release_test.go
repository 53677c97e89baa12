package rdb

import "testing"

func TestParseRelease(t *testing.T) {
	for text, want := range map[string]Release{
		"redis-7.0": {Major: 7}, "valkey 9.1": {Valkey: true, Major: 9, Minor: 1}, "redict-7.3": {Major: 7, Minor: 2},
		"keydb-6.3": {Major: 6, Minor: 2}, "Redis 8.0.2": {Major: 8}, "valkey-7.2": {Valkey: true, Major: 7, Minor: 2},
	} {
		got, err := ParseRelease(text)
		if err != nil || got != want {
			t.Errorf("%q is %v, %v, want %v", text, got, err, want)
		}
		if again, err := ParseRelease(got.String()); err != nil || again != got {
			t.Errorf("%v is %v, %v when it is read again", got, again, err)
		}
	}
	for _, text := range []string{"", "redis", "redis-7", "7.0", "redis-a.b", "redis--1.0", "redis-4.0", "valkey-7.0", "dragonfly-1.2", "keydb-x.1"} {
		if got, err := ParseRelease(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// TestForm is the table of protocol §4.
func TestForm(t *testing.T) {
	releases := []string{"redis 6.2", "redis 7.0", "redis 7.2", "valkey 8.1", "redis 8.0", "redis 8.6", "redis 8.8", "valkey 9.1"}
	for _, row := range []struct {
		typ    byte
		valkey bool
		forms  string // one a release: = as it is, r rewritten, d degraded, - missing
	}{
		{TypeString, false, "========"},
		{TypeZSet2, false, "========"},
		{TypeModule2, false, "========"},
		{TypeModulePreGA, false, "--------"},
		{8, false, "--------"},
		{64, false, "--------"},
		{TypeHashZiplist, false, "========"},
		{TypeListQuicklist, false, "========"},
		{TypeStream, false, "========"},
		{TypeHashListpack, false, "r======="},
		{TypeStream2, false, "r======="},
		{TypeSetListpack, true, "rr======"},
		{TypeStream3, true, "rr======"},
		{Type22, false, "dddd===r"},
		{Type23, false, "dddd===r"},
		{Type22, true, "ddddrrr="},
		{Type23, true, "--------"},
		{TypeHashTTL, false, "dddd===r"},
		{TypeHashTTLListpack, false, "dddd===r"},
		{TypeStream4, false, "rrrrr==r"},
		{TypeStream5, false, "rrrrrr=r"},
		{TypeArray, false, "------=-"},
	} {
		for i, name := range releases {
			to, err := ParseRelease(name)
			if err != nil {
				t.Fatal(err)
			}
			form, lacks := to.Form(row.typ, row.valkey, false)
			if want := row.forms[i]; "=rd-"[form] != want {
				t.Errorf("type %d of Valkey %t to %v is %c, want %c", row.typ, row.valkey, to, "=rd-"[form], want)
			}
			if (lacks == "") != (form == FormAsItIs || form == FormRewritten && row.typ < TypeStream4 && (row.typ != Type22 || to.Valkey)) {
				t.Errorf("type %d of Valkey %t to %v is %c and lacks %q", row.typ, row.valkey, to, "=rd-"[form], lacks)
			}
			form, lacks = to.Form(row.typ, row.valkey, true)
			if keeps := to.redis(8, 6) || row.forms[i] == '-'; keeps == (form == FormDegraded && lacks[:3] == "key") {
				t.Errorf("type %d with metadata to %v is %c and lacks %q", row.typ, to, "=rd-"[form], lacks)
			}
		}
	}
}

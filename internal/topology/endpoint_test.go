package topology

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in             string
		scheme         string
		addrs          []string
		user, password string
	}{
		{"redis://h", "redis", []string{"h:6379"}, "", ""},
		{"redis://h/", "redis", []string{"h:6379"}, "", ""},
		{" REDIS://user:pw@host:7000 ", "redis", []string{"host:7000"}, "user", "pw"},
		{"redis://:pw@host", "redis", []string{"host:6379"}, "", "pw"},
		{"redis://user@host", "redis", []string{"host:6379"}, "user", ""},
		{"redis://u%3As:p%40%2F%25+@host", "redis", []string{"host:6379"}, "u:s", "p@/%+"},
		{"redis://u:a@b:c@host", "redis", []string{"host:6379"}, "u", "a@b:c"},
		{"rediss://h1:1,h2:2,[::1]:3", "rediss", []string{"h1:1", "h2:2", "[::1]:3"}, "", ""},
		{"redis://a, b ,a", "redis", []string{"a:6379", "b:6379"}, "", ""},
		{"redis://[fe80::1%25eth0]", "redis", []string{"[fe80::1%eth0]:6379"}, "", ""},
		{"redis://h:06379", "redis", []string{"h:6379"}, "", ""},
		{"unix:///run/redis.sock", "unix", []string{"/run/redis.sock"}, "", ""},
		{"unix://user:pw@/run/a%20b@c.sock", "unix", []string{"/run/a b@c.sock"}, "user", "pw"},
	} {
		e, err := Parse(c.in)
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if e.Scheme != c.scheme || !slices.Equal(e.Addrs, c.addrs) || e.Username != c.user || e.Password != c.password {
			t.Errorf("%s: got %s %q user %q password %q", c.in, e.Scheme, e.Addrs, e.Username, e.Password)
		}
	}
}

func TestParseErrorsSayWhatToDo(t *testing.T) {
	for in, want := range map[string]string{
		"host:6379":                              "write redis://host:6379",
		"secretpassword":                         "no scheme",
		"http://u:secretpassword@h":              "unknown scheme",
		"redis+sentinel://:secretpassword@h":     "name of the primary",
		"redis+sentinel://:secretpassword@h/":    "name of the primary",
		"redis+sentinel://:secretpassword@h/m/0": "name of the primary",
		"redis+sentinel://:secretpassword@h/m?a": "settings of their own",
		"redis://u:secretpassword@h/3":           "all databases are hauled",
		"redis://u:secretpassword@h?db=3":        "settings of their own",
		"redis://u:secretpassword/x@h":           "percent-encoded",
		"redis://u:secretpassword%zz@h":          "%25",
		"redis://u:secretpassword":               "port is no number",
		"redis://u:secretpassword@":              "host is empty",
		"redis://u:secretpassword@a,,b":          "address 2 of 3: the host is empty",
		"redis://u:secretpassword@::1":           "brackets",
		"redis://u:secretpassword@[::1":          "not closed",
		"redis://u:secretpassword@[::1]x":        "port must follow",
		"redis://u:secretpassword@[localhost]":   "no IPv6 address",
		"redis://u:secretpassword@h:0":           "port is no number",
		"redis://u:secretpassword@h:65536":       "port is no number",
		"redis://u:secretpassword@h:":            "port is no number",
		"redis://u:secretpassword@:6379":         "host is empty",
		"redis://u:secretpassword@a b":           "character",
		"unix://secretpassword":                  "absolute path",
		"unix://secretpassword/x":                "must be absolute",
		"unix://u:secretpassword@/":              "no valid path",
		"unix://u:secretpassword@/run/s.sock?a=": "settings of their own",
		"":                                       "no scheme",
	} {
		_, err := Parse(in)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secretpassword") {
			t.Errorf("%s: the error repeats the password: %v", in, err)
		}
	}
}

func TestEndpointIsPrintedWithoutSecrets(t *testing.T) {
	e, err := Parse("redis://someone:secretpassword@h1,h2:7")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		for _, v := range []any{e, &e, struct{ E Endpoint }{e}} {
			if s := fmt.Sprintf(format, v); strings.Contains(s, "secretpassword") || strings.Contains(s, "someone") {
				t.Errorf("%s of %T: %s", format, v, s)
			}
		}
	}
	if got, want := e.String(), "redis://h1:6379,h2:7"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"redis://u:p@h:1,[::1]:2/", "unix://u:p@/a", "rediss://%41:%zz@h", "redis://[::1%25lo]", "redis+sentinel://u:p@h,i:2/m"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		e, err := Parse(in)
		if err != nil {
			return
		}
		if e.Sentinels != nil {
			e = *e.Sentinels
		}
		if len(e.Addrs) == 0 {
			t.Fatal("accepted, but without an address")
		}
		if e.Scheme == SchemeUnix {
			return
		}
		for _, addr := range e.Addrs {
			again, err := NormalizeAddr(addr)
			if err != nil || again != addr {
				t.Fatalf("%q becomes %q, %v", addr, again, err)
			}
		}
	})
}

package resp

import (
	"errors"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// wires are whole replies; more of them, cut and joined, come from the fuzzer.
var wires = []struct {
	wire string
	want Reply
}{
	{"+OK\r\n", Reply{Kind: '+', Text: "OK"}},
	{"+\r\n", Reply{Kind: '+'}},
	{"-ERR no\r\n", Reply{Kind: '-', Text: "ERR no"}},
	{":42\r\n", Reply{Kind: ':', Int: 42}},
	{":-9223372036854775808\r\n", Reply{Kind: ':', Int: math.MinInt64}},
	{"$0\r\n\r\n", Reply{Kind: '$'}},
	{"$3\r\n\r\nx\r\n", Reply{Kind: '$', Text: "\r\nx"}},
	{"$-1\r\n", Reply{Kind: '$', Null: true}},
	{"*0\r\n", Reply{Kind: '*'}},
	{"*-1\r\n", Reply{Kind: '*', Null: true}},
	{"*2\r\n:1\r\n*1\r\n+a\r\n", Reply{Kind: '*', Array: []Reply{
		{Kind: ':', Int: 1}, {Kind: '*', Array: []Reply{{Kind: '+', Text: "a"}}},
	}}},
	{"_\r\n", Reply{Kind: '_', Null: true}},
	{",1.5\r\n", Reply{Kind: ',', Text: "1.5"}},
	{"#t\r\n", Reply{Kind: '#', Text: "t"}},
	{"(123456789012345678901\r\n", Reply{Kind: '(', Text: "123456789012345678901"}},
	{"!5\r\nERR x\r\n", Reply{Kind: '!', Text: "ERR x"}},
	{"=7\r\ntxt:abc\r\n", Reply{Kind: '=', Text: "txt:abc"}},
	{"~1\r\n:1\r\n", Reply{Kind: '~', Array: []Reply{{Kind: ':', Int: 1}}}},
	{">1\r\n+x\r\n", Reply{Kind: '>', Array: []Reply{{Kind: '+', Text: "x"}}}},
	{"%1\r\n+k\r\n:2\r\n", Reply{Kind: '%', Array: []Reply{{Kind: '+', Text: "k"}, {Kind: ':', Int: 2}}}},
	{"|1\r\n+ttl\r\n:9\r\n+OK\r\n", Reply{Kind: '+', Text: "OK"}},
	{"|0\r\n$-1\r\n", Reply{Kind: '$', Null: true}},
	{"*1\r\n|1\r\n+a\r\n+b\r\n:7\r\n", Reply{Kind: '*', Array: []Reply{{Kind: ':', Int: 7}}}},
}

func TestDecode(t *testing.T) {
	for _, tt := range wires {
		got, n, err := Decode([]byte(tt.wire + "+next\r\n"))
		if err != nil || n != len(tt.wire) || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Decode(%q) = %+v, %d, %v, want %+v, %d", tt.wire, got, n, err, tt.want, len(tt.wire))
		}
		for cut := range len(tt.wire) {
			if n, err := Scan([]byte(tt.wire[:cut])); !errors.Is(err, ErrShort) {
				t.Errorf("Scan(%q) = %d, %v, want ErrShort", tt.wire[:cut], n, err)
			}
		}
	}
}

func TestScanRefuses(t *testing.T) {
	for name, wire := range map[string]string{
		"newline alone":        "\n",
		"CRLF alone":           "\r\n",
		"no carriage return":   "+OK\n",
		"unknown type":         "OK\r\n",
		"length missing":       "$\r\n",
		"length no number":     "$x\r\n",
		"length -2":            "$-2\r\n",
		"length too large":     "$9999999999\r\n",
		"length 20 digits":     "$00000000000000000001\r\n",
		"streamed string":      "$?\r\n",
		"bulk without CRLF":    "$3\r\nabcde",
		"bulk error -1":        "!-1\r\n",
		"verbatim -1":          "=-1\r\n",
		"array -2":             "*-2\r\n",
		"set -1":               "~-1\r\n",
		"map -1":               "%-1\r\n",
		"attribute -1":         "|-1\r\n",
		"push -1":              ">-1\r\n",
		"integer no number":    ":x\r\n",
		"integer out of range": ":9223372036854775808\r\n",
		"bad element":          "*2\r\n:1\r\n?\r\n",
		"too deep":             strings.Repeat("*1\r\n", 20) + ":1\r\n",
		"line too long":        "+" + strings.Repeat("x", maxLine+1) + "\r\n",
		"endless line":         "+" + strings.Repeat("x", maxLine+1),
	} {
		n, err := Scan([]byte(wire))
		var want *ProtocolError
		if !errors.As(err, &want) || n != 0 {
			t.Errorf("%s: Scan = %d, %v, want a ProtocolError", name, n, err)
		}
		if _, _, decodeErr := Decode([]byte(wire)); decodeErr == nil || decodeErr.Error() != err.Error() {
			t.Errorf("%s: Decode says %v, Scan %v", name, decodeErr, err)
		}
	}
}

func TestParseInt(t *testing.T) {
	for _, text := range []string{
		"0", "-0", "+7", "7", "-7", "007", "1234567890123456789", "9223372036854775807", "-9223372036854775808",
	} {
		want, _ := strconv.ParseInt(text, 10, 64)
		if got, err := ParseInt([]byte(text)); err != nil || got != want {
			t.Errorf("ParseInt(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "-", "+", "+-1", "--1", "1 ", " 1", "1x", "0x1", "9223372036854775808", "-9223372036854775809",
		"9999999999999999999", "18446744073709551616", "00000000000000000001",
	} {
		if got, err := ParseInt([]byte(text)); err == nil {
			t.Errorf("ParseInt(%q) = %d, want an error", text, got)
		}
	}
}

func TestErrorHidesArguments(t *testing.T) {
	for _, tt := range []struct{ reply, code, text string }{
		{"ERR unknown command 'AUHT', with args beginning with: 'user' 'secret' ", "ERR", "ERR unknown command 'AUHT'"},
		{"ERR unknown command `AUHT`, with args beginning with: `secret`, ", "ERR", "ERR unknown command `AUHT`"},
		{"ERR unknown command 'x', with args beginning with: ", "ERR", "ERR unknown command 'x'"},
		{"LOADING Redis is loading the dataset in memory", "LOADING", "LOADING Redis is loading the dataset in memory"},
		{"NOPERM User app: has no permissions to run the 'psync' command", "NOPERM", "NOPERM this user has no permissions to run the 'psync' command"},
		{"ERR", "ERR", "ERR"},
		{"", "", ""},
	} {
		e := NewError(tt.reply)
		if e.Code != tt.code || e.Text != tt.text || e.Error() != tt.text {
			t.Errorf("NewError(%q) = %+v", tt.reply, e)
		}
	}
	for _, r := range []Reply{{Kind: '-', Text: "ERR a"}, {Kind: '!', Text: "ERR a"}} {
		var e *Error
		if !errors.As(r.Err(), &e) || e.Code != "ERR" {
			t.Errorf("%+v: Err() = %v", r, r.Err())
		}
	}
	if err := (Reply{Kind: '+', Text: "ERR a"}).Err(); err != nil {
		t.Errorf("a simple string is an error: %v", err)
	}
}

func TestRedirect(t *testing.T) {
	for _, tt := range []struct {
		text string
		slot int
		addr string
		ok   bool
	}{
		{"MOVED 3999 127.0.0.1:6381", 3999, "127.0.0.1:6381", true},
		{"ASK 0 [::1]:6381", 0, "[::1]:6381", true},
		{"MOVED 16383 :6381", 16383, ":6381", true},
		{"MOVED 16384 127.0.0.1:6381", 0, "", false},
		{"MOVED -1 127.0.0.1:6381", 0, "", false},
		{"MOVED x 127.0.0.1:6381", 0, "", false},
		{"MOVED 1", 0, "", false},
		{"MOVED 1 a:1 b:2", 0, "", false},
		{"TRYAGAIN 1 a:1", 0, "", false},
		{"", 0, "", false},
	} {
		slot, addr, ok := NewError(tt.text).Redirect()
		if slot != tt.slot || addr != tt.addr || ok != tt.ok {
			t.Errorf("%q: Redirect() = %d, %q, %t", tt.text, slot, addr, ok)
		}
	}
}

func TestAppend(t *testing.T) {
	long := strings.Repeat("x", 12345)
	for _, tt := range []struct {
		got  []byte
		want string
	}{
		{AppendArray(nil, 0), "*0\r\n"},
		{AppendArray([]byte("a"), 10), "a*10\r\n"},
		{AppendBulkHeader(nil, 9), "$9\r\n"},
		{AppendBulkHeader(nil, 1<<31), "$2147483648\r\n"},
		{AppendBulkHeader(nil, -1), "$-1\r\n"},
		{AppendBulk(nil, nil), "$0\r\n\r\n"},
		{AppendBulk(nil, []byte("a\r\nb")), "$4\r\na\r\nb\r\n"},
		{AppendBulkString(nil, long), "$12345\r\n" + long + "\r\n"},
		{AppendBulkInt(nil, math.MinInt64), "$20\r\n-9223372036854775808\r\n"},
		{AppendBulkInt(nil, 0), "$1\r\n0\r\n"},
		{AppendCommand(nil, "SET", "", "v"), "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$1\r\nv\r\n"},
	} {
		if string(tt.got) != tt.want {
			t.Errorf("got %.60q, want %.60q", tt.got, tt.want)
		}
	}
}

// FuzzScan checks that Scan and Decode agree, and that bytes which come in pieces mean the same.
func FuzzScan(f *testing.F) {
	for _, tt := range wires {
		f.Add([]byte(tt.wire))
	}
	f.Add([]byte("|-1\r\n"))
	f.Add([]byte("$3\r\nabcde"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Scan(b)
		_, decoded, decodeErr := Decode(b)
		if n != decoded || (err == nil) != (decodeErr == nil) {
			t.Fatalf("Scan = %d, %v; Decode = %d, %v", n, err, decoded, decodeErr)
		}
		for size := range min(len(b), 200) {
			part, partErr := Scan(b[:size])
			switch {
			case err == nil && size >= n:
				if part != n || partErr != nil {
					t.Fatalf("Scan of %d bytes = %d, %v; of %d bytes %d", size, part, partErr, len(b), n)
				}
			case err == nil || errors.Is(err, ErrShort):
				if !errors.Is(partErr, ErrShort) {
					t.Fatalf("Scan of %d bytes = %d, %v; of %d bytes %d, %v", size, part, partErr, len(b), n, err)
				}
			case partErr == nil:
				t.Fatalf("Scan of %d bytes = %d; of %d bytes %v", size, part, len(b), err)
			}
		}
	})
}

func BenchmarkScan(b *testing.B) {
	for name, wire := range map[string]string{"OK": "+OK\r\n", "integer": ":123\r\n", "exec": "*3\r\n+OK\r\n:1\r\n:0\r\n"} {
		b.Run(name, func(b *testing.B) {
			in := []byte(wire)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Scan(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

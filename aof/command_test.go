package aof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/internal/feed"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// pieces is a source that yields at most size bytes at once.
type pieces struct {
	data []byte
	size int
}

func (s *pieces) Ready() bool { return true }

func (s *pieces) Read(_ context.Context, p []byte) (int, error) {
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.size)], s.data)
	s.data = s.data[n:]
	return n, nil
}

// oneBuffer is a keeper that forgets complete entries.
type oneBuffer struct{ buf []byte }

func (k *oneBuffer) Roll(_ context.Context, tail []byte, want int) ([]byte, error) {
	if want > cap(k.buf) {
		k.buf = append(make([]byte, 0, max(want, 2*cap(k.buf), 64<<10)), tail...)
		return k.buf, nil
	}
	k.buf = k.buf[:copy(k.buf[:cap(k.buf)], tail)]
	return k.buf, nil
}

func (k *oneBuffer) Idle(ctx context.Context, tail []byte) ([]byte, error) {
	return k.Roll(ctx, tail, len(tail))
}

func windowOf(data []byte, size, limit int) *feed.Window {
	return feed.New(context.Background(), &pieces{data, size}, &oneBuffer{}, 1000, limit, nil)
}

func wire(args ...string) string { return string(resp.AppendCommand(nil, args...)) }

func TestRead(t *testing.T) {
	long := strings.Repeat("v", 300<<10)
	stream := []struct {
		wire string
		args []string
	}{
		{wire("PING"), []string{"PING"}},
		{"\n", nil},
		{wire("SET", "k", "v"), []string{"SET", "k", "v"}},
		{"\n", nil},
		{"\n", nil},
		{wire("SELECT", "12"), []string{"SELECT", "12"}},
		{wire("SET", "", ""), []string{"SET", "", ""}},
		{wire("SET", "\r\n$3\r\n*1\r\n", "\n"), []string{"SET", "\r\n$3\r\n*1\r\n", "\n"}},
		{wire("SET", strings.Repeat("k", 99), strings.Repeat("v", 100)), []string{"SET", strings.Repeat("k", 99), strings.Repeat("v", 100)}},
		{wire("SET", "large", long, "EX", "9"), []string{"SET", "large", long, "EX", "9"}},
		{wire("DEL", "after"), []string{"DEL", "after"}},
		{wire(strings.Fields(strings.Repeat("a ", 5000))...), strings.Fields(strings.Repeat("a ", 5000))},
		{"*01\r\n$004\r\nPING\r\n", []string{"PING"}},
	}
	var all []byte
	for _, c := range stream {
		all = append(all, c.wire...)
	}
	for _, size := range []int{1, 2, 7, 1000, 1 << 20} {
		for _, limit := range []int{16, 4 << 10, 1 << 20} {
			w := windowOf(all, size, limit)
			var args []Arg
			for i, c := range stream {
				w.Begin()
				at := w.Offset()
				var err error
				if args, err = Read(w, args[:0]); err != nil {
					t.Fatalf("pieces of %d, limit %d: command %d: %v", size, limit, i, err)
				}
				if w.Offset()-at != int64(len(c.wire)) {
					t.Fatalf("command %d: %d bytes, want %d", i, w.Offset()-at, len(c.wire))
				}
				got := make([]string, 0, len(args))
				for _, a := range args {
					got = append(got, c.wire[a.Off:a.Off+a.Len])
				}
				if !reflect.DeepEqual(got, append([]string{}, c.args...)) {
					t.Fatalf("command %d: %.80q, want %.80q", i, got, c.args)
				}
				if kept := w.Kept(); !strings.HasPrefix(c.wire, string(kept)) || !w.Large() && len(kept) != len(c.wire) {
					t.Fatalf("command %d: kept %.80q", i, kept)
				}
			}
			w.Begin()
			if _, err := Read(w, nil); err != io.EOF { //nolint:errorlint // it is promised to be the value itself
				t.Fatalf("behind the last command: %v", err)
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"inline":              "PING\r\n",
		"reply":               "+OK\r\n",
		"carriage return":     "\r\n",
		"no arguments":        "*0\r\n",
		"null array":          "*-1\r\n",
		"length empty":        "*\r\n",
		"length no number":    "*x\r\n",
		"length signed":       "*+1\r\n$4\r\nPING\r\n",
		"length of 19 digits": "*1000000000000000000\r\n",
		"too many":            "*1073741825\r\n",
		"line of newline":     "*1\n$4\nPING\n",
		"line of return":      "*1\rx",
		"no bulk":             "*1\r\n:4\r\n",
		"null bulk":           "*1\r\n$-1\r\n",
		"bulk too large":      "*1\r\n$1099511627777\r\n",
		"bulk too short":      "*1\r\n$3\r\nPING\r\n",
		"bulk too long":       "*1\r\n$5\r\nPING\r\n\r\n",
		"nested":              "*1\r\n*1\r\n$4\r\nPING\r\n",
	} {
		for _, size := range []int{1, 100} {
			w := windowOf([]byte("\n"+in), size, 1<<20)
			w.Begin()
			_, err := Read(w, nil) // the newline
			if err == nil {
				w.Begin()
				_, err = Read(w, nil)
			}
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "offset 1001") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestReadTruncated(t *testing.T) {
	for _, in := range []string{wire("SET", "key", strings.Repeat("v", 120)), "*012\r\n"} {
		for cut := range len(in) {
			for _, limit := range []int{8, 1 << 20} {
				w := windowOf([]byte(in[:cut]), 1+cut%3, limit)
				w.Begin()
				want := io.ErrUnexpectedEOF
				if cut == 0 {
					want = io.EOF
				}
				if _, err := Read(w, nil); err != want { //nolint:errorlint // it is promised to be the value itself
					t.Errorf("%.20q cut at %d: %v, want %v", in, cut, err, want)
				}
			}
		}
	}
}

func TestReadPassesErrorsOn(t *testing.T) {
	boom := fmt.Errorf("disk: %w", io.EOF)
	w := feed.New(t.Context(), errSource{boom}, &oneBuffer{}, 0, 100, nil)
	if _, err := Read(w, nil); err != boom { //nolint:errorlint // it is promised to be the value itself
		t.Errorf("err = %v", err)
	}
}

type errSource struct{ err error }

func (errSource) Ready() bool                                 { return true }
func (s errSource) Read(context.Context, []byte) (int, error) { return 0, s.err }

// FuzzRead checks that nothing panics, that spans lie within what was passed, that pieces of any size and any limit
// give the same, and that what was read is written the same.
func FuzzRead(f *testing.F) {
	f.Add([]byte(wire("SET", "k", "v")+"\n"+wire("PING")), uint8(3))
	f.Add([]byte("*1\r\n$-1\r\n"), uint8(1))
	f.Add([]byte("*12\r\n$10\r\n0123456789\r\n"), uint8(200))
	f.Fuzz(func(t *testing.T, b []byte, size uint8) {
		whole := windowOf(b, len(b)+1, 1<<20)
		parts := windowOf(b, int(size)+1, 16)
		for {
			whole.Begin()
			parts.Begin()
			start := whole.Offset() - 1000
			args, err := Read(whole, nil)
			again, err2 := Read(parts, nil)
			if fmt.Sprint(err) != fmt.Sprint(err2) || err == nil && (!reflect.DeepEqual(args, again) || whole.Offset() != parts.Offset()) {
				t.Fatalf("in one piece %v, %v; in pieces %v, %v", args, err, again, err2)
			}
			if err != nil {
				return
			}
			raw := b[start : whole.Offset()-1000]
			out := resp.AppendArray(nil, len(args))
			for _, a := range args {
				out = resp.AppendBulk(out, raw[a.Off:a.Off+a.Len])
			}
			if len(args) > 0 && !bytes.Contains(raw, []byte("0")) && !bytes.Equal(out, raw) {
				t.Fatalf("%q was read from %q", out, raw)
			}
		}
	})
}

// endless repeats data for ever.
type endless struct {
	data []byte
	at   int
}

func (s *endless) Ready() bool { return true }

func (s *endless) Read(_ context.Context, p []byte) (int, error) {
	n := copy(p, s.data[s.at:])
	s.at = (s.at + n) % len(s.data)
	return n, nil
}

func BenchmarkRead(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for name, command := range map[string]func() string{
		"SET": func() string {
			return wire("SET", fmt.Sprint("key:", rng.IntN(1e6)), strings.Repeat("x", 10+rng.IntN(30)))
		},
		"INCR": func() string { return wire("INCR", fmt.Sprint("counter:", rng.IntN(1e6))) },
		"HSET": func() string {
			return wire("HSET", fmt.Sprint("hash:", rng.IntN(1e6)), "field1", "value1", "field2", fmt.Sprint(rng.IntN(1e6)))
		},
	} {
		b.Run(name, func(b *testing.B) {
			var data []byte
			const commands = 1000
			for range commands {
				data = append(data, command()...)
			}
			w := feed.New(b.Context(), &endless{data: data}, &oneBuffer{}, 0, 1<<20, nil)
			args := make([]Arg, 0, 16)
			b.SetBytes(int64(len(data) / commands))
			b.ReportAllocs()
			for b.Loop() {
				w.Begin()
				var err error
				if args, err = Read(w, args[:0]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

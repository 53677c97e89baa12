package resp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// peer answers on the other end of a connection in memory: it calls serve once, with a reader of what arrives.
func peer(t *testing.T, serve func(c net.Conn)) *Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close() //nolint:errcheck // the test is over
		serve(theirs)
	}()
	t.Cleanup(func() {
		_ = ours.Close()
		<-done
	})
	return NewConn(ours)
}

// expect reads exactly the command with args.
func expect(t *testing.T, c net.Conn, args ...string) bool {
	t.Helper()
	want := AppendCommand(nil, args...)
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
		return false
	}
	return true
}

func TestConnDo(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 10<<10) // ten times the buffer
	var array strings.Builder
	array.WriteString("*3000\r\n")
	for range 3000 {
		array.WriteString("$10\r\nabcdefghij\r\n")
	}
	for name, tt := range map[string]struct {
		pieces []string // as they are written, without a pause of meaning
		want   []string // texts; "*n" for an array of n
	}{
		"one":                   {[]string{"+PONG\r\n"}, []string{"PONG"}},
		"in pieces":             {[]string{"$", "5\r", "\nhel", "lo\r", "\n"}, []string{"hello"}},
		"several in one write":  {[]string{"+a\r\n+b\r\n$1\r\nc\r\n"}, []string{"a", "b", "c"}},
		"larger than buffer":    {[]string{"$163840\r\n" + long + "\r\n+after\r\n"}, []string{long, "after"}},
		"large array":           {[]string{array.String() + ":", "1\r\n+after\r\n"}, []string{"*3000", "", "after"}},
		"exactly the buffer":    {[]string{"$16375\r\n" + long[:16375] + "\r\n", "+after\r\n"}, []string{long[:16375], "after"}},
		"one above the buffer":  {[]string{"$16376\r\n" + long[:16376] + "\r\n+after\r\n"}, []string{long[:16376], "after"}},
		"one beneath":           {[]string{"$16374\r\n" + long[:16374] + "\r\n+after\r\n"}, []string{long[:16374], "after"}},
		"small before large":    {[]string{"+a\r\n$163840\r\n" + long, "\r\n+b\r\n"}, []string{"a", long, "b"}},
		"two large in sequence": {[]string{"$163840\r\n" + long + "\r\n$163840\r\n" + long + "\r\n"}, []string{long, long}},
	} {
		t.Run(name, func(t *testing.T) {
			c := peer(t, func(c net.Conn) {
				if !expect(t, c, "GET", "k") {
					return
				}
				for _, p := range tt.pieces {
					if _, err := io.WriteString(c, p); err != nil {
						t.Error(err)
					}
				}
				_, _ = io.WriteString(c, "tail")
			})
			for i, want := range tt.want {
				var r Reply
				var err error
				if i == 0 {
					r, err = c.Do(t.Context(), time.Minute, "GET", "k")
				} else {
					r, err = c.ReadReply()
				}
				if n := len(r.Array); n > 0 {
					r.Text = "*" + strconv.Itoa(n)
				}
				if err != nil || r.Text != want {
					t.Fatalf("reply %d = %.40q, %v, want %.40q", i, r.Text, err, want)
				}
			}
			rest := make([]byte, 4)
			if _, err := io.ReadFull(c.Reader, rest); err != nil || string(rest) != "tail" {
				t.Errorf("behind the replies: %q, %v", rest, err)
			}
		})
	}
}

func TestConnDoFails(t *testing.T) {
	answer := func(text string) func(t *testing.T, c net.Conn) {
		return func(t *testing.T, c net.Conn) {
			if expect(t, c, "AUTH", "secret") {
				_, _ = io.WriteString(c, text)
			}
		}
	}
	for name, tt := range map[string]struct {
		serve func(t *testing.T, c net.Conn)
		check func(err error) bool
	}{
		"error reply":     {answer("-WRONGPASS no\r\n"), isError},
		"closed":          {answer(""), func(err error) bool { return errors.Is(err, io.EOF) }},
		"cut":             {answer("$5\r\nab"), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"cut, large":      {answer("$50000\r\n" + strings.Repeat("x", 40000)), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		"garbage":         {answer("HTTP/1.1 400\r\n"), isProtocol},
		"large garbage":   {answer("$50000\r\n" + strings.Repeat("x", 50002)), isProtocol},
		"closed at write": {func(*testing.T, net.Conn) {}, func(err error) bool { return errors.Is(err, io.ErrClosedPipe) }},
	} {
		t.Run(name, func(t *testing.T) {
			c := peer(t, func(c net.Conn) { tt.serve(t, c) })
			_, err := c.Do(t.Context(), time.Minute, "AUTH", "secret")
			if !tt.check(err) {
				t.Errorf("err = %v", err)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("the error names an argument: %v", err)
			}
		})
	}
}

func isError(err error) bool { return errors.As(err, new(*Error)) }

func isProtocol(err error) bool { return errors.As(err, new(*ProtocolError)) }

func TestConnDoEnds(t *testing.T) {
	cause := errors.New("operator")
	synctest.Test(t, func(t *testing.T) {
		silent := func() *Conn {
			return peer(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
		}
		start := time.Now()
		_, err := silent().Do(t.Context(), 3*time.Second, "PING")
		if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took != 3*time.Second {
			t.Errorf("timeout: %v after %v", err, took)
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(cause) })
		start = time.Now()
		_, err = silent().Do(ctx, time.Minute, "PING")
		if took := time.Since(start); !errors.Is(err, cause) || took != time.Second {
			t.Errorf("cancelled: %v after %v", err, took)
		}
		if _, err = silent().Do(ctx, time.Minute, "PING"); !errors.Is(err, cause) {
			t.Errorf("cancelled before: %v", err)
		}
	})
}

// TestConnDoLeavesNoDeadline: a context that ends while its command is answered must not strike the next one.
func TestConnDoLeavesNoDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ping := make([]byte, len(AppendCommand(nil, "PING")))
	answered := make(chan struct{})
	once := sync.OnceFunc(func() { close(answered) })
	c := peer(t, func(c net.Conn) {
		for {
			if _, err := io.ReadFull(c, ping); err != nil {
				return
			}
			cancel() // the reply is written all the same
			if _, err := io.WriteString(c, "+PONG\r\n"); err != nil {
				return
			}
			once()
		}
	})
	c.Conn = &slowDeadline{c.Conn, answered}
	if _, err := c.Do(ctx, time.Minute, "PING"); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := c.Do(t.Context(), time.Minute, "PING"); err != nil {
			t.Fatalf("the end of an earlier context: %v", err)
		}
	}
}

// slowDeadline is a connection on which a deadline in the past is set only after the first reply was read.
type slowDeadline struct {
	net.Conn
	answered chan struct{}
}

func (s *slowDeadline) SetDeadline(at time.Time) error {
	if !at.IsZero() && at.Before(time.Now()) {
		<-s.answered
	}
	return s.Conn.SetDeadline(at)
}

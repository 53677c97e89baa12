package redistest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// echo is a server that returns what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func dial(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// roundTrip sends b through conn and wants it back within d.
func roundTrip(conn net.Conn, b []byte, d time.Duration) error {
	_ = conn.SetDeadline(time.Now().Add(d))
	if _, err := conn.Write(b); err != nil {
		return err
	}
	back := make([]byte, len(b))
	n, err := io.ReadFull(conn, back)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	if !bytes.Equal(b, back) {
		return errors.New("other bytes came back")
	}
	return nil
}

func TestProxy(t *testing.T) {
	p := NewProxy(t, echo(t))
	conn := dial(t, p)
	hello := []byte("hello")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(roundTrip(conn, hello, 10*time.Second))
	if p.Accepted() != 1 || p.Bytes(ToTarget) != 5 || p.Bytes(ToClient) != 5 {
		t.Errorf("counted %d connections, %d and %d bytes", p.Accepted(), p.Bytes(ToTarget), p.Bytes(ToClient))
	}

	p.Stall()
	if err := roundTrip(conn, hello, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("stalled: %v, want a timeout", err)
	}
	p.Resume()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := io.ReadFull(conn, make([]byte, len(hello)))
	must(err)

	p.CutAfter(8, ToClient)
	must(roundTrip(conn, hello, 10*time.Second))
	if err := roundTrip(conn, hello, 10*time.Second); err == nil || err.Error()[:13] != "after 3 bytes" {
		t.Errorf("CutAfter: %v, want the end after 3 bytes more", err)
	}

	p.Blackhole()
	conn = dial(t, p)
	if err := roundTrip(conn, hello, 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("blackhole: %v, want a timeout", err)
	}
	p.Cut()
	p.Resume()
	if err := roundTrip(conn, hello, 10*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("cut: %v, want the end", err)
	}

	p.Refuse(true)
	if err := roundTrip(dial(t, p), hello, 10*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("refused: %v, want the end", err)
	}
	p.Refuse(false)

	p.Limit(50_000)
	began := time.Now()
	must(roundTrip(dial(t, p), make([]byte, 10_000), 10*time.Second))
	if took := time.Since(began); took < 150*time.Millisecond {
		t.Errorf("10 kB at 50 kB/s took %s", took)
	}
	p.Stall()
	stuck := dial(t, p)
	_, err = stuck.Write(hello)
	must(err)
	p.Close() // must not wait for what is stalled
	if n := p.Connections(); n != 0 {
		t.Errorf("%d connections after Close", n)
	}
}

// TestProxyOrphan: what a closed connection has sent is executed later, unless the server was told to kill it.
func TestProxyOrphan(t *testing.T) {
	const delay = 200 * time.Millisecond
	s := Start(t, Options{})
	for _, killed := range []bool{false, true} {
		p := NewProxy(t, s.Addr)
		conn := dial(t, p)
		if _, err := conn.Write([]byte("CLIENT ID\r\n")); err != nil {
			t.Fatal(err)
		}
		reply := make([]byte, 64)
		n, err := conn.Read(reply)
		if err != nil {
			t.Fatal(err)
		}
		p.Orphan(delay)
		key := fmt.Sprint("ghost-", killed)
		if _, err := fmt.Fprintf(conn, "SET %s 1\r\n", key); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(reply[n:]); !errors.Is(err, io.EOF) {
			t.Fatalf("the client saw %v, want its end", err)
		}
		_ = conn.Close()
		if s.MustDo("EXISTS", key).Int != 0 {
			t.Error("executed before the delay")
		}
		if killed {
			s.MustDo("CLIENT", "KILL", "ID", string(bytes.TrimSpace(reply[1:n])))
		}
		Eventually(t, 10*time.Second, func() error {
			if n := p.Connections(); n != 0 {
				return fmt.Errorf("%d connections", n)
			}
			return nil
		})
		if got := s.MustDo("EXISTS", key).Int == 1; got == killed {
			t.Errorf("killed %t, executed %t", killed, got)
		}
	}
}

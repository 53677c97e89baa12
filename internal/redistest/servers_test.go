package redistest

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServerLifecycle(t *testing.T) {
	s := Start(t, Options{Config: map[string]string{"appendonly": "yes", "appendfsync": "always"}, Args: []string{"--hz", "50"}})
	s.MustDo("SET", "k", 42)
	if got := s.MustDo("CONFIG", "GET", "hz").Array[1].Text; got != "50" {
		t.Errorf("hz is %s, want the argument's 50", got)
	}
	if r := s.Do("LPUSH", "k", "v"); r.Err() == nil {
		t.Error("LPUSH on a string gave no error reply")
	}
	pid := s.Pid
	s.Kill()
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d after Kill: %v, want none", pid, err)
	}
	s.Restart()
	if got := s.MustDo("GET", "k").Text; got != "42" {
		t.Errorf("GET after Kill and Restart is %q, want 42", got)
	}
	s.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
	Eventually(t, 5*time.Second, func() error { // the reply to its own end comes before that end
		if !hungUp(s.ctl.conn) {
			return errors.New("the connection is still open")
		}
		return nil
	})
	if got := s.MustDo("GET", "k").Text; got != "42" {
		t.Errorf("GET after CLIENT KILL is %q, want 42", got)
	}
	s.Stop()
	s.Stop()
}

func TestServerFreeze(t *testing.T) {
	s := Start(t, Options{})
	conn := s.Dial()
	defer func() { _ = conn.Close() }()
	s.Freeze()
	if _, err := conn.Do(t.Context(), 50*time.Millisecond, "PING"); err == nil {
		t.Error("a frozen server answered")
	}
	s.Thaw()
	if got := s.MustDo("PING").Text; got != "PONG" {
		t.Errorf("PING after Thaw is %q", got)
	}
	s.Freeze() // the cleanup must end it all the same
}

func TestServerAccess(t *testing.T) {
	s := Start(t, Options{Password: "hush", Users: []string{"alice on >sesame ~a* +@all"}, TLS: true, MutualTLS: true, Unix: true})
	if want := fmt.Sprintf("rediss://:hush@127.0.0.1:%d", s.Port); s.URL() != want {
		t.Errorf("URL is %s, want %s", s.URL(), want)
	}
	if got := s.MustDo("PING").Text; got != "PONG" {
		t.Errorf("PING over TLS is %q", got)
	}
	alice := Endpoint{Username: "alice", Password: "sesame"}
	p, err := alice.pipe(t.Context(), "unix:"+s.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if _, err := p.do(t.Context(), "GET", "b"); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("GET by a user without that key: %v, want NOPERM", err)
	}
}

func TestEachRelease(t *testing.T) {
	for _, release := range Releases() {
		t.Run(release, func(t *testing.T) {
			t.Parallel()
			s := Start(t, Options{Release: release})
			family, _, _ := strings.Cut(release, "-")
			if want := fmt.Sprintf("%s-%d.%d", family, s.Version.Major, s.Version.Minor); want != release {
				t.Errorf("server is %s", want)
			}
			if r := s.Do("DEBUG", "DIGEST-VALUE", "k"); r.Err() != nil {
				t.Errorf("DEBUG: %v", r.Err())
			}
		})
	}
}

func TestRun(t *testing.T) {
	var order []string
	var pid int
	err := Run(nil, func(tb TB) {
		tb.Cleanup(func() { order = append(order, "first") })
		tb.Cleanup(func() { tb.Fatalf("in a cleanup") })
		tb.Cleanup(func() { order = append(order, "last") })
		pid = Start(tb, Options{}).Pid
		tb.Fatalf("number %d", 7)
		t.Error("Fatalf returned")
	})
	if err == nil || err.Error() != "number 7" {
		t.Errorf("Run returned %v, want the first failure", err)
	}
	if got := strings.Join(order, " "); got != "last first" {
		t.Errorf("cleanups ran as %q", got)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("server after Run: %v, want none", err)
	}
}

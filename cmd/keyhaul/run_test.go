package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// program is the built binary.
var program string

func TestMain(m *testing.M) {
	code := 1
	func() {
		dir, err := os.MkdirTemp("", "keyhaul")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		defer os.RemoveAll(dir) //nolint:errcheck // of the tests
		program = filepath.Join(dir, "keyhaul")
		args := append([]string{"build"}, buildFlags...)
		if out, err := exec.Command("go", append(args, "-o", program, ".")...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v\n%s", err, out)
			return
		}
		code = m.Run()
	}()
	os.Exit(code)
}

// process is a keyhaul that a user has started.
type process struct {
	t        *testing.T
	cmd      *exec.Cmd
	state    string
	stdin    io.Reader
	mu       sync.Mutex
	out, err bytes.Buffer
	ended    chan struct{}
	base     string
}

type lockedWriter struct {
	p *process
	b *bytes.Buffer
}

func (w lockedWriter) Write(b []byte) (int, error) {
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	return w.b.Write(b)
}

// start runs keyhaul sync with a state directory and an HTTP port of its own, unless args have others.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, ended: make(chan struct{}), state: t.TempDir()}
	all := append([]string{"sync"}, args...)
	line := strings.Join(args, " ")
	if !strings.Contains(line, "--state-dir") {
		all = append(all, "--state-dir", p.state)
	}
	if !strings.Contains(line, "--http") {
		all = append(all, "--http", "127.0.0.1:0")
	}
	return p.run(nil, all...)
}

func (p *process) run(env []string, args ...string) *process {
	p.t.Helper()
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdin = p.stdin
	p.cmd.Env = append([]string{"HOME=" + p.t.TempDir(), "PATH=" + os.Getenv("PATH")}, env...)
	p.cmd.Stdout, p.cmd.Stderr = lockedWriter{p, &p.out}, lockedWriter{p, &p.err}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if strings.Contains(p.stderr(), "DATA RACE") || strings.Contains(p.stderr(), "panic:") {
			p.t.Error("a race or a panic")
		}
		if p.t.Failed() {
			p.t.Logf("%v\n%s%s", p.cmd.Args[1:], p.stdout(), tail(p.stderr()))
		}
	})
	return p
}

func tail(text string) string { return text[max(0, len(text)-6000):] }

func (p *process) stdout() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

func (p *process) stderr() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err.String()
}

// exit waits for the end, expects this code, and texts in what was said.
func (p *process) exit(code haul.Exit, texts ...string) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("keyhaul still runs")
	}
	if got := p.cmd.ProcessState.ExitCode(); got != int(code) {
		p.t.Fatalf("exit code %d, want %d", got, code)
	}
	for _, text := range texts {
		if !strings.Contains(p.stderr(), text) {
			p.t.Errorf("no word of %q", text)
		}
	}
}

// address finds where the process serves HTTP.
func (p *process) address() string {
	p.t.Helper()
	if p.base != "" {
		return p.base
	}
	rt.Eventually(p.t, 10*time.Second, func() error {
		for line := range strings.Lines(p.stderr()) {
			var entry struct{ HTTP, Message string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Message == "status and metrics" {
				p.base = entry.HTTP
				return nil
			}
		}
		return errors.New("no address in the log")
	})
	return p.base
}

func (p *process) get(path string) (int, string) {
	p.t.Helper()
	r, err := http.Get(p.address() + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func (p *process) status() report {
	p.t.Helper()
	_, body := p.get("/api/v1/status")
	var r report
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		p.t.Fatal(err)
	}
	return r
}

func (p *process) eventually(what string, check func(r report) bool) {
	p.t.Helper()
	rt.Eventually(p.t, patience, func() error {
		select {
		case <-p.ended:
			p.t.Fatalf("%s: keyhaul has ended", what)
		default:
		}
		if r := p.status(); !check(r) {
			return fmt.Errorf("%s: %+v", what, r)
		}
		return nil
	})
}

func (p *process) streaming() {
	p.t.Helper()
	p.eventually("streaming", func(r report) bool { return r.Links[0].SnapshotDone })
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func equal(t *testing.T, source, target rt.Endpoint) {
	t.Helper()
	r, err := rt.Compare(context.Background(), source, target, rt.CompareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Equal() {
		t.Fatalf("source and target differ:\n%s", r)
	}
}

func fill(t *testing.T, s *rt.Server, n int) {
	t.Helper()
	if err := rt.SmallWrites(context.Background(), s.Endpoint(), n); err != nil {
		t.Fatal(err)
	}
}

func pair(t *testing.T) (source, target *rt.Server) {
	return rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
}

func between(source, target *rt.Server, args ...string) []string {
	return append([]string{"--source", source.URL(), "--target", target.URL()}, args...)
}

// closedPort is an address at which nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestTargetForms: a cluster that has no slots yet is waited for, and gone on with once it has them.
func TestTargetForms(t *testing.T) {
	src := rt.Start(t, rt.Options{})
	src.MustDo("SET", "key", "value")
	dst := rt.Start(t, rt.Options{Config: map[string]string{"cluster-enabled": "yes"}})
	late := start(t, "--source", src.URL(), "--target", dst.URL(), "--until", "caught-up", "--connect-deadline", "500ms")
	late.exit(haul.ExitUnreachable, "slots")
	p := start(t, "--source", src.URL(), "--target", dst.URL(), "--until", "caught-up")
	p.eventually("waiting", func(r report) bool {
		return len(r.Waiting) > 0 && strings.Contains(r.Waiting[0].Cause, "0 of 16384 slots")
	})
	for slot := 0; slot < 16384; slot += 4096 {
		args := []any{"CLUSTER", "ADDSLOTS"}
		for i := range 4096 {
			args = append(args, slot+i)
		}
		dst.MustDo(args...)
	}
	p.exit(haul.ExitDone)
	if got := dst.MustDo("GET", "key").Text; got != "value" {
		t.Errorf("GET key: %q", got)
	}
}

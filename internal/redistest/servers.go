package redistest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	startTimeout = 30 * time.Second
	stopGrace    = 10 * time.Second
	pollInterval = 5 * time.Millisecond
)

// Options are how to start a server. The zero value is a plain server of the default release, without persistence.
type Options struct {
	// Release is a name of Releases. "" is $KEYHAUL_TEST_SERVER, or a server on PATH, or any installed release.
	Release string
	// Config are lines of the configuration file by name. They override those that the package sets.
	Config map[string]string
	// Args are appended to the command line, such as "--maxmemory", "10mb". They override Config.
	Args []string
	// Password is that of the default user (requirepass).
	Password string
	// Users are ACL rules, such as "alice on >secret ~* +@all". They may name any user but default.
	Users []string
	// TLS makes the port speak TLS only. Clients need no certificate unless MutualTLS is set too.
	TLS, MutualTLS bool
	// Unix opens a socket as well (Server.Socket).
	Unix bool
}

// Server is a running server. Its methods may be called from one goroutine at a time, that of the test, except Kill,
// Freeze, Thaw and the plain fields.
type Server struct {
	Addr    string // 127.0.0.1:port
	Port    int
	Pid     int
	Dir     string // working directory: its log and files
	Socket  string // path of the Unix socket, if asked for
	Version Version
	TLS     *TLSFiles // nil without TLS

	t       TB
	opts    Options
	program string
	ep      Endpoint
	args    []string

	ctl *pipe // the connection of Do

	sentinel []string // lines of its configuration, if it is a sentinel

	mu     sync.Mutex // guards the following, which Kill and Freeze need at any time
	proc   *process
	frozen bool
}

// Start starts a server on a free loopback port, waits until it answers, and stops it when the test ends.
func Start(t TB, opts Options) *Server {
	t.Helper()
	s := &Server{t: t, opts: opts, Dir: t.TempDir()}
	s.start()
	return s
}

// start prepares the server and launches it on a free port.
func (s *Server) start() {
	t := s.t
	t.Helper()
	if err := s.prepare(); err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(s.Stop)
	var err error
	for range 5 { // another process may take the port first
		if err = s.choosePort(); err == nil {
			err = s.launch()
		}
		if err == nil || !strings.Contains(err.Error(), "in use") {
			break
		}
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// prepare finds the program and writes what does not depend on the port.
func (s *Server) prepare() error {
	var err error
	if s.program, err = findServer(s.opts.Release); err != nil {
		return err
	}
	if s.Version, err = programVersion(s.program); err != nil {
		return err
	}
	s.ep = Endpoint{Password: s.opts.Password}
	if s.opts.TLS || s.opts.MutualTLS {
		if s.TLS == nil {
			if s.TLS, err = NewTLSFiles(s.Dir); err != nil {
				return err
			}
		}
		if s.ep.TLS, err = s.TLS.ClientConfig(); err != nil {
			return err
		}
	}
	if s.opts.Unix { // a socket's path is short by law, and a test's directory may be long
		dir, err := os.MkdirTemp("", "rt")
		if err != nil {
			return fmt.Errorf("redistest: %w", err)
		}
		s.t.Cleanup(func() { _ = os.RemoveAll(dir) })
		s.Socket = filepath.Join(dir, "s")
	}
	return nil
}

// choosePort picks a free port, free for a cluster's bus too, and writes the configuration for it. The port lies below
// those that systems give to outgoing connections, so that it is still free when the server is started again.
func (s *Server) choosePort() error {
	for range 200 {
		port := 10000 + rand.IntN(12000)
		if free(port) && free(port+10000) {
			s.Port, s.Addr = port, net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
			s.ep.Addrs = []string{s.Addr}
			return s.writeConfig()
		}
	}
	return fmt.Errorf("redistest: no free port on 127.0.0.1")
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}

func (s *Server) writeConfig() error {
	config := map[string]string{
		"port": strconv.Itoa(s.Port), "bind": "127.0.0.1", "dir": s.Dir, "logfile": filepath.Join(s.Dir, "server.log"),
		"daemonize": "no", "save": "", "appendonly": "no", "repl-diskless-sync-delay": "0",
	}
	if s.Version.AtLeast(7, 0) {
		config["enable-debug-command"] = "yes"
	}
	if s.opts.Password != "" {
		config["requirepass"] = s.opts.Password
		config["masterauth"] = s.opts.Password
	}
	if s.Socket != "" {
		config["unixsocket"] = s.Socket
	}
	if s.sentinel != nil { // which refuses whatever it does not need
		config = map[string]string{"port": config["port"], "bind": config["bind"], "dir": config["dir"], "logfile": config["logfile"]}
		if s.opts.Password != "" {
			config["requirepass"] = s.opts.Password
		}
	}
	if s.TLS != nil {
		config["port"], config["tls-port"] = "0", strconv.Itoa(s.Port)
		config["tls-ca-cert-file"] = s.TLS.CA
		config["tls-cert-file"], config["tls-key-file"] = s.TLS.ServerCert, s.TLS.ServerKey
		config["tls-auth-clients"] = "no"
		if s.opts.MutualTLS {
			config["tls-auth-clients"] = "yes"
		}
	}
	maps.Copy(config, s.opts.Config)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(config)) {
		value := config[name]
		if value == "" {
			value = `""`
		}
		fmt.Fprintf(&b, "%s %s\n", name, value)
	}
	for _, rule := range s.opts.Users {
		fmt.Fprintf(&b, "user %s\n", rule)
	}
	for _, line := range s.sentinel {
		fmt.Fprintln(&b, line)
	}
	file := filepath.Join(s.Dir, "server.conf")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("redistest: %w", err)
	}
	s.args = append([]string{file}, s.opts.Args...)
	return nil
}

// launch starts the process and waits until it answers as itself: another server may hold the port.
func (s *Server) launch() error {
	_ = os.Remove(filepath.Join(s.Dir, "server.log"))
	proc, err := startProcess(exec.Command(s.program, s.args...))
	if err != nil {
		return fmt.Errorf("redistest: start %s: %w", s.program, err)
	}
	s.mu.Lock()
	s.proc, s.frozen = proc, false
	s.mu.Unlock()
	s.Pid = proc.pid()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for err = s.answers(ctx); err != nil; err = s.answers(ctx) {
		select {
		case <-proc.ended:
			return fmt.Errorf("redistest: %s on %s ended (%w): %s", s.Version, s.Addr, proc.err, s.logTail())
		case <-ctx.Done():
			proc.kill()
			return fmt.Errorf("redistest: %s on %s does not answer after %s: %w: %s", s.Version, s.Addr, startTimeout, err, s.logTail())
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// answers opens the connection of Do, and fails until the server has loaded its data.
func (s *Server) answers(ctx context.Context) error {
	p, err := s.ep.pipe(ctx, s.Addr)
	if err != nil {
		return err
	}
	r, err := p.do(ctx, "INFO", "server")
	if err == nil {
		if pid := parseInfo(r.Text)["process_id"]; pid != strconv.Itoa(s.Pid) {
			err = fmt.Errorf("redistest: process %s answers on %s: address already in use", pid, s.Addr)
		} else {
			_, err = p.do(ctx, "PING") // refused while loading
		}
	}
	if err != nil {
		p.close()
		return err
	}
	s.ctl = p
	return nil
}

// logTail returns the end of the server's log, for messages.
func (s *Server) logTail() string {
	text, err := os.ReadFile(filepath.Join(s.Dir, "server.log"))
	if err != nil || len(text) == 0 {
		return "no log"
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], "\n")
}

func (s *Server) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

// Stop ends the server with SIGTERM, after a while with SIGKILL. It does nothing if the server has ended.
func (s *Server) Stop() {
	if p := s.process(); p != nil {
		p.stop(stopGrace)
	}
	s.hangUp()
}

// Kill ends the server with SIGKILL.
func (s *Server) Kill() {
	if p := s.process(); p != nil {
		p.kill()
	}
}

// Restart stops the server if it still runs, and starts it on the same port with the same configuration. Data is
// kept if the options say so ("save" or "appendonly" in Config).
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.launch(); err != nil {
		s.t.Fatalf("%v", err)
	}
}

// RestartAsReplica is Restart with a configuration that makes the server a replica of source.
func (s *Server) RestartAsReplica(source *Server) {
	s.t.Helper()
	s.configure(fmt.Sprintf("replicaof 127.0.0.1 %d", source.Port))
	s.Restart()
}

// Reconfigure changes settings of the configuration file, for the next Restart. Whatever else the file holds stays, also
// what the server itself has written there (CONFIG REWRITE): of two lines the later one counts.
func (s *Server) Reconfigure(config map[string]string) {
	s.t.Helper()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(config)) {
		fmt.Fprintf(&b, "%s %q\n", name, config[name])
	}
	s.configure(b.String())
}

// configure appends lines to the configuration file.
func (s *Server) configure(lines string) {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(s.Dir, "server.conf"), os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
	_, err = f.WriteString("\n" + lines + "\n")
	if err = errors.Join(err, f.Close()); err != nil {
		s.t.Fatalf("redistest: %v", err)
	}
}

// Freeze suspends the process: connections stay open and nothing answers.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw resumes a frozen process.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	s.mu.Lock()
	s.frozen = sig == syscall.SIGSTOP
	proc := s.proc
	s.mu.Unlock()
	if err := proc.signal(sig); err != nil {
		s.t.Fatalf("redistest: %s to %s: %v", sig, s.Addr, err)
	}
}

// responsive tells whether the server runs and is not frozen.
func (s *Server) responsive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.alive() && !s.frozen
}

func (s *Server) hangUp() {
	if s.ctl != nil {
		s.ctl.close()
		s.ctl = nil
	}
}

// Endpoint returns how to reach the server, as its default user.
func (s *Server) Endpoint() Endpoint { return s.ep }

// URL returns the address in the form of redis://[:password@]host:port, rediss:// with TLS.
func (s *Server) URL() string {
	u := url.URL{Scheme: "redis", Host: s.Addr}
	if s.TLS != nil {
		u.Scheme = "rediss"
	}
	if s.opts.Password != "" {
		u.User = url.UserPassword("", s.opts.Password)
	}
	return u.String()
}

// Dial opens a connection of the caller's own, authenticated as the default user. The caller closes it.
func (s *Server) Dial() *resp.Conn {
	s.t.Helper()
	conn, err := s.ep.connect(context.Background(), s.Addr)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return resp.NewConn(conn)
}

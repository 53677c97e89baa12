package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestOneShot: a user copies a server, and reads what happened.
func TestOneShot(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	fill(t, source, 20_000)
	summary := filepath.Join(t.TempDir(), "summary.json")
	p := start(t, between(source, target, "--until", "caught-up", "--summary-file", summary)...)
	p.exit(haul.ExitDone)
	equal(t, source.Endpoint(), target.Endpoint())
	b, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	var s struct {
		Exit  int
		Phase string
		Links []haul.LinkStatus
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Exit != 0 || s.Links[0].SnapshotKeys == 0 || s.Links[0].Applied < 0 {
		t.Errorf("%v: %s", err, b)
	}
	// every line of the log is JSON with a time in UTC, and the plan stands before the first byte of the snapshot
	plan, snapshot := -1, -1
	for i, line := range strings.Split(strings.TrimSpace(p.stderr()), "\n") {
		var e struct{ Time, Level, Message string }
		if err := json.Unmarshal([]byte(line), &e); err != nil || !strings.HasSuffix(e.Time, "Z") || e.Level == "" {
			t.Errorf("log line %q: %v", line, err)
		}
		if strings.HasPrefix(e.Message, "target ") {
			plan = i
		}
		if strings.Contains(e.Message, "sends its snapshot") {
			snapshot = i
		}
	}
	if plan < 0 || snapshot < plan {
		t.Errorf("plan in line %d, snapshot in line %d", plan, snapshot)
	}
	if p.stdout() != "" {
		t.Errorf("stdout: %q", p.stdout())
	}
}

// TestExitCodes: each documented end, and what it says to do.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	fill(t, source, 100)
	full := rt.Start(t, rt.Options{})
	full.MustDo("SET", "k", "v")
	small := rt.Start(t, rt.Options{Config: map[string]string{"databases": "4"}})
	many := rt.Start(t, rt.Options{})
	many.MustDo("SELECT", 9)
	many.MustDo("SET", "k", "v")
	replica := rt.Start(t, rt.Options{})
	replica.ReplicaOf(source)
	locked := rt.Start(t, rt.Options{Password: "right"})
	cluster := rt.Start(t, rt.Options{Config: map[string]string{"cluster-enabled": "yes"}})
	closed := "redis://" + closedPort(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("nonsense: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(yaml, []byte("sorce: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shot := []string{"--until", "caught-up", "--connect-deadline", "700ms"}
	with := func(source, target string, more ...string) []string {
		return append(append([]string{"--source", source, "--target", target}, shot...), more...)
	}
	for name, c := range map[string]struct {
		args []string
		code haul.Exit
		text string
	}{
		"unknown flag":          {with(source.URL(), target.URL(), "--nonsense"), 2, "--nonsense"},
		"no target":             {[]string{"--source", source.URL()}, 2, "--target"},
		"misspelt flag":         {with(source.URL(), target.URL(), "--exsting", "flush"), 2, "did you mean --existing?"},
		"unknown key":           {with(source.URL(), target.URL(), "--config", yaml), 2, "did you mean source?"},
		"bad file":              {with(source.URL(), target.URL(), "--config", file), 2, file},
		"bad value":             {with(source.URL(), target.URL(), "--existing", "maybe"), 2, "maybe"},
		"busy port":             {with(source.URL(), target.URL(), "--http", busy.Addr().String()), 2, "--http"},
		"state dir":             {with(source.URL(), target.URL(), "--state-dir", file), 2, "--state-dir"},
		"target holds keys":     {with(source.URL(), full.URL()), 3, "--existing flush"},
		"same server":           {with(source.URL(), source.URL(), "--existing", "replace"), 3, "one server"},
		"target is replica":     {with(source.URL(), replica.URL(), "--existing", "flush"), 3, "replicates"},
		"source is replica":     {with(replica.URL(), source.URL(), "--existing", "flush"), 3, "replicates"},
		"databases missing":     {with(many.URL(), small.URL()), 3, "databases"},
		"source without slots":  {with(cluster.URL(), target.URL()), 4, "only 0 of 16384 slots"},
		"source down":           {with(closed, target.URL()), 4, "source"},
		"target down":           {with(source.URL(), closed), 4, "target"},
		"source wrong password": {with(strings.Replace(locked.URL(), "right", "wr0ng", 1), target.URL()), 4, "WRONGPASS"},
		"target wrong password": {with(source.URL(), strings.Replace(locked.URL(), "right", "wr0ng", 1)), 4, "WRONGPASS"},
		"target no password":    {with(source.URL(), "redis://"+locked.Addr), 4, "NOAUTH"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, c.args...)
			p.exit(c.code, c.text)
			if c.code > haul.ExitUsage && !strings.Contains(p.stderr(), "What to do: ") {
				t.Error("no word of what to do")
			}
			if strings.Contains(p.stdout()+p.stderr(), "wr0ng") {
				t.Error("the password shows")
			}
		})
	}
	if n := target.MustDo("DBSIZE").Int; n != 0 {
		t.Errorf("%d keys were written by refused runs", n)
	}
	if n := full.MustDo("DBSIZE").Int; n != 1 {
		t.Errorf("the refused target has %d keys", n)
	}
}

// TestExitRefusedEntry: a command that the target refuses stops a one-shot, without its value.
func TestExitRefusedEntry(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	const value = "planted-value-4711"
	target.MustDo("SET", "list", "a string")
	p := start(t, between(source, target, "--existing", "replace", "--on-error", "stop")...)
	p.streaming()
	source.MustDo("RPUSH", "list", value)
	p.exit(haul.ExitFailed, "WRONGTYPE", "list", "What to do")
	if strings.Contains(p.stdout()+p.stderr(), value) {
		t.Error("the value shows")
	}
}

// TestOnErrorSkip: what is skipped is listed by key, never by value.
func TestOnErrorSkip(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	const value = "planted-value-4711"
	target.MustDo("SET", "list", "a string")
	p := start(t, between(source, target, "--existing", "replace", "--on-error", "skip")...)
	p.streaming()
	source.MustDo("RPUSH", "list", value)
	source.MustDo("SET", "after", "1")
	p.eventually("skipped", func(r report) bool { return r.Target.Counts["skipped"] == 1 && r.Links[0].LagBytes == 0 })
	b, err := os.ReadFile(filepath.Join(p.state, "default", "errors.log"))
	if err != nil || !strings.Contains(string(b), "RPUSH") || !strings.Contains(string(b), "list") {
		t.Errorf("%v: %s", err, b)
	}
	_, status := p.get("/api/v1/status")
	_, metrics := p.get("/metrics")
	if strings.Contains(p.stderr()+string(b)+status+metrics, value) {
		t.Error("the value shows")
	}
	if target.MustDo("GET", "after").Text != "1" {
		t.Error("the stream did not go on")
	}
}

// TestExisting: what becomes of keys that the target holds.
func TestExisting(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, rt.Options{})
	source.MustDo("SET", "both", "source")
	source.MustDo("RPUSH", "list", "source")
	source.MustDo("SET", "new", "source")
	for existing, want := range map[string]string{
		"replace": "source own source 1", "skip": "target own source 2", "flush": "source  source 1",
	} {
		target := rt.Start(t, rt.Options{})
		target.MustDo("SET", "both", "target")
		target.MustDo("SET", "own", "own")
		target.MustDo("RPUSH", "list", "a", "b")
		p := start(t, between(source, target, "--until", "snapshot", "--existing", existing)...)
		p.exit(haul.ExitDone)
		got := fmt.Sprint(target.Do("GET", "both").Text, " ", target.Do("GET", "own").Text, " ", target.Do("GET", "new").Text,
			" ", target.Do("LLEN", "list").Int)
		if got != want {
			t.Errorf("%s: %s, want %s", existing, got, want)
		}
	}
}

// TestDryRun prints the plan and writes nothing.
func TestDryRun(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	source.MustDo("SET", "k", "v")
	target.MustDo("SET", "own", "v")
	p := start(t, between(source, target, "--dry-run", "--existing", "flush")...)
	p.exit(haul.ExitDone)
	for _, text := range []string{source.Addr, target.Addr, "1 keys", "--existing flush", "until stopped"} {
		if !strings.Contains(p.stdout(), text) {
			t.Errorf("the plan has no %q:\n%s", text, p.stdout())
		}
	}
	if target.MustDo("DBSIZE").Int != 1 || target.MustDo("EXISTS", "own").Int != 1 {
		t.Error("something was written")
	}
	if n := source.Info("stats")["sync_full"]; n != "0" {
		t.Errorf("%s full syncs", n)
	}
}

// TestSignals: the first drains, the second does not wait.
func TestSignals(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	fill(t, source, 1000)
	t.Run("daemon", func(t *testing.T) {
		p := start(t, between(source, target)...)
		p.streaming()
		fill(t, source, 3000)
		at, err := strconv.ParseInt(source.Info("replication")["master_repl_offset"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		p.eventually("level", func(r report) bool { return r.Links[0].Applied >= at && r.Phase == haul.PhaseCaughtUp })
		p.signal(syscall.SIGTERM)
		p.exit(haul.ExitDone)
		equal(t, source.Endpoint(), target.Endpoint())
	})
	t.Run("before the goal", func(t *testing.T) {
		p := start(t, "--source", "redis://"+closedPort(t), "--target", target.URL(), "--until", "caught-up")
		p.eventually("waits", func(r report) bool { return len(r.Waiting) > 0 })
		p.signal(syscall.SIGINT)
		p.exit(haul.ExitInterrupted)
	})
	t.Run("daemon before its snapshot", func(t *testing.T) {
		p := start(t, "--source", "redis://"+closedPort(t), "--target", target.URL())
		p.eventually("waits", func(r report) bool { return len(r.Waiting) > 0 })
		p.signal(syscall.SIGTERM)
		p.exit(haul.ExitInterrupted)
	})
	t.Run("second", func(t *testing.T) {
		p := start(t, between(source, target, "--existing", "flush", "--drain-deadline", "1m")...)
		p.streaming()
		target.Freeze()
		defer target.Thaw()
		source.MustDo("SET", "k", "v")
		p.eventually("lag", func(r report) bool { return r.Links[0].Received > r.Links[0].Applied })
		p.signal(syscall.SIGTERM)
		select {
		case <-p.ended:
			t.Fatal("it did not drain")
		case <-time.After(500 * time.Millisecond):
		}
		p.signal(syscall.SIGTERM)
		began := time.Now()
		p.exit(haul.ExitInterrupted)
		if took := time.Since(began); took > 10*time.Second { // far less than it may drain
			t.Errorf("took %v", took)
		}
	})
}

// TestHistoryLost: exit 5, whatever the target does at that moment.
func TestHistoryLost(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	source.MustDo("SET", "k", "v")
	p := start(t, between(source, target)...)
	p.streaming()
	source.Kill()
	source.Restart()
	p.exit(haul.ExitHistoryLost, "--on-lost-history resync")
	if n := source.Info("stats")["sync_full"]; n != "0" {
		t.Errorf("the restarted source counts %s full syncs", n)
	}
}

// TestHeldAndStatus: a second process under the same name is refused; status finds the first.
func TestHeldAndStatus(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	p := start(t, between(source, target)...)
	p.streaming()
	p.eventually("ready", func(r report) bool { return r.Ready })
	second := start(t, between(source, target, "--existing", "replace", "--state-dir", p.state)...)
	second.exit(haul.ExitHeld, "--name")
	ask := func(code haul.Exit, args ...string) string {
		t.Helper()
		q := (&process{t: t, ended: make(chan struct{})}).run(nil, append([]string{"status"}, args...)...)
		q.exit(code)
		return q.stdout()
	}
	if text := ask(haul.ExitDone, "--state-dir", p.state); !strings.Contains(text, fmt.Sprintf("process %d", p.cmd.Process.Pid)) {
		t.Errorf("%s", text)
	}
	(&process{t: t, ended: make(chan struct{})}).run(nil, "status", "--state-dir", "none", "--http", "").exit(haul.ExitUnreachable, "no address of a keyhaul is known")
	if text := ask(haul.ExitDone, "--state-dir", p.state, "--json"); !json.Valid([]byte(text)) {
		t.Errorf("%s", text)
	}
	if code, body := p.get("/readyz"); code != 200 {
		t.Errorf("readyz: %d %s", code, body)
	}
	if _, body := p.get("/metrics"); !strings.Contains(body, "keyhaul_ready 1") {
		t.Errorf("%s", body)
	}
	p.signal(syscall.SIGTERM)
	p.exit(haul.ExitDone)
	ask(haul.ExitUnreachable, "--state-dir", p.state)
	if _, err := os.Stat(filepath.Join(p.state, "default", httpAddrFile)); !os.IsNotExist(err) {
		t.Errorf("the address is left behind: %v", err)
	}
	ask(haul.ExitUnreachable, "--state-dir", t.TempDir())
}

// TestMemoryOnly: without a state directory nothing is written to disk, and it works.
func TestMemoryOnly(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	fill(t, source, 20_000)
	p := start(t, between(source, target, "--state-dir", "none", "--until", "caught-up")...)
	p.exit(haul.ExitDone)
	equal(t, source.Endpoint(), target.Endpoint())
}

// TestDefaultPort: a busy default port is replaced, and said.
func TestDefaultPort(t *testing.T) {
	t.Parallel()
	if l, err := net.Listen("tcp", "127.0.0.1:9420"); err == nil {
		defer l.Close()
	}
	source, target := pair(t)
	p := &process{t: t, ended: make(chan struct{}), state: t.TempDir()}
	p.run(nil, append([]string{"sync", "--state-dir", p.state}, between(source, target)...)...)
	if strings.HasSuffix(p.address(), ":9420") {
		t.Errorf("%s", p.address())
	}
	p.streaming()
	if !strings.Contains(p.stderr(), "127.0.0.1:9420") {
		t.Errorf("no word of the usual port")
	}
}

// cpu is the processor time that a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skip(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] {
		var n time.Duration
		_, _ = fmt.Sscan(f, &n)
		ticks += n
	}
	return ticks * 10 * time.Millisecond
}

// TestStartsFirst: started before both ends, it waits, says why, hardly uses the processor, and goes on.
func TestStartsFirst(t *testing.T) {
	t.Parallel()
	source, target := pair(t)
	source.MustDo("CONFIG", "SET", "save", "3600 1000000")
	fill(t, source, 1000)
	source.MustDo("SAVE")
	source.Stop()
	target.Stop()
	p := start(t, between(source, target)...)
	p.eventually("waits", func(r report) bool { return len(r.Waiting) == 2 })
	for _, w := range p.status().Waiting {
		if w.Cause == "" || w.Remedy == "" || w.Since.IsZero() {
			t.Errorf("%+v", w)
		}
	}
	if code, _ := p.get("/healthz"); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if code, body := p.get("/readyz"); code != 503 || !strings.Contains(body, "waiting for") {
		t.Errorf("readyz: %d %s", code, body)
	}
	before := cpu(t, p.cmd.Process.Pid)
	time.Sleep(3 * time.Second) // the time that is measured
	if used := cpu(t, p.cmd.Process.Pid) - before; used > 90*time.Millisecond {
		t.Errorf("used %v of the processor in 3 s", used)
	}
	target.Restart()
	p.eventually("target is there", func(r report) bool { return len(r.Waiting) == 1 })
	source.Restart()
	p.streaming()
	equal(t, source.Endpoint(), target.Endpoint())
}

// TestLoading: a server that is loading is reached, and waited for beyond the deadline.
func TestLoading(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, rt.Options{Config: map[string]string{
		"save": "3600 1000000", "key-load-delay": "1000", "loading-process-events-interval-bytes": "1024",
	}})
	target := rt.Start(t, rt.Options{})
	fill(t, source, 2500)
	source.MustDo("SAVE")
	source.Stop()
	p := start(t, between(source, target, "--until", "caught-up", "--connect-deadline", "1s")...)
	restarted := make(chan struct{})
	go func() {
		defer close(restarted)
		source.Restart()
	}()
	p.eventually("loading", func(r report) bool {
		return len(r.Waiting) == 1 && strings.Contains(r.Waiting[0].Cause, "loading")
	})
	if code, body := p.get("/readyz"); code != 503 || !strings.Contains(body, "loading") {
		t.Errorf("readyz: %d %s", code, body)
	}
	<-restarted
	p.exit(haul.ExitDone)
	equal(t, source.Endpoint(), target.Endpoint())
}

// TestSecrets: no password in anything that keyhaul says, right or wrong.
func TestSecrets(t *testing.T) {
	t.Parallel()
	const right, wrong = "s3cr3t-r1ght", "s3cr3t-wr0ng"
	source := rt.Start(t, rt.Options{Password: right})
	target := rt.Start(t, rt.Options{Password: right})
	for _, password := range []string{right, wrong} {
		p := &process{t: t, ended: make(chan struct{}), state: t.TempDir()}
		p.run(
			[]string{"KEYHAUL_SOURCE_PASSWORD=" + password}, "sync", "--log-level", "trace", "--http", "127.0.0.1:0", "--state-dir", p.state,
			"--source", "redis://"+source.Addr, "--target", "redis://:"+password+"@"+target.Addr, "--existing", "flush",
		)
		if password == right {
			p.streaming()
			source.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			target.MustDo("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
			p.eventually("back", func(r report) bool { return r.Ready })
		} else {
			p.eventually("waits", func(r report) bool { return len(r.Waiting) == 2 })
		}
		said := ""
		for _, path := range []string{"/api/v1/status", "/metrics", "/readyz", "/healthz"} {
			_, body := p.get(path)
			said += body
		}
		_ = filepath.WalkDir(p.state, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				b, _ := os.ReadFile(path) //nolint:gosec // a folder of this test
				said += string(b)
			}
			return nil
		})
		p.signal(syscall.SIGTERM)
		<-p.ended
		if said += p.stdout() + p.stderr(); strings.Contains(said, "s3cr3t") {
			at := strings.Index(said, "s3cr3t")
			t.Errorf("the password shows: %q", said[max(0, at-200):at+20])
		}
	}
}

// TestTerminal: on a terminal there are a bar for the snapshot and a line for the stream.
func TestTerminal(t *testing.T) {
	t.Parallel()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("script of util-linux is missing")
	}
	source, target := pair(t)
	fill(t, source, 5000)
	line := fmt.Sprintf("stty cols 150 rows 40; exec %s sync --source %s --target %s --state-dir %s --http ''", program, source.URL(), target.URL(), t.TempDir())
	p := &process{t: t, ended: make(chan struct{})}
	p.cmd = exec.Command(script, "-qec", line, "/dev/null")
	p.cmd.Stdout, p.cmd.Stderr = lockedWriter{p, &p.out}, lockedWriter{p, &p.err}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Env = append(os.Environ(), "TERM=xterm", "COLUMNS=150", "LINES=40")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(5 * time.Second):
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
			<-p.ended
		}
	})
	rt.Eventually(t, patience, func() error {
		text := p.stdout()
		for _, want := range []string{"snapshot ", "done", "stream ", "commands/s", "lag "} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("no %q in %q", want, tail(text))
			}
		}
		return nil
	})
	if strings.Contains(p.stdout(), `{"level"`) {
		t.Error("JSON on a terminal")
	}
}

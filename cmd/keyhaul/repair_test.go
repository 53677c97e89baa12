package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// A repair is right if the target equals the source although faults were planted in keys that the load writes to all the
// time: a write that is lost, or applied twice, would show in the counts and lists among them.

// goesOn lets a haul go on where an entry meets a planted value of another type.
var goesOn = []string{"--on-error", "skip", "--max-skipped", "1000000000"}

// repairKinds are the kinds of keys of the load whose faults do not spread to other keys, but for those of counts on
// servers that replicate scripts as they are.
var repairKinds = []string{"count", "counted", "text", "hash", "zset", "bits", "range", "pf", "stream", "session"}

// loaded are keys of the load in some groups, the hot ones among them.
func (s *trial) loaded() (keys []haul.KeyName) {
	const groups = 25
	for db := range s.databases() {
		for group := range groups {
			for _, kind := range repairKinds {
				keys = append(keys, haul.KeyName{DB: int32(db), Name: fmt.Sprintf("hard:{%d}:%s", group, kind)})
			}
		}
	}
	return keys
}

// extra are keys that the source does not have.
func (s *trial) extra() (keys []haul.KeyName) {
	for i := range 20 * s.databases() {
		keys = append(keys, haul.KeyName{DB: int32(i % s.databases()), Name: "extra:" + strconv.Itoa(i)})
	}
	return keys
}

// onTarget sends commands that have a key to the node that has it.
func (s *trial) onTarget(do func(send func(k haul.KeyName, args ...string))) {
	s.t.Helper()
	conns, dbs := make(map[*rt.Server]*resp.Conn), make(map[*rt.Server]int32)
	defer func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}()
	owner := make(map[int]*rt.Server)
	do(func(k haul.KeyName, args ...string) {
		node := s.nodes[0]
		if s.whole != nil {
			slot := rt.Slot(k.Name)
			if owner[slot] == nil {
				owner[slot] = s.whole.NodeFor(slot)
			}
			node = owner[slot]
		}
		if conns[node] == nil {
			conns[node] = node.Dial()
		}
		if dbs[node] != k.DB {
			s.send(conns[node], "SELECT", strconv.Itoa(int(k.DB)))
			dbs[node] = k.DB
		}
		s.send(conns[node], args...)
	})
}

func (s *trial) send(c *resp.Conn, args ...string) {
	_, err := c.Do(context.Background(), patience, args...)
	if refused := (*resp.Error)(nil); err != nil && !errors.As(err, &refused) {
		s.t.Fatal(err)
	}
}

// alter changes a value of each kind without changing its type.
var alter = map[string][]string{
	"count": {"INCRBY", "", "1000000"}, "counted": {"RPUSH", "", "wrong"}, "text": {"APPEND", "", "wrong"}, "hash": {"HINCRBY", "", "n1", "7777"},
	"zset": {"ZINCRBY", "", "100", "m1"}, "bits": {"SETBIT", "", "1999", "1"}, "range": {"SETRANGE", "", "190", "wrong"},
	"pf": {"PFADD", "", "w", "r", "o", "n", "g"}, "stream": {"XADD", "", "*", "f", "wrong"}, "session": {"HINCRBY", "", "visits", "1000"},
}

// plant makes keys wrong on the target, in every way, and adds others.
func (s *trial) plant() {
	s.t.Helper()
	s.onTarget(func(send func(k haul.KeyName, args ...string)) {
		for _, k := range s.loaded() {
			switch rand.IntN(5) {
			case 0:
				send(k, "DEL", k.Name)
			case 1:
				send(k, "SET", k.Name, "wrong")
			case 2:
				send(k, "DEL", k.Name)
				send(k, "SADD", k.Name, "wrong", "type")
			case 3:
				send(k, "PEXPIRE", k.Name, "9000000")
			default:
				args := append([]string(nil), alter[k.Name[strings.LastIndexByte(k.Name, ':')+1:]]...)
				args[1] = k.Name
				send(k, args...)
			}
		}
		for _, k := range s.extra() {
			send(k, "RPUSH", k.Name, "extra")
		}
	})
}

// repairer returns what keyhaul verify would repair keys with.
func (s *trial) repairer() *repairer {
	s.t.Helper()
	cfg := s.config()
	r, err := newRepairer(context.Background(), cfg, zerolog.Nop())
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// config is the configuration of this haul.
func (s *trial) config() config {
	s.t.Helper()
	return mustLoad(s.t, append([]string{"--state-dir", s.state, "--log-level", "error"}, s.args...), nil)
}

// repair repairs all keys in which faults are planted, by the keyhaul that works.
func (s *trial) repair() {
	s.t.Helper()
	r := s.repairer()
	if r.remote == nil {
		s.t.Fatal("no keyhaul is found that works")
	}
	s.repairBy(r)
}

func (s *trial) repairBy(r *repairer) {
	s.t.Helper()
	keys := append(s.loaded(), s.extra()...)
	began := time.Now()
	written, pruned, err := r.Repair(context.Background(), keys, true)
	if err != nil || written+pruned != len(keys) || pruned < len(s.extra()) {
		s.t.Fatalf("%d written and %d deleted of %d: %v", written, pruned, len(keys), err)
	}
	s.t.Logf("%d keys repaired in %v", len(keys), time.Since(began).Round(time.Millisecond))
}

// streaming waits until a keyhaul has the copy on the target.
func (s *trial) streaming() {
	s.t.Helper()
	s.until(s.keyhaul, "streams", func(l haul.LinkStatus) bool { return l.SnapshotDone })
}

func TestRepairUnderLoad(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster, flags: goesOn})
		s.startLoad()
		s.start()
		s.streaming()
		for range 2 {
			s.plant()
			s.repair()
		}
		_, r, err := s.look(s.keyhaul)
		if want := int64(2 * len(s.loaded())); err != nil || r.Target.Counts["repaired_keys"] < want {
			t.Errorf("%d keys counted, want %d or more: %v", r.Target.Counts["repaired_keys"], want, err)
		}
		s.equal(1)
	})
}

// TestRepairBroken: keyhaul is killed and its connections are cut while keys are repaired.
func TestRepairBroken(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster, proxied: true, flags: goesOn})
		s.startLoad()
		s.start()
		s.streaming()
		s.plant()
		for i := range 2 * rounds() {
			stop := s.repairAlways()
			pause(200*time.Millisecond, 600*time.Millisecond)
			if i%2 == 0 {
				s.strike(func() { s.gates[rand.IntN(len(s.gates))].Orphan(100 * time.Millisecond) })
			} else {
				s.strike(s.kill)
				s.start()
			}
			s.moving(s.keyhaul)
			stop()
		}
		s.repair()
		s.equal(1)
	})
}

// repairAlways repairs keys again and again, whatever becomes of it, until the function that it returns is called.
func (s *trial) repairAlways() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	cfg, keys := s.config(), append(s.loaded(), s.extra()...)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			running, err := findRepairClient(ctx, cfg)
			if err == nil && running != nil {
				_, err = running.repair(ctx, keys[:min(len(keys), 300)], true)
			}
			if err != nil || running == nil {
				time.Sleep(10 * time.Millisecond)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// TestRepairStopped: a sync that is stopped is gone on with for as long as it takes.
func TestRepairStopped(t *testing.T) {
	t.Parallel()
	onEachTarget(t, func(t *testing.T, cluster bool) {
		t.Parallel()
		s := newTrial(t, setup{cluster: cluster, flags: goesOn})
		s.startLoad()
		s.start()
		s.streaming()
		s.keyhaul.signal(syscall.SIGTERM)
		s.keyhaul.exit(haul.ExitDone)
		s.plant()
		r := s.repairer()
		if r.remote != nil {
			t.Fatal("a keyhaul is found that does not run")
		}
		s.repairBy(r)
		other := s.config()
		other.StateDir = t.TempDir()
		held, err := newRepairer(context.Background(), other, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = held.Repair(context.Background(), s.extra(), false)
		if haul.ExitOf(err) != haul.ExitHeld || !strings.Contains(err.Error(), "127.0.0.1") {
			t.Errorf("a repair beside another one: %v", err)
		}
		if err := held.Close(); haul.ExitOf(err) != haul.ExitHeld {
			t.Errorf("that one ended with %v", err)
		}
		if err := r.Close(); err != nil {
			t.Errorf("the repair ended with %v", err)
		}
		s.start()
		s.equal(1)
	})
}

// TestRepairNoHaul: nothing is copied for a repair.
func TestRepairNoHaul(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{fill: 0.0001})
	r := s.repairer()
	_, _, err := r.Repair(context.Background(), s.extra(), true)
	if haul.ExitOf(err) != haul.ExitRefused || !strings.Contains(err.Error(), "no complete copy") {
		t.Errorf("a repair without a haul: %v", err)
	}
	_ = r.Close()
	if n := s.nodes[0].MustDo("DBSIZE").Int; n != 0 {
		t.Errorf("the target has %d keys", n)
	}
}

func TestRepairToken(t *testing.T) {
	t.Parallel()
	s := newTrial(t, setup{fill: 0.0001})
	s.start()
	s.streaming()
	file := filepath.Join(s.state, "default", httpTokenFile)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	token, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	good := "Bearer " + strings.TrimSpace(string(token))
	for _, c := range []struct {
		name, auth, body string
		code             int
	}{
		{"no token", "", `{"keys":[]}`, http.StatusUnauthorized},
		{"another token", "Bearer x", `{"keys":[]}`, http.StatusUnauthorized},
		{"another scheme", strings.Replace(good, "Bearer", "Basic", 1), `{"keys":[]}`, http.StatusUnauthorized},
		{"no request", good, `{"keys":7}`, http.StatusBadRequest},
		{"an unknown field", good, `{"key":"k"}`, http.StatusBadRequest},
		{"a key with two names", good, `{"keys":[{"key":"a","key_base64":"YQ=="}]}`, http.StatusBadRequest},
		{"a key without a name", good, `{"keys":[{"db":1}]}`, http.StatusBadRequest},
		{"too much", good, `{"keys":[{"key":"` + strings.Repeat("a", repairBody) + `"}]}`, http.StatusRequestEntityTooLarge},
		{"nothing", good, `{"keys":[]}`, http.StatusOK},
		{"reserved and missing", good, `{"keys":[{"key":"keyhaul:x"},{"key_base64":"/w=="}]}`, http.StatusOK},
	} {
		req, err := http.NewRequest(http.MethodPost, s.keyhaul.address()+repairPath, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", c.auth)
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if answer.StatusCode != c.code {
			t.Errorf("%s: %s, want %d: %s", c.name, answer.Status, c.code, text)
		}
	}
	s.keyhaul.signal(syscall.SIGTERM)
	s.keyhaul.exit(haul.ExitDone)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the token is left: %v", err)
	}
}

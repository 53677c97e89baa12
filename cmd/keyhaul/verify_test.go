package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/verify"
)

// verifier runs keyhaul verify beside p, with its state folder.
func verifier(t *testing.T, state string, args ...string) *process {
	t.Helper()
	p := &process{t: t, ended: make(chan struct{}), state: state}
	return p.run(nil, append([]string{"verify", "--state-dir", state}, args...)...)
}

// verified is what a report lists, by key.
func verified(t *testing.T, path string) map[string]verify.Kind {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := map[string]verify.Kind{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var line reportLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatal(err)
		}
		found[fmt.Sprintf("%d:%s", line.DB, *line.Key)] = line.Kind
	}
	return found
}

// same expects exactly these differences.
func same(t *testing.T, got, want map[string]verify.Kind) {
	t.Helper()
	for key, kind := range want {
		if got[key] != kind {
			t.Errorf("%s: %q, want %q", key, got[key], kind)
		}
	}
	for key, kind := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%s: %q, and nothing is planted there", key, kind)
		}
	}
}

// TestVerifyPlanted: under load, every planted fault is found, and none beside; with none planted, pass after pass finds
// none. In a long run, in a million keys.
func TestVerifyPlanted(t *testing.T) {
	t.Parallel()
	src, dst := pair(t)
	scale, faults, fields, clean, rate := 0.01, 10, 20_000, 2, 2000
	if rounds() >= longRounds {
		scale, faults, fields, clean, rate = 0.61, 100, 1_000_000, 10, 5000
	}
	if err := rt.FillMixed(t.Context(), src.Endpoint(), scale, 1); err != nil {
		t.Fatal(err)
	}
	for from := 0; from < fields; from += 1000 {
		args := []any{"HSET", "huge"}
		for i := range 1000 {
			args = append(args, fmt.Sprintf("field:%d", from+i), "a value of some bytes")
		}
		src.MustDo(args...)
	}
	p := start(t, between(src, dst)...)
	p.streaming()
	stop := loadBeside(t, src, rate)
	defer stop()
	report := filepath.Join(t.TempDir(), "report")
	args := between(src, dst, "--report", report, "--big-value-bytes", "512KiB")
	for range clean {
		verifier(t, p.state, args...).exit(haul.ExitDone)
	}
	want := plant(dst, faults)
	dst.MustDo("HSET", "huge", fmt.Sprintf("field:%d", fields-7), "planted")
	want["0:huge"] = verify.Value
	verifier(t, p.state, args...).exit(haul.ExitRefused, fmt.Sprintf("%d missing", faults))
	same(t, verified(t, report), want)
}

// loadBeside writes to a server until it is stopped.
func loadBeside(t *testing.T, src *rt.Server, rate int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = rt.Load{Endpoint: src.Endpoint(), Rate: rate}.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// plant makes so many keys of the target differ in each way, and a group.
func plant(dst *rt.Server, n int) map[string]verify.Kind {
	want := map[string]verify.Kind{}
	for i := range n {
		dst.MustDo("SET", fmt.Sprintf("string:%d", i), "planted", "KEEPTTL")
		want[fmt.Sprintf("0:string:%d", i)] = verify.Value
		dst.MustDo("HSET", fmt.Sprintf("hash:%d", i), "field3", "planted")
		want[fmt.Sprintf("0:hash:%d", i)] = verify.Value
		dst.MustDo("DEL", fmt.Sprintf("zset:%d", i))
		want[fmt.Sprintf("0:zset:%d", i)] = verify.Missing
		dst.MustDo("SET", fmt.Sprintf("planted:%d", i), "planted")
		want[fmt.Sprintf("0:planted:%d", i)] = verify.Extra
		dst.MustDo("DEL", fmt.Sprintf("list:%d", i))
		dst.MustDo("SET", fmt.Sprintf("list:%d", i), "planted")
		want[fmt.Sprintf("0:list:%d", i)] = verify.Type
		dst.MustDo("EXPIRE", fmt.Sprintf("set:%d", i), 5000)
		want[fmt.Sprintf("0:set:%d", i)] = verify.TTL
	}
	dst.MustDo("XGROUP", "DESTROY", "stream:3", "group")
	want["0:stream:3"] = verify.Group
	return want
}

// on plants on the node of the target that has the key.
func (s *shardsTrial) on(key string, args ...any) {
	s.t.Helper()
	if s.whole != nil {
		s.whole.MustDo(key, args...)
		return
	}
	s.nodes[0].MustDo(args...)
}

// TestVerifyShards: of a cluster under load, what is planted is found and nothing else, also while its slots move.
func TestVerifyShards(t *testing.T) {
	t.Parallel()
	for _, target := range []int{0, 2} {
		t.Run(fmt.Sprintf("to_%d", target), func(t *testing.T) {
			t.Parallel()
			s := newShardsTrial(t, rt.ClusterOptions{Primaries: 2}, target)
			s.begin()
			report := filepath.Join(t.TempDir(), "report")
			verifier(t, s.state, append(s.args, "--report", report)...).exit(haul.ExitDone)
			s.on("string:1", "SET", "string:1", "planted")
			s.on("zset:2", "DEL", "zset:2")
			s.on("planted", "SADD", "planted", "a")
			want := map[string]verify.Kind{"0:string:1": verify.Value, "0:zset:2": verify.Missing, "0:planted": verify.Extra}
			s.reshard(2)
			verifier(t, s.state, append(s.args, "--report", report)...).exit(haul.ExitRefused)
			same(t, verified(t, report), want)
		})
	}
}

// TestVerifyHot: a fault in a key that is written all the time is found, or the key is unsettled. Neither ends with 0.
func TestVerifyHot(t *testing.T) {
	t.Parallel()
	src, dst := pair(t)
	src.MustDo("SET", "hot", 1)
	p := start(t, between(src, dst)...)
	p.streaming()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			src.Do("INCR", "hot")
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	dst.MustDo("INCRBY", "hot", 1000)
	report := filepath.Join(t.TempDir(), "report")
	verifier(t, p.state, between(src, dst, "--report", report)...).exit(haul.ExitRefused)
	if kind := verified(t, report)["0:hot"]; kind != verify.Value && kind != verify.Unsettled {
		t.Errorf("the key is %q", kind)
	}
}

// TestVerifyStopped: what a stopped sync has not brought is behind, and what it has brought differs.
func TestVerifyStopped(t *testing.T) {
	t.Parallel()
	src, dst := pair(t)
	src.MustDo("SET", "key", 1)
	state := t.TempDir()
	once := between(src, dst, "--state-dir", state, "--until", "caught-up", "--db-map", "0=2,1=drop")
	start(t, once...).exit(haul.ExitDone)
	src.MustDo("SELECT", 0)
	report := filepath.Join(t.TempDir(), "report")
	args := between(src, dst, "--report", report, "--db-map", "0=2,1=drop")
	verifier(t, state, args...).exit(haul.ExitDone)
	verifier(t, state, between(src, dst)...).exit(haul.ExitRefused, "--db-map")
	src.MustDo("SET", "later", 1)
	verifier(t, state, args...).exit(haul.ExitRefused)
	same(t, verified(t, report), map[string]verify.Kind{"0:later": verify.Behind})
}

// TestVerifyResumes: a comparison that was killed is gone on with, and what it had found is not lost.
func TestVerifyResumes(t *testing.T) {
	t.Parallel()
	src, dst := pair(t)
	if err := rt.FillMixed(t.Context(), src.Endpoint(), 0.01, 1); err != nil {
		t.Fatal(err)
	}
	p := start(t, between(src, dst)...)
	p.streaming()
	p.eventually("caught up", func(r report) bool { return r.Ready })
	for i := range 200 {
		dst.MustDo("SET", fmt.Sprintf("string:%d", i), "planted")
	}
	found := filepath.Join(p.state, "default", "verify", "differences.jsonl")
	slow := verifier(t, p.state, between(src, dst, "--max-keys-per-second", "4000")...)
	rt.Eventually(t, 20*time.Second, func() error {
		b, err := os.ReadFile(filepath.Join(p.state, "default", "verify", "progress.json"))
		if err == nil && !strings.Contains(string(b), `"cursor":"0"`) {
			if b, err = os.ReadFile(found); err == nil && len(b) > 0 {
				return nil
			}
		}
		return fmt.Errorf("nothing is kept yet: %w", err)
	})
	slow.signal(syscall.SIGKILL)
	<-slow.ended
	report := filepath.Join(t.TempDir(), "report")
	next := verifier(t, p.state, between(src, dst, "--report", report)...)
	next.exit(haul.ExitRefused, "goes on where an interrupted comparison has ended")
	if n := len(verified(t, report)); n != 200 {
		t.Errorf("%d of 200 planted keys are found", n)
	}
	if _, err := os.Stat(found); err == nil {
		t.Error("what was kept for a later run is still there")
	}
}

// TestVerifyWatch: a watch shows what comes to differ, and that it is gone again.
func TestVerifyWatch(t *testing.T) {
	t.Parallel()
	src, dst := pair(t)
	if err := rt.FillMixed(t.Context(), src.Endpoint(), 0.001, 1); err != nil {
		t.Fatal(err)
	}
	p := start(t, between(src, dst)...)
	p.streaming()
	w := verifier(t, p.state, between(src, dst, "--watch", "--http", "127.0.0.1:0")...)
	shows := func(text string) {
		t.Helper()
		rt.Eventually(t, patience, func() error {
			if _, body := w.get("/metrics"); !strings.Contains(body, text) {
				return fmt.Errorf("no %q in metrics", text)
			}
			return nil
		})
	}
	shows(`keyhaul_verify_differences{kind="missing"} 0`)
	dst.MustDo("DEL", "string:1")
	shows(`keyhaul_verify_differences{kind="missing"} 1`)
	if _, body := w.get("/api/v1/status"); !strings.Contains(body, `"string:1"`) {
		t.Error("the status does not name the key: ", body)
	}
	src.MustDo("SET", "string:1", "anew")
	shows(`keyhaul_verify_differences{kind="missing"} 0`)
	w.signal(syscall.SIGTERM)
	w.exit(haul.ExitDone)
}

// TestVerifyPermissions: the user that docs/verify.md names may do all that is needed.
func TestVerifyPermissions(t *testing.T) {
	t.Parallel()
	src, dst := pair(t)
	doc, err := os.ReadFile("../../docs/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(doc), "ACL SETUSER verify ")
	line, _, _ = strings.Cut(line, "\n")
	for _, s := range []*rt.Server{src, dst} {
		args := []any{"ACL", "SETUSER", "verify"}
		for word := range strings.FieldsSeq(line) {
			args = append(args, word)
		}
		s.MustDo(append(args[:len(args):len(args)], ">secret")...)
		s.MustDo("SET", "key", 1)
		s.MustDo("HSET", "hash", "field", strings.Repeat("v", 3000))
		s.MustDo("XADD", "stream", "1-1", "field", strings.Repeat("v", 3000))
	}
	dst.MustDo("XADD", "stream", "1-2", "a", "b")
	report := filepath.Join(t.TempDir(), "report")
	login := []string{"--source-username", "verify", "--source-password", "secret", "--target-username", "verify", "--target-password", "secret"}
	args := append(between(src, dst, "--report", report, "--settle", "100ms", "--big-value-bytes", "1000"), login...)
	verifier(t, t.TempDir(), args...).exit(haul.ExitRefused)
	same(t, verified(t, report), map[string]verify.Kind{"0:stream": verify.Value})
}

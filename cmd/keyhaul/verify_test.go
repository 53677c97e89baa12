package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
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

// TestVerifyPlanted: under load every planted fault is found, and none beside.
func TestVerifyPlanted(t *testing.T) {
	src, dst := pair(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := rt.FillMixed(ctx, src.Endpoint(), 0.01, 1); err != nil {
		t.Fatal(err)
	}
	p := start(t, between(src, dst)...)
	p.streaming()
	loaded := make(chan error, 1)
	go func() {
		_, err := rt.Load{Endpoint: src.Endpoint(), Keys: 500, Rate: 2000}.Run(ctx)
		loaded <- err
	}()
	report := filepath.Join(t.TempDir(), "report")
	verifier(t, p.state, between(src, dst, "--report", report)...).exit(haul.ExitDone)

	want := map[string]verify.Kind{}
	for i := range 20 {
		dst.MustDo("SET", fmt.Sprintf("string:%d", i), "planted")
		want[fmt.Sprintf("0:string:%d", i)] = verify.Value
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
	dst.MustDo("HSET", "hash:7", "field3", "planted")
	want["0:hash:7"] = verify.Value
	verifier(t, p.state, between(src, dst, "--report", report)...).exit(haul.ExitRefused, "20 missing")
	same(t, verified(t, report), want)
	stop()
	<-loaded
	_ = time.Now
}

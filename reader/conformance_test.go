package reader

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/redistest"
)

// readers are all implementations of haul.Reader that follow a live source; each must keep the same contract.
var readers = []struct {
	name string
	open func(t testing.TB, url string, w *haul.Waits) haul.Reader
}{
	{"psync", func(t testing.TB, url string, w *haul.Waits) haul.Reader {
		return NewPSYNC(PSYNCConfig{
			Dialer: dialer(t, url), Dir: t.TempDir(), SpoolMax: 1 << 30, SpoolWindow: 1 << 20, Retain: time.Second,
			RetainBytes: 1 << 20, ReplyTimeout: 20 * time.Second, Checkpoint: &ledger{}, Waits: w, Log: zerolog.Nop(),
		})
	}},
	{"psync in memory", func(t testing.TB, url string, w *haul.Waits) haul.Reader {
		return NewPSYNC(PSYNCConfig{
			Dialer: dialer(t, url), SpoolMax: 64 << 20, ReplyTimeout: 20 * time.Second, Checkpoint: &ledger{}, Waits: w, Log: zerolog.Nop(),
		})
	}},
}

// open starts a reader of the table.
func open(t testing.TB, n int, url string, s *sink) *rig {
	r := &rig{t: t, waits: &haul.Waits{}, log: &syncBuffer{}, sink: s}
	r.start(readers[n].open(t, url, r.waits), 0)
	return r
}

// conform runs a test for every reader and every installed release.
func conform(t *testing.T, test func(t *testing.T, n int, release string)) {
	releases := redistest.Releases()
	if len(releases) == 0 {
		releases = []string{""}
	}
	for n, reader := range readers {
		for i, release := range releases {
			if n > 0 && i != len(releases)-1 {
				continue // the variants of one reader differ in nothing that a release decides
			}
			t.Run(reader.name+"/"+release, func(t *testing.T) {
				t.Parallel() // they wait most of the time
				test(t, n, release)
			})
		}
	}
}

// TestConformance: every key and every command once, in order, with exact offsets and databases.
func TestConformance(t *testing.T) {
	conform(t, func(t *testing.T, n int, release string) {
		source := redistest.Start(t, redistest.Options{Release: release})
		target := redistest.Start(t, redistest.Options{Release: release})
		const keys = 1200
		var want []string
		for i := range keys {
			db := i * 3 / keys * 5 // 0, 5, 10
			if i%(keys/3) == 0 {
				source.MustDo("SELECT", db)
			}
			source.MustDo("SET", fmt.Sprintf("key:%d", i), strings.Repeat("v", i))
			want = append(want, fmt.Sprintf("%d key:%d", db, i))
		}
		source.MustDo("SELECT", 0)
		source.MustDo("SET", "mortal", "x", "EX", 3600)
		want = append(want, "0 mortal")
		if source.Version.AtLeast(7, 0) {
			source.MustDo("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)")
		}
		s := &sink{copy: newCopier(target).copy}
		r := open(t, n, source.URL(), s)
		r.streaming()

		got := map[string]int{}
		functions := 0
		for _, x := range s.all(true) {
			if x.kind == haul.KindFunction {
				functions++
				continue
			}
			got[fmt.Sprintf("%d %s", x.db, x.name)]++
		}
		for _, k := range want {
			if got[k] != 1 {
				t.Errorf("key %s came %d times", k, got[k])
			}
		}
		if len(got) != len(want) || functions == 0 && source.Version.AtLeast(7, 0) {
			t.Errorf("%d keys and %d functions, want %d keys", len(got), functions, len(want))
		}

		c := source.Dial()
		defer c.Close()
		do := func(args ...string) {
			t.Helper()
			if _, err := c.Do(context.Background(), 5*time.Second, args...); err != nil {
				t.Fatal(err)
			}
		}
		var commands []string
		for i := range 600 {
			if i%100 == 0 {
				do("SELECT", fmt.Sprint(i/100%3))
			}
			db := i / 100 % 3
			switch i % 4 {
			case 0:
				do("INCR", "n")
				commands = append(commands, fmt.Sprintf("%d:INCR n", db))
			case 1:
				do("RPUSH", "l", fmt.Sprint(i))
				commands = append(commands, fmt.Sprintf("%d:RPUSH l %d", db, i))
			case 2:
				do("SET", "s", fmt.Sprint(i))
				commands = append(commands, fmt.Sprintf("%d:SET s %d", db, i))
			case 3:
				do("MULTI")
				do("INCR", "n")
				do("SADD", "set", fmt.Sprint(i))
				do("EXEC")
				commands = append(commands, fmt.Sprintf("%d:MULTI[INCR n; SADD set %d]", db, i))
			}
		}
		// databases within a transaction
		do("SELECT", "1")
		do("MULTI")
		do("SET", "a", "1")
		do("SELECT", "2")
		do("SET", "b", "2")
		do("EXEC")
		do("SET", "c", "3")
		commands = append(commands, "1:MULTI[SET a 1; 2:SET b 2]", "2:SET c 3")
		r.level(source)
		if got := s.commands(); strings.Join(got, "\n") != strings.Join(commands, "\n") {
			for i := range max(len(got), len(commands)) {
				if i >= len(got) || i >= len(commands) || got[i] != commands[i] {
					t.Fatalf("command %d of %d differs (want %d): %q", i, len(got), len(commands), got[max(0, i-2):min(len(got), i+3)])
				}
			}
		}
		equal(t, source, target)
		// what is no entry counts in the offset all the same
		before := len(s.all(false))
		source.MustDo("CONFIG", "SET", "repl-ping-replica-period", 1)
		at := r.reader.Status().Applied
		r.eventually("PING", func() error {
			if r.reader.Status().Applied == at {
				return errors.New("the offset stands still")
			}
			return nil
		})
		r.level(source)
		if after := len(s.all(false)); after != before {
			t.Errorf("%d entries came of PINGs: %v", after-before, s.commands()[before:])
		}
	})
}

// TestConformanceLoad: a mixed data set and live writers, all types of every release.
func TestConformanceLoad(t *testing.T) {
	conform(t, func(t *testing.T, n int, release string) {
		source := redistest.Start(t, redistest.Options{Release: release})
		target := redistest.Start(t, redistest.Options{Release: release})
		ctx := context.Background()
		if err := redistest.FillMixed(ctx, source.Endpoint(), 0.002, 1); err != nil {
			t.Fatal(err)
		}
		load, stop := context.WithTimeout(ctx, 1200*time.Millisecond)
		defer stop()
		loaded := make(chan redistest.LoadCounts, 1)
		go func() {
			c, _ := redistest.Load{Endpoint: source.Endpoint(), Rate: 3000, Seed: 7, Databases: 3}.Run(load)
			loaded <- c
		}()
		r := open(t, n, source.URL(), &sink{copy: newCopier(target).copy})
		if c := <-loaded; c.Errors > 0 || c.Units < 500 {
			t.Fatalf("load: %+v", c)
		}
		r.streaming()
		r.level(source)
		if err := r.sink.err(); err != nil {
			t.Fatal(err)
		}
		equal(t, source, target)
		if s := r.reader.Status(); s.LagBytes != 0 || s.Phase != haul.PhaseCaughtUp || s.FullSyncs != 1 || s.Reconnects != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestConformanceEnds: a reader returns within a second of its context, wherever it is, and leaves no goroutine.
func TestConformanceEnds(t *testing.T) {
	source := redistest.Start(t, redistest.Options{})
	fill(t, source, 20_000)
	proxy := redistest.NewProxy(t, source.Addr)
	stages := map[string]func(r *rig){
		"connecting": func(r *rig) { r.waiting("") },
		"silent": func(r *rig) {
			r.eventually("dialled", func() error {
				if proxy.Connections() == 0 {
					return errors.New("no connection")
				}
				return nil
			})
		},
		"snapshot, held": func(r *rig) {
			r.sink.hold(true)
			r.eventually("keys", func() error {
				if len(r.sink.all(true)) == 0 {
					return errors.New("no key")
				}
				return nil
			})
		},
		"stream": (*rig).streaming,
		"stream, held": func(r *rig) {
			r.streaming()
			r.sink.hold(true)
			source.MustDo("SET", "x", "y")
		},
		"stream, half-open": func(r *rig) {
			r.streaming()
			proxy.Blackhole()
			source.MustDo("SET", "x", "y")
		},
	}
	for n, reader := range readers {
		for name, stage := range stages {
			t.Run(reader.name+"/"+name, func(t *testing.T) {
				defer func() { proxy.Cut(); proxy.Resume(); proxy.Refuse(false) }()
				before := runtime.NumGoroutine()
				s := &sink{}
				if strings.HasPrefix(name, "snapshot") {
					s.held = true
				}
				switch name {
				case "connecting":
					proxy.Refuse(true)
				case "silent":
					proxy.Blackhole()
				}
				r := open(t, n, "redis://"+proxy.Addr(), s)
				stage(r)
				r.cancel() // a held sink keeps what it has; the reader must not wait for it
				select {
				case <-r.ended:
				case <-time.After(5 * time.Second):
					t.Errorf("it waits for its sink")
				}
				if !errors.Is(r.wait(10*time.Second), context.Canceled) {
					t.Errorf("returned %v", r.err)
				}
				proxy.Cut()
				redistest.Eventually(t, 20*time.Second, func() error {
					if now := runtime.NumGoroutine(); now > before {
						buf := make([]byte, 1<<20)
						return fmt.Errorf("%d goroutines, %d before\n%s", now, before, buf[:runtime.Stack(buf, true)])
					}
					return nil
				})
			})
		}
	}
}

// fill writes n keys.
func fill(t testing.TB, s *redistest.Server, n int) {
	t.Helper()
	if err := redistest.SmallWrites(context.Background(), s.Endpoint(), n); err != nil {
		t.Fatal(err)
	}
}

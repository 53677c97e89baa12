package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// watched is a connection that looks for one key.
type watched struct {
	conn *resp.Conn
	key  string
}

// dial connects to the node of an endpoint that has key.
func dial(e rt.Endpoint, key string) watched {
	for _, addr := range e.Addrs {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			continue
		}
		w := watched{resp.NewConn(c), key}
		if _, err := w.exists(); err == nil {
			return w
		}
		w.close()
	}
	return watched{}
}

func (w watched) exists() (bool, error) {
	r, err := w.conn.Do(context.Background(), 10*time.Second, "EXISTS", w.key)
	return r.Int == 1, err
}

func (w watched) close() { _ = w.conn.Close() }

// latency measures the delay from a write on the source to its being readable on the target, while 5,000 writes a
// second go on: a sampled write adds to a stream that a reader of the target waits for.
func latency(ctx context.Context, t rt.TB, o options) error {
	const rate, samples, seconds = 5000, 200, 10
	header("run", "samples", "median", "p99", "max")
	var medians, p99s []time.Duration
	for i := range o.runs {
		delays, err := latencyOnce(ctx, t, o, rate, samples, seconds)
		if err != nil {
			return err
		}
		slices.Sort(delays)
		at := func(q float64) time.Duration { return delays[int(q*float64(len(delays)-1))] }
		medians, p99s = append(medians, at(0.5)), append(p99s, at(0.99))
		row(i+1, len(delays), at(0.5).Round(time.Microsecond), at(0.99).Round(time.Microsecond), at(1).Round(time.Microsecond))
	}
	row("median", "", median(medians).Round(time.Microsecond), median(p99s).Round(time.Microsecond), "")
	return nil
}

func latencyOnce(ctx context.Context, t rt.TB, o options, rate, samples, seconds int) ([]time.Duration, error) {
	source, dst := start(t, o), start(t, o)
	defer source.Stop()
	defer dst.Stop()
	state := t.TempDir()
	cmd := command(t, o, "--source", source.URL(), "--target", dst.URL())
	cmd.Args = append(cmd.Args, "--state-dir", state)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	k := running{cmd.Process, state}
	rt.Eventually(t, 20*time.Second, k.following)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	loaded := make(chan error, 1)
	go func() {
		_, err := rt.Load{Endpoint: source.Endpoint(), Rate: rate, Seed: 1}.Run(ctx)
		loaded <- err
	}()
	writer, reader := source.Dial(), dst.Dial()
	defer writer.Close() //nolint:errcheck // bench
	defer reader.Close() //nolint:errcheck // bench
	var delays []time.Duration
	last := "0"
	pause := time.Duration(seconds) * time.Second / time.Duration(seconds*samples)
	for n := range seconds * samples {
		sent := make(chan time.Time, 1)
		go func() {
			time.Sleep(pause) // the reader waits by now
			at := time.Now()
			_, err := writer.Do(ctx, time.Second, "XADD", "samples", strconv.Itoa(n+1)+"-1", "n", "1")
			if err == nil {
				sent <- at
			}
			close(sent)
		}()
		r, err := reader.Do(ctx, 10*time.Second, "XREAD", "BLOCK", "5000", "STREAMS", "samples", last)
		at := time.Now()
		if err != nil {
			return nil, err
		}
		if len(r.Array) == 0 {
			return nil, fmt.Errorf("sample %d did not arrive within 5 s", n)
		}
		last = strconv.Itoa(n+1) + "-1"
		from, ok := <-sent
		if !ok {
			return nil, fmt.Errorf("sample %d was not written", n)
		}
		delays = append(delays, at.Sub(from))
	}
	cancel()
	<-loaded
	return delays, nil
}

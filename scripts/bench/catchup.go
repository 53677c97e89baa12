package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// running is a keyhaul that follows its source.
type running struct {
	cmd   process
	state string
}

type process interface {
	Signal(os.Signal) error
}

// catchUp compares how fast keyhaul catches up on writes that were made while it was stopped with the same bytes sent
// down one socket to a standalone server.
func catchUp(ctx context.Context, t rt.TB, o options, cluster bool) error {
	bytes := rt.SmallWriteBytes(o.writes)
	header("run", "blast", "keyhaul", "share of the blast", "CPU of keyhaul", "VmHWM of keyhaul")
	var refs, mine []float64
	var shares []float64
	var cpus []time.Duration
	var rss []int64
	for i := range o.runs {
		ref, err := blast(t, o, bytes)
		if err != nil {
			return err
		}
		took, u, err := catchUpOnce(ctx, t, o, cluster, o.verify && i == 0)
		if err != nil {
			return err
		}
		n := float64(o.writes)
		refs, mine = append(refs, n/ref.Seconds()), append(mine, n/took.Seconds())
		shares, cpus, rss = append(shares, ref.Seconds()/took.Seconds()), append(cpus, u.cpu), append(rss, u.rss)
		row(i+1, perSecond(refs[i]), perSecond(mine[i]), fmt.Sprintf("%.2f", shares[i]), ms(u.cpu), mb(u.rss))
	}
	row("median", perSecond(median(refs)), perSecond(median(mine)), fmt.Sprintf("%.2f", median(shares)), ms(median(cpus)), mb(median(rss)))
	return nil
}

func perSecond(n float64) string { return fmt.Sprintf("%.0f k/s", n/1000) }

// blast sends b to a fresh server and returns the time until its last reply.
func blast(t rt.TB, o options, b []byte) (time.Duration, error) {
	s := start(t, o)
	defer s.Stop()
	c, err := net.Dial("tcp", s.Addr)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // all replies were read
	const mark = "*2\r\n$4\r\nECHO\r\n$7\r\nthe-end\r\n"
	began := time.Now()
	failed := make(chan error, 1)
	go func() {
		_, err := c.Write(append(b[:len(b):len(b)], mark...))
		failed <- err
	}()
	r := bufio.NewReaderSize(c, 64<<10)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		if string(line) == "the-end\r\n" {
			break
		}
	}
	took := time.Since(began)
	return took, <-failed
}

// delivery compares how fast keyhaul catches up with and without fences, on writes of which half must not be repeated.
func delivery(ctx context.Context, t rt.TB, o options, cluster bool) error {
	o.load = rt.HalfWrites
	with, without := o, o
	with.delivery, without.delivery = "exactly-once", "at-least-once"
	return versus(ctx, t, [2]string{"at least once", "exactly once"}, without, with, cluster)
}

// replicas compares how fast keyhaul catches up with and without waiting for the one replica of each node, on the same
// writes.
func replicas(ctx context.Context, t rt.TB, o options) error {
	o.load, o.replicas = rt.HalfWrites, 1
	with, without := o, o
	with.wait = 1
	return versus(ctx, t, [2]string{"not waiting", "--wait-replicas 1"}, without, with, true)
}

// versus compares how fast keyhaul catches up in two ways.
func versus(ctx context.Context, t rt.TB, names [2]string, reference, measured options, cluster bool) error {
	header("run", names[0], names[1], "share", "CPU of keyhaul, "+names[1], "VmHWM, "+names[1])
	var refs, mine, shares []float64
	var cpus []time.Duration
	var rss []int64
	for i := range measured.runs {
		ref, _, err := catchUpOnce(ctx, t, reference, cluster, false)
		if err != nil {
			return err
		}
		took, u, err := catchUpOnce(ctx, t, measured, cluster, measured.verify && i == 0)
		if err != nil {
			return err
		}
		n := float64(measured.writes)
		refs, mine = append(refs, n/ref.Seconds()), append(mine, n/took.Seconds())
		shares, cpus, rss = append(shares, ref.Seconds()/took.Seconds()), append(cpus, u.cpu), append(rss, u.rss)
		row(i+1, perSecond(refs[i]), perSecond(mine[i]), fmt.Sprintf("%.2f", shares[i]), ms(u.cpu), mb(u.rss))
	}
	row("median", perSecond(median(refs)), perSecond(median(mine)), fmt.Sprintf("%.2f", median(shares)), ms(median(cpus)), mb(median(rss)))
	return nil
}

func catchUpOnce(ctx context.Context, t rt.TB, o options, cluster, verify bool) (time.Duration, usage, error) {
	source := start(t, o)
	defer source.Stop()
	dst := newTarget(t, o, cluster)
	defer dst.close()
	state := t.TempDir()
	cmd := command(t, o, "--source", source.URL(), "--target", dst.url)
	cmd.Args = append(cmd.Args, "--state-dir", state, "--delivery", o.delivery, "--expiry-mode", "target",
		"--wait-replicas", strconv.Itoa(o.wait))
	if err := cmd.Start(); err != nil {
		return 0, usage{}, err
	}
	memory := peak(cmd.Process.Pid)
	k := running{cmd.Process, state}
	rt.Eventually(t, 20*time.Second, k.following)
	if err := k.cmd.Signal(syscall.SIGSTOP); err != nil {
		return 0, usage{}, err
	}
	if err := o.load(ctx, source.Endpoint(), o.writes); err != nil {
		return 0, usage{}, err
	}
	source.MustDo("SET", "the-end", "1")
	end := dial(dst.end, "the-end")
	defer end.close()
	began := time.Now()
	if err := k.cmd.Signal(syscall.SIGCONT); err != nil {
		return 0, usage{}, err
	}
	for {
		found, err := end.exists()
		if err != nil {
			return 0, usage{}, err
		}
		if found {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	took := time.Since(began)
	if cluster { // other nodes may be behind the one with the mark
		rt.Eventually(t, 20*time.Second, k.caughtUp)
		took = time.Since(began)
	}
	if verify {
		rt.Eventually(t, 20*time.Second, k.caughtUp)
		if err := compare(ctx, source.Endpoint(), dst.end); err != nil {
			return 0, usage{}, err
		}
	}
	if err := k.cmd.Signal(syscall.SIGTERM); err != nil {
		return 0, usage{}, err
	}
	if err := cmd.Wait(); err != nil {
		return 0, usage{}, fmt.Errorf("keyhaul: %w", err)
	}
	return took, usage{cpu(cmd.ProcessState), memory()}, nil
}

// status is what these measurements read of keyhaul's own report.
type status struct {
	Links []struct {
		SnapshotDone bool  `json:"snapshot_done"`
		LagBytes     int64 `json:"lag_bytes"`
		Received     int64 `json:"received_offset"`
		Applied      int64 `json:"applied_offset"`
	} `json:"links"`
}

func (k running) status() (s status, err error) {
	addr, err := os.ReadFile(filepath.Join(k.state, "default", "http.addr"))
	if err != nil {
		return s, err
	}
	resp, err := http.Get("http://" + strings.TrimSpace(string(addr)) + "/api/v1/status")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

func (k running) following() error {
	s, err := k.status()
	if err == nil && (len(s.Links) == 0 || !s.Links[0].SnapshotDone) {
		err = fmt.Errorf("the snapshot is not done")
	}
	return err
}

func (k running) caughtUp() error {
	s, err := k.status()
	if err == nil && (s.Links[0].LagBytes > 0 || s.Links[0].Applied != s.Links[0].Received) {
		err = fmt.Errorf("it lags %d bytes", s.Links[0].LagBytes)
	}
	return err
}

// Command bench measures keyhaul from end to end against a reference in the same run: source, target and keyhaul on
// one machine. It prints each run and the medians, as Markdown.
//
//	go run ./scripts/bench -keyhaul bin/keyhaul [-only full,cluster,catchup,catchup-cluster,latency] [-runs 5] [-scale 1]
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

type options struct {
	keyhaul string
	release string
	runs    int
	scale   float64
	writes  int
	verify  bool

	delivery string
	replicas int // of each node of a target cluster
	wait     int // for so many of them
	load     func(ctx context.Context, ep rt.Endpoint, n int) error
}

func main() {
	o := options{load: rt.SmallWrites}
	only := flag.String("only", "full,cluster,catchup,catchup-cluster,delivery,delivery-cluster,replicas-cluster,latency", "what to measure")
	flag.StringVar(&o.keyhaul, "keyhaul", "bin/keyhaul", "the program to measure")
	flag.StringVar(&o.release, "release", "", "server release; empty: redis-server of the system")
	flag.IntVar(&o.runs, "runs", 5, "runs of each")
	flag.Float64Var(&o.scale, "scale", 1, "1 is 1.64 M keys")
	flag.IntVar(&o.writes, "writes", 1_000_000, "small writes to catch up on")
	flag.BoolVar(&o.verify, "verify", true, "compare every key after the first run of each")
	flag.StringVar(&o.delivery, "delivery", "exactly-once", "guarantee in the other measurements")
	flag.Parse()
	work := []struct {
		name string
		run  func(context.Context, rt.TB, options) error
	}{
		{"full", func(ctx context.Context, t rt.TB, o options) error { return fullSync(ctx, t, o, false) }},
		{"cluster", func(ctx context.Context, t rt.TB, o options) error { return fullSync(ctx, t, o, true) }},
		{"catchup", func(ctx context.Context, t rt.TB, o options) error { return catchUp(ctx, t, o, false) }},
		{"catchup-cluster", func(ctx context.Context, t rt.TB, o options) error { return catchUp(ctx, t, o, true) }},
		{"delivery", func(ctx context.Context, t rt.TB, o options) error { return delivery(ctx, t, o, false) }},
		{"delivery-cluster", func(ctx context.Context, t rt.TB, o options) error { return delivery(ctx, t, o, true) }},
		{"replicas-cluster", replicas},
		{"latency", latency},
		{"large", large},
	}
	fmt.Printf("%s, %d cores, %s, median of %d\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), o.runs)
	for _, w := range work {
		if !slices.Contains(strings.Split(*only, ","), w.name) {
			continue
		}
		fmt.Printf("\n### %s\n\n", w.name)
		err := rt.Run(func(format string, args ...any) {}, func(t rt.TB) {
			if err := w.run(context.Background(), t, o); err != nil {
				t.Fatalf("%v", err)
			}
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", w.name+":", err)
			os.Exit(1)
		}
	}
}

func start(t rt.TB, o options) *rt.Server { return rt.Start(t, rt.Options{Release: o.release}) }

// target is a fresh target of either kind.
type target struct {
	url   string
	end   rt.Endpoint
	pids  []int
	close func()
}

func newTarget(t rt.TB, o options, cluster bool) target {
	if !cluster {
		s := start(t, o)
		return target{s.URL(), s.Endpoint(), []int{s.Pid}, s.Stop}
	}
	c := rt.StartCluster(t, rt.ClusterOptions{Options: rt.Options{Release: o.release}, Primaries: 3, Replicas: o.replicas})
	var pids []int
	for _, n := range c.Nodes {
		pids = append(pids, n.Pid)
	}
	return target{"redis://" + c.Seeds()[0], c.Endpoint(), pids, func() {
		for _, n := range c.Nodes {
			n.Stop()
		}
	}}
}

// usage is what a keyhaul has used.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// peak follows the VmHWM of a process until it ends. Its rusage would not do: that counts the memory of whoever
// started it as well.
func peak(pid int) func() int64 {
	var high int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if n := highWater(pid); n > high {
				high = n
			}
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(done)
		<-ended
		return high
	}
}

func highWater(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kb); n == 1 {
			return kb * 1024
		}
	}
	return 0
}

func cpu(p *os.ProcessState) time.Duration { return p.UserTime() + p.SystemTime() }

func command(t rt.TB, o options, args ...string) *exec.Cmd {
	log, err := os.Create(filepath.Join(t.TempDir(), "keyhaul.log"))
	if err != nil {
		t.Fatalf("%v", err)
	}
	cmd := exec.Command(o.keyhaul, append([]string{
		"sync", "--state-dir", t.TempDir(), "--http", "127.0.0.1:0",
		"--buffer-max-bytes", "32MiB",
	}, args...)...)
	cmd.Stderr = log
	t.Cleanup(func() { _ = log.Close() })
	return cmd
}

// row prints one line of a table.
func row(cells ...any) {
	for _, c := range cells {
		fmt.Printf("| %v ", c)
	}
	fmt.Println("|")
}

func header(cells ...any) {
	row(cells...)
	for range cells {
		fmt.Print("|---")
	}
	fmt.Println("|")
}

func median[T int64 | float64 | time.Duration](v []T) T {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }

func mb(n int64) string { return fmt.Sprintf("%.0f MB", float64(n)/1e6) }

func compare(ctx context.Context, source, target rt.Endpoint) error {
	r, err := rt.Compare(ctx, source, target, rt.CompareOptions{})
	if err != nil {
		return err
	}
	fmt.Println("\ncompared:", r)
	if !r.Equal() {
		return fmt.Errorf("target differs from source")
	}
	return nil
}

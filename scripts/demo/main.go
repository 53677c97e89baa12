// Command demo shows a whole migration on this machine: a server under load is moved to a cluster while keyhaul itself
// is killed, again and again, and connections are cut. There is one full copy, keys that are spoiled on the target are found
// and repaired under load, and every key of both sides is compared at the end. It exits with 1 unless they are equal and keyhaul has done what it should.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
)

func main() {
	keyhaul := flag.String("keyhaul", "bin/keyhaul", "the keyhaul `program` to show")
	scale := flag.Float64("scale", 0.05, "`size` of the data set; 1 is 1.6 million keys")
	rate := flag.Int("rate", 4000, "live writes a `second`")
	flag.Parse()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	d := &demo{ctx: ctx, program: *keyhaul, scale: *scale, rate: *rate, began: time.Now()}
	if err := redistest.Run(nil, d.run); err != nil {
		fmt.Fprintf(os.Stderr, "\nThe demo has failed: %v\n", err)
		os.Exit(1)
	}
}

// demo is one run.
type demo struct {
	ctx     context.Context //nolint:containedctx // of the program
	program string
	scale   float64
	rate    int
	began   time.Time

	tb     redistest.TB
	source *redistest.Server
	target *redistest.Cluster
	link   *redistest.Proxy // between source and keyhaul
	state  string           // keyhaul's state directory

	written int64 // live writes that the source has confirmed
	sure    int64 // what keyhaul had applied at least when it was killed last
	kills   int
}

func (d *demo) run(tb redistest.TB) {
	d.tb = tb
	d.prepare()
	load := d.startLoad(1)
	p := d.first()
	for range 3 {
		p = d.killed(p)
	}
	p = d.moved(p)
	d.cutSource(p)
	d.cutTarget(p)
	d.spoil()
	d.stopLoad(load)
	d.proveFollowing(p)
	d.finish(p)
	d.prove()
}

// say prints a line of the story.
func (d *demo) say(format string, args ...any) {
	fmt.Printf("[%4.1f s] %s\n", time.Since(d.began).Seconds(), fmt.Sprintf(format, args...))
}

// title begins a part of the story.
func (d *demo) title(format string, args ...any) {
	fmt.Println()
	d.say(format, args...)
}

func (d *demo) check(err error, doing string) {
	d.tb.Helper()
	if err != nil {
		d.tb.Fatalf("%s: %w", doing, err)
	}
}

// await asks until done says yes, and fails the demo after limit with what done said last.
func (d *demo) await(limit time.Duration, done func() (yes bool, last string)) {
	d.tb.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		yes, last := done()
		if yes {
			return
		}
		if time.Now().After(end) {
			d.tb.Fatalf("after %v: %s", limit, last)
		}
	}
}

// load are live writers.
type load struct {
	stop func()
	done chan struct{}
	got  redistest.LoadCounts
	err  error
}

func (d *demo) startLoad(seed uint64) *load {
	ctx, cancel := context.WithCancel(d.ctx)
	l := &load{stop: cancel, done: make(chan struct{})}
	d.tb.Cleanup(func() {
		cancel()
		<-l.done
	})
	go func() {
		defer close(l.done)
		l.got, l.err = redistest.Load{Endpoint: d.source.Endpoint(), Mix: redistest.MixHard, Tagged: true, Rate: d.rate, Seed: seed}.Run(ctx)
	}()
	d.say("Writers send up to %d commands and transactions a second: INCR, RPUSH, LPOP, APPEND, SPOP, XADD, RENAME, EVAL, MULTI …", d.rate)
	d.say("Half of them would be wrong if they were applied twice.")
	return l
}

func (d *demo) stopLoad(l *load) {
	l.stop()
	<-l.done
	d.check(l.err, "live writes")
	if l.got.Errors > 0 || l.got.Disconnects > 0 {
		d.tb.Fatalf("live writes: %d errors, %d disconnects: %s", l.got.Errors, l.got.Disconnects, l.got.FirstError)
	}
	d.written += l.got.Units
	d.say("The writers have stopped: %d live writes, each confirmed by the source.", d.written)
}

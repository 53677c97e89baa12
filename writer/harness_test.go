package writer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// limit bounds everything that a test waits for.
const limit = 20 * time.Second

// rig is a writer that runs, and the channel that feeds it.
type rig struct {
	t      testing.TB
	w      haul.Writer
	ch     *haul.Channel
	waits  *haul.Waits
	log    *safeBuffer
	dialer *topology.Dialer
	cancel context.CancelCauseFunc
	ended  chan struct{}
	err    error // once ended is closed
	closed bool
	offset int64

	generation uint64 // of the positions
}

// safeBuffer collects a log.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newRig runs a writer to the server at addr. change may be nil.
func newRig(t testing.TB, addr string, change func(*Config)) *rig {
	t.Helper()
	return newRigAt(t, topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{addr}}, change)
}

func newRigAt(t testing.TB, ep topology.Endpoint, change func(*Config)) *rig {
	t.Helper()
	dialer := topology.NewDialer(ep)
	dialer.ClientName = "keyhaul-test"
	r := newRigFor(t, dialer, inspect(t, dialer), change)
	rt.Eventually(t, limit, func() error {
		if r.over() {
			return nil
		}
		if !r.w.Status().Ready {
			return errors.New("the writer is not ready")
		}
		return nil
	})
	return r
}

func newRigFor(t testing.TB, dialer *topology.Dialer, node topology.Node, change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, ch: haul.NewChannel(16 << 20), waits: &haul.Waits{}, log: &safeBuffer{}, ended: make(chan struct{}), dialer: dialer}
	cfg := Config{
		Dialer: dialer, Node: node, Existing: ExistingReplace, OnError: OnErrorStop, MaxSkipped: 100, SnapshotLanes: 2,
		ReplyTimeout: time.Minute, Keepalive: true, Waits: r.waits, Log: zerolog.New(r.log),
	}
	if change != nil {
		change(&cfg)
	}
	r.w = New(cfg)
	ctx, cancel := context.WithCancelCause(context.Background())
	r.cancel = cancel
	go func() {
		defer close(r.ended)
		r.err = r.w.Run(ctx, r.ch)
	}()
	t.Cleanup(func() {
		cancel(errors.New("the test is over"))
		select {
		case <-r.ended:
		case <-time.After(limit):
			t.Error("the writer does not end")
		}
		if t.Failed() {
			t.Logf("log of the writer:\n%s", r.log)
		}
	})
	return r
}

func inspect(t testing.TB, d *topology.Dialer) topology.Node {
	t.Helper()
	c, err := d.Open(context.Background(), d.Endpoint.Addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	node, err := topology.Inspect(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return node
}

func (r *rig) over() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// drained waits until everything that was sent is acknowledged.
func (r *rig) drained() {
	r.t.Helper()
	r.drainedIn(limit)
}

func (r *rig) drainedIn(limit time.Duration) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.ch.Watermark.Drain(ctx) }()
	select {
	case err := <-done:
		if err != nil {
			r.t.Fatalf("after %v entries are outstanding: %+v, waits %+v", limit, r.w.Status(), r.waits.List())
		}
	case <-r.ended:
		r.t.Fatalf("the writer has ended: %v", r.err)
	}
	if r.ch.Watermark.Stream().Offset > r.offset {
		r.t.Fatalf("the watermark is at %d, beyond the end at %d", r.ch.Watermark.Stream().Offset, r.offset)
	}
}

// finish closes the channel and returns what Run returns.
func (r *rig) finish() error {
	r.t.Helper()
	if !r.closed {
		r.closed = true
		r.ch.Close()
	}
	return r.end()
}

// end waits until Run returns.
func (r *rig) end() error {
	r.t.Helper()
	select {
	case <-r.ended:
		return r.err
	case <-time.After(limit):
		r.t.Fatalf("the writer does not end: %+v, waits %+v", r.w.Status(), r.waits.List())
		return nil
	}
}

// waitsFor waits until the writer shows that it waits for something whose cause holds text, and returns the remedy.
func (r *rig) waitsFor(text string) haul.Wait {
	r.t.Helper()
	var found haul.Wait
	rt.Eventually(r.t, limit, func() error {
		if r.over() {
			r.t.Fatalf("the writer has ended: %v", r.err)
		}
		for _, w := range r.waits.List() {
			if strings.Contains(w.Cause, text) {
				found = w
				return nil
			}
		}
		return fmt.Errorf("it does not wait for %q but for %+v", text, r.waits.List())
	})
	if found.Remedy == "" || found.Since.IsZero() {
		r.t.Errorf("the wait for %q has no remedy or no beginning: %+v", text, found)
	}
	return found
}

// waitsNoMore waits until nothing is shown to be waited for.
func (r *rig) waitsNoMore() {
	r.t.Helper()
	rt.Eventually(r.t, limit, func() error {
		if all := r.waits.List(); len(all) > 0 {
			return fmt.Errorf("it still waits for %+v", all)
		}
		return nil
	})
}

func (r *rig) counted(what string, n int64) {
	r.t.Helper()
	if got := r.w.Status().Counts[what]; got != n {
		r.t.Errorf("%s is %d, want %d", what, got, n)
	}
}

// batch fills one batch.
type batch struct {
	r *rig
	b *haul.Batch
}

func (r *rig) batch(snapshot bool) *batch {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	b, err := r.ch.New(ctx)
	if err != nil {
		r.t.Fatalf("no batch: %v", err)
	}
	b.Buf = b.Buf[:0]
	b.Snapshot = snapshot
	return &batch{r, b}
}

func (b *batch) span(p []byte) haul.Span {
	from := len(b.b.Buf)
	b.b.Buf = append(b.b.Buf, p...)
	return haul.Span{Off: uint32(from), Len: uint32(len(p))}
}

func (b *batch) command(db int, args []string) {
	c := haul.Command{Spec: command.Lookup([]byte(args[0])), DB: int32(db), Arg: uint32(len(b.b.Args)), NArg: uint32(len(args))}
	from := len(b.b.Buf)
	b.b.Buf = resp.AppendArray(b.b.Buf, len(args))
	for _, a := range args {
		b.b.Buf = resp.AppendBulkHeader(b.b.Buf, len(a))
		b.b.Args = append(b.b.Args, b.span([]byte(a)))
		b.b.Buf = append(b.b.Buf, "\r\n"...)
	}
	c.Raw = haul.Span{Off: uint32(from), Len: uint32(len(b.b.Buf) - from)}
	b.b.Commands = append(b.b.Commands, c)
}

func (b *batch) entry(e haul.Entry) *haul.Entry {
	e.Start, e.End = b.r.offset, b.r.offset+100
	e.Resume, e.After = e.End, e.DB
	b.r.offset += 100
	b.b.Entries = append(b.b.Entries, e)
	return &b.b.Entries[len(b.b.Entries)-1]
}

// do adds a command of the stream.
func (b *batch) do(db int, args ...string) *haul.Entry {
	e := haul.Entry{Kind: haul.KindCommand, DB: int32(db), First: uint32(len(b.b.Commands)), N: 1}
	b.command(db, args)
	return b.entry(e)
}

// words adds a command whose arguments hold no blanks.
func (b *batch) words(line string) *haul.Entry { return b.do(0, strings.Fields(line)...) }

// tx adds a transaction that begins in db; SELECT among its commands changes the database of the next ones.
func (b *batch) tx(db int, lines ...string) {
	e := haul.Entry{Kind: haul.KindTransaction, DB: int32(db), First: uint32(len(b.b.Commands))}
	for _, line := range lines {
		args := strings.Fields(line)
		if args[0] == "SELECT" {
			_, _ = fmt.Sscan(args[1], &db)
			continue
		}
		b.command(db, args)
		e.N++
	}
	b.entry(e)
}

// big adds a command that is read from elsewhere.
func (b *batch) big(from io.ReaderAt, off int64, size int64, args []haul.BigSpan, name string) {
	b.b.Commands = append(b.b.Commands, haul.Command{Spec: command.Lookup([]byte(name))})
	b.entry(haul.Entry{
		Kind: haul.KindCommand, First: uint32(len(b.b.Commands) - 1), N: 1,
		Big: &haul.Big{Bytes: from, Off: off, Len: size, Args: args},
	})
}

// key adds a key of the snapshot with a payload of DUMP.
func (b *batch) key(db int, name string, dump []byte, change func(*haul.Key)) *haul.Entry {
	k := haul.Key{Name: []byte(name), Type: dump[0], Footer: rdb.FooterVersion(dump[0], false, false)}
	k.Value = b.span(dump[1 : len(dump)-rdb.FooterSize])
	if change != nil {
		change(&k)
	}
	b.b.Keys = append(b.b.Keys, k)
	return b.entry(haul.Entry{Kind: haul.KindKey, DB: int32(db), First: uint32(len(b.b.Keys) - 1), N: 1})
}

// bigKey adds a key whose value is read from elsewhere.
func (b *batch) bigKey(name string, dump []byte, change func(*haul.Key)) {
	const lead = "what precedes the value in the spool"
	value := dump[1 : len(dump)-rdb.FooterSize]
	e := b.key(0, name, dump[:1+rdb.FooterSize], func(k *haul.Key) {
		k.Value = haul.Span{}
		if change != nil {
			change(k)
		}
	})
	e.Big = &haul.Big{Bytes: strings.NewReader(lead + string(value)), Off: int64(len(lead)), Len: int64(len(value))}
}

func (b *batch) function(code string) {
	b.b.Keys = append(b.b.Keys, haul.Key{Name: []byte(code)})
	b.entry(haul.Entry{Kind: haul.KindFunction, First: uint32(len(b.b.Keys) - 1), N: 1})
}

// send hands the batch to the writer.
func (b *batch) send() {
	b.r.t.Helper()
	b.b.End = haul.Position{Generation: b.r.generation, ReplID: "test", Offset: b.r.offset}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := b.r.ch.Send(ctx, b.b); err != nil {
		b.r.t.Fatalf("send: %v", err)
	}
}

// do sends commands of the stream, one batch for all.
func (r *rig) do(lines ...string) {
	r.t.Helper()
	b := r.batch(false)
	for _, line := range lines {
		b.words(line)
	}
	b.send()
}

// bigCommand returns the wire form of a command behind some other bytes, and where its arguments are in it.
func bigCommand(args ...string) (from io.ReaderAt, off, size int64, spans []haul.BigSpan) {
	lead := []byte("what precedes the command in the spool")
	wire := resp.AppendArray(nil, len(args))
	for _, a := range args {
		wire = resp.AppendBulkHeader(wire, len(a))
		spans = append(spans, haul.BigSpan{Off: int64(len(wire)), Len: int64(len(a))})
		wire = append(wire, a...)
		wire = append(wire, "\r\n"...)
	}
	return bytes.NewReader(append(lead, wire...)), int64(len(lead)), int64(len(wire)), spans
}

// want compares what commands answer on a server.
func want(t testing.TB, s *rt.Server, line, text string) {
	t.Helper()
	if got := answerOf(s.Do(args(line)...)); got != text {
		t.Errorf("%s on %s: %.200q, want %.200q", line, s.Addr, got, text)
	}
}

func args(line string) []any {
	var all []any
	for _, f := range strings.Fields(line) {
		all = append(all, f)
	}
	return all
}

// answerOf prints a reply.
func answerOf(r resp.Reply) string {
	switch {
	case r.Null:
		return "nil"
	case r.Kind == resp.KindInteger:
		return fmt.Sprint(r.Int)
	case r.Kind == resp.KindArray:
		var all []string
		for _, e := range r.Array {
			all = append(all, answerOf(e))
		}
		return strings.Join(all, " ")
	}
	return r.Text
}

// pairs returns "SET key:i i" lines and the like for i in [from, to).
func lines(format string, from, to int) []string {
	var all []string
	for i := from; i < to; i++ {
		all = append(all, strings.ReplaceAll(format, "#", fmt.Sprint(i)))
	}
	return all
}

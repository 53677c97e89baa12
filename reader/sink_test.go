package reader

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// TestMain lets more tests run at once than there are processors: most of the time they wait for servers.
func TestMain(m *testing.M) {
	flag.Parse()
	if n, err := strconv.Atoi(flag.Lookup("test.parallel").Value.String()); err == nil && n < 4 {
		_ = flag.Set("test.parallel", "4")
	}
	os.Exit(m.Run())
}

// seen is an entry as a sink has met it.
type seen struct {
	snapshot   bool
	kind       haul.Kind
	db         int32
	start, end int64
	name       string     // of a key
	commands   [][]string // of the stream
	dbs        []int32    // of these
	big        int64      // bytes that stayed in the spool
}

func (s seen) String() string {
	if s.snapshot && s.kind != haul.KindCommand {
		return fmt.Sprintf("key %s db %d", s.name, s.db)
	}
	return fmt.Sprintf("%.60q db %d [%d,%d)", s.commands, s.db, s.start, s.end)
}

// sink stands for a writer: it notes what comes, writes it to a target if it has one, and acknowledges it unless it is
// held.
type sink struct {
	in   *haul.Channel
	copy func(b *haul.Batch) error // to a target, before a batch is acknowledged
	lean bool                      // note nothing

	mu      sync.Mutex
	seen    []seen
	wrong   error
	last    haul.Position
	held    bool
	pending []*haul.Batch
	count   int64
	bytes   int64
}

func (s *sink) run() {
	for b := range s.in.Batches() {
		s.mu.Lock()
		if err := s.note(b); err != nil && s.wrong == nil {
			s.wrong = err
		}
		s.pending = append(s.pending, b)
		s.mu.Unlock()
		s.flush()
	}
}

// flush acknowledges what is pending, unless the sink is held.
func (s *sink) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.held && len(s.pending) > 0 {
		b := s.pending[0]
		s.pending = s.pending[1:]
		if s.copy != nil {
			if err := s.copy(b); err != nil && s.wrong == nil {
				s.wrong = err
			}
		}
		b.Done(len(b.Entries))
	}
}

func (s *sink) hold(on bool) {
	s.mu.Lock()
	s.held = on
	s.mu.Unlock()
	s.flush()
}

// note checks the contract of a batch and remembers its entries.
func (s *sink) note(b *haul.Batch) error {
	if !b.Snapshot {
		if b.End.Offset < s.last.Offset {
			return fmt.Errorf("batch ends at %v, the one before at %v", b.End, s.last)
		}
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		s.count++
		x := seen{snapshot: b.Snapshot, kind: e.Kind, db: e.DB, start: e.Start, end: e.End}
		if e.Big != nil {
			x.big = e.Big.Len
			s.bytes += e.Big.Len
		}
		switch {
		case e.Kind == haul.KindKey || e.Kind == haul.KindFunction:
			x.name = string(b.KeyOf(e).Name)
		case s.lean:
		default:
			for j := range b.CommandsOf(e) {
				x.commands = append(x.commands, argsOf(b, e, &b.CommandsOf(e)[j]))
				x.dbs = append(x.dbs, b.CommandsOf(e)[j].DB)
			}
		}
		if !b.Snapshot && (e.Resume < s.last.Offset || e.Resume > b.End.Offset || e.Resume > e.End) {
			return fmt.Errorf("%v: position goes back behind %v, batch ends at %v", x, s.last, b.End)
		}
		if !b.Snapshot {
			s.last.Offset = e.Resume
		}
		if b.Snapshot && e.DB != b.Entries[0].DB {
			return fmt.Errorf("%v: a batch of the snapshot has databases %d and %d", x, b.Entries[0].DB, e.DB)
		}
		if !s.lean {
			s.seen = append(s.seen, x)
		}
	}
	if !b.Snapshot {
		s.last = b.End
	}
	return nil
}

func argsOf(b *haul.Batch, e *haul.Entry, c *haul.Command) []string {
	var args []string
	if e.Big == nil {
		for i := range int(c.NArg) {
			args = append(args, string(b.Arg(c, i)))
		}
		return args
	}
	for _, a := range e.Big.Args {
		text, err := io.ReadAll(io.LimitReader(e.Big.Section(a), 64)) // enough to know it
		if err != nil {
			return append(args, err.Error())
		}
		args = append(args, string(text))
	}
	return args
}

// all returns what was seen so far, of the snapshot or of the stream.
func (s *sink) all(snapshot bool) []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []seen
	for _, x := range s.seen {
		if x.snapshot == snapshot {
			out = append(out, x)
		}
	}
	return out
}

func (s *sink) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wrong
}

// commands returns the commands of the stream in short form, "db:command", and transactions as "db:MULTI[a; db:b]",
// with the database of b where it is another one than that of a.
func (s *sink) commands() []string {
	var out []string
	for _, x := range s.all(false) {
		var parts []string
		db := x.dbs[0]
		for i, c := range x.commands {
			part := strings.Join(c, " ")
			if x.dbs[i] != db {
				db = x.dbs[i]
				part = fmt.Sprintf("%d:%s", db, part)
			}
			parts = append(parts, part)
		}
		text := strings.Join(parts, "; ")
		if x.kind == haul.KindTransaction {
			text = "MULTI[" + text + "]"
		}
		out = append(out, fmt.Sprintf("%d:%s", x.dbs[0], text))
	}
	return out
}

// rig is a reader that runs into a sink.
type rig struct {
	t      testing.TB
	reader haul.Reader
	psync  *PSYNC // if it is one
	sink   *sink
	ch     *haul.Channel
	waits  *haul.Waits
	log    *syncBuffer
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// plan says how a rig is set up; zero values are sensible.
type plan struct {
	url    string
	bound  int64
	sink   *sink
	dialer func(d *topology.Dialer)
	config func(c *PSYNCConfig)
	begin  func(r *rig) // before the reader runs
}

func dialer(t testing.TB, url string) *topology.Dialer {
	t.Helper()
	e, err := topology.Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	return topology.NewDialer(e)
}

// ledger is a Checkpoint that remembers what it was told.
type ledger struct {
	flush   func()
	cleans  []Clean
	streams int
	keys    int
}

func (l *ledger) Begin(_ context.Context, _ haul.Position, c Clean, _ []time.Time) error {
	l.cleans = append(l.cleans, c)
	if c == CleanFlush && l.flush != nil {
		l.flush()
	}
	return nil
}

func (l *ledger) Seen(int32, []byte) error {
	l.keys++
	return nil
}

func (l *ledger) Streaming(context.Context, haul.Position) error {
	l.streams++
	return nil
}

// run starts a PSYNC reader. It is stopped when the test ends, and must be gone within a second then.
func run(t testing.TB, p plan) *rig {
	t.Helper()
	r := &rig{t: t, waits: &haul.Waits{}, log: &syncBuffer{}, sink: p.sink}
	d := dialer(t, p.url)
	if p.dialer != nil {
		p.dialer(d)
	}
	cfg := PSYNCConfig{
		Dialer: d, Dir: t.TempDir(), SpoolMax: 4 << 30, SpoolWindow: 4 << 20, Retain: time.Minute, RetainBytes: 1 << 30,
		ReplyTimeout: 20 * time.Second, RepeatSnapshot: RepeatFlush, Checkpoint: &ledger{}, Waits: r.waits,
		Log: zerolog.New(r.log),
	}
	if p.config != nil {
		p.config(&cfg)
	}
	r.psync = NewPSYNC(cfg)
	if p.begin != nil {
		p.begin(r)
	}
	r.start(r.psync, p.bound)
	return r
}

func (r *rig) start(reader haul.Reader, bound int64) {
	if bound == 0 {
		bound = 8 << 20
	}
	r.reader, r.ch = reader, haul.NewChannel(bound)
	if r.sink == nil {
		r.sink = &sink{}
	}
	r.sink.in = r.ch
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan struct{})
	var sinking sync.WaitGroup
	sinking.Go(r.sink.run)
	go func() {
		defer close(r.ended)
		r.err = reader.Run(ctx, r.ch)
		r.ch.Close()
		sinking.Wait()
	}()
	r.t.Cleanup(r.stop)
}

// stop ends the reader, which must be gone soon.
func (r *rig) stop() {
	r.cancel()
	select {
	case <-r.ended:
	case <-time.After(2 * time.Second):
		r.t.Errorf("the reader has not returned 2 s after its context ended")
		<-r.ended
	}
	if err := r.sink.err(); err != nil {
		r.t.Errorf("contract: %v", err)
	}
	if r.t.Failed() {
		r.t.Logf("status: %+v\nlog:\n%s", r.reader.Status(), r.log)
	}
}

// wait returns the error that the reader ended with by itself.
func (r *rig) wait(limit time.Duration) error {
	r.t.Helper()
	select {
	case <-r.ended:
		return r.err
	case <-time.After(limit):
		r.t.Fatalf("the reader still runs after %v; waits: %+v", limit, r.waits.List())
		return nil
	}
}

// exit expects the reader to end with this code and a text.
func (r *rig) exit(code haul.Exit, texts ...string) {
	r.t.Helper()
	err := r.wait(20 * time.Second)
	if haul.ExitOf(err) != code {
		r.t.Fatalf("exit %d (%v), want %d", haul.ExitOf(err), err, code)
	}
	whole := fmt.Sprint(err)
	var e *haul.Error
	if errors.As(err, &e) {
		whole += " -> " + e.Remedy
	}
	for _, text := range texts {
		if !strings.Contains(whole, text) {
			r.t.Errorf("%q does not say %q", whole, text)
		}
	}
}

func (r *rig) eventually(what string, check func() error) {
	r.t.Helper()
	redistest.Eventually(r.t, 20*time.Second, func() error {
		if err := check(); err != nil {
			return fmt.Errorf("%s: %w; status %+v; waits %+v", what, err, r.reader.Status(), r.waits.List())
		}
		return nil
	})
}

// streaming waits until the snapshot is on the target.
func (r *rig) streaming() {
	r.t.Helper()
	r.eventually("streaming", func() error {
		select {
		case <-r.ended:
			r.t.Fatalf("the reader has ended: %v", r.err)
		default:
		}
		if !r.reader.Status().SnapshotDone {
			return errors.New("not yet")
		}
		return nil
	})
}

// level waits until the applied offset is exactly that of the source.
func (r *rig) level(source *redistest.Server) {
	r.t.Helper()
	r.eventually("level", func() error {
		want := source.Info("replication")["master_repl_offset"]
		if got := strconv.FormatInt(r.reader.Status().Applied, 10); got != want {
			return fmt.Errorf("applied %s, the source is at %s", got, want)
		}
		return nil
	})
}

// waiting waits until something with this text is waited for.
func (r *rig) waiting(text string) {
	r.t.Helper()
	r.eventually("waiting", func() error {
		for _, w := range r.waits.List() {
			if strings.Contains(w.Cause, text) && w.Remedy != "" {
				return nil
			}
		}
		return fmt.Errorf("nothing with %q", text)
	})
}

// copier writes batches to a server, so that the two ends can be compared.
type copier struct {
	conn *resp.Conn
	db   int32
	out  []byte
	n    int
}

func newCopier(target *redistest.Server) *copier { return &copier{conn: target.Dial()} }

func (c *copier) add(args ...string) {
	c.out = resp.AppendCommand(c.out, args...)
	c.n++
}

func (c *copier) selectDB(db int32) {
	if db != c.db {
		c.db = db
		c.add("SELECT", strconv.Itoa(int(db)))
	}
}

func (c *copier) copy(b *haul.Batch) error {
	c.out, c.n = c.out[:0], 0
	for i := range b.Entries {
		e := &b.Entries[i]
		c.selectDB(e.DB)
		switch e.Kind {
		case haul.KindKey:
			c.key(b, e)
		case haul.KindFunction:
			c.add("FUNCTION", "LOAD", "REPLACE", string(b.KeyOf(e).Name))
		case haul.KindTransaction:
			c.add("MULTI")
			c.commands(b, e)
			c.add("EXEC")
		default:
			c.commands(b, e)
		}
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return err
	}
	for range c.n {
		r, err := c.conn.ReadReply()
		if err == nil {
			err = r.Err()
		}
		if err != nil {
			return fmt.Errorf("target: %w", err)
		}
	}
	return nil
}

func (c *copier) commands(b *haul.Batch, e *haul.Entry) {
	for i := range b.CommandsOf(e) {
		x := &b.CommandsOf(e)[i]
		c.selectDB(x.DB)
		if e.Big == nil {
			c.out = append(c.out, b.Bytes(x.Raw)...)
		} else {
			raw, _ := io.ReadAll(e.Big.Section(haul.BigSpan{Len: e.Big.Len}))
			c.out = append(c.out, raw...)
		}
		c.n++
	}
}

func (c *copier) key(b *haul.Batch, e *haul.Entry) {
	k := b.KeyOf(e)
	payload := append([]byte(nil), b.Bytes(k.Prefix)...)
	payload = append(payload, k.Type)
	if e.Big == nil {
		payload = append(payload, b.Bytes(k.Value)...)
	} else {
		raw, _ := io.ReadAll(e.Big.Section(haul.BigSpan{Len: e.Big.Len}))
		payload = append(payload, raw...)
	}
	payload = rdb.AppendFooter(payload, k.Footer, rdb.CRC64(0, payload))
	ttl := "0"
	if k.Has&haul.HasExpire != 0 {
		ttl = strconv.FormatInt(k.ExpireAt, 10)
	}
	c.add("RESTORE", string(k.Name), ttl, string(payload), "REPLACE", "ABSTTL")
}

// equal expects two servers to hold the same.
func equal(t testing.TB, source, target *redistest.Server) {
	t.Helper()
	r, err := redistest.Compare(context.Background(), source.Endpoint(), target.Endpoint(), redistest.CompareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Equal() {
		t.Fatalf("source and target differ:\n%s", r)
	}
}

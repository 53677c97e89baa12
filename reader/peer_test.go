package reader

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/rdb"
)

// front stands before a peer: connections that only ask INFO are answered here, so that scripts are those of the link.
type front struct {
	listener net.Listener
	peer     *rt.Peer
	info     atomic.Value // string: what INFO says
	links    atomic.Int64 // connections that asked for PSYNC
	script   int64        // so many of them go to the peer; negative: all
	answer   string       // for the others, which are hung up on
	keep     bool         // or not
	wg       sync.WaitGroup
}

const (
	id1 = "1111111111111111111111111111111111111111"
	id2 = "2222222222222222222222222222222222222222"
)

func infoText(id, id2 string, second, offset, first, length int64) string {
	return fmt.Sprintf("# Server\r\nredis_version:7.0.15\r\nrole:master\r\nmaster_replid:%s\r\nmaster_replid2:%s\r\n"+
		"master_repl_offset:%d\r\nsecond_repl_offset:%d\r\nrepl_backlog_active:1\r\nrepl_backlog_size:1048576\r\n"+
		"repl_backlog_first_byte_offset:%d\r\nrepl_backlog_histlen:%d\r\n", id, id2, offset, second, first, length)
}

func newFront(t *testing.T, scripts ...rt.Script) *front {
	t.Helper()
	return newFrontWith(t, func(*front) {}, scripts...)
}

func newFrontWith(t *testing.T, change func(*front), scripts ...rt.Script) *front {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &front{listener: l, peer: rt.NewPeer(t, scripts...), script: -1}
	f.info.Store(infoText(id1, strings.Repeat("0", 40), -1, 100, 1, 1<<20))
	change(f)
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.wg.Wait()
	})
	return f
}

func (f *front) url() string { return "redis://" + f.listener.Addr().String() }

// serve answers PING, INFO and REPLCONF capa itself; at PSYNC it hands the connection to the peer.
func (f *front) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		args, err := readCommand(r)
		if err != nil {
			return
		}
		var answer string
		switch strings.ToUpper(args[0]) {
		case "PING":
			answer = "+PONG\r\n"
		case "INFO":
			text := f.info.Load().(string)
			answer = fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
		case "REPLCONF":
			answer = "+OK\r\n"
		case "PSYNC":
			if n := f.links.Add(1); f.script >= 0 && n > f.script {
				_, _ = io.WriteString(c, f.answer)
				if f.keep {
					_, _ = io.Copy(io.Discard, r)
				}
				return
			}
			f.link(c, r, args)
			return
		default:
			answer = "-ERR unknown command\r\n"
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return
		}
	}
}

func (f *front) link(c net.Conn, r *bufio.Reader, psync []string) {
	up, err := net.Dial("tcp", f.peer.Addr())
	if err != nil {
		return
	}
	defer up.Close()
	_, _ = up.Write(resp.AppendCommand(nil, psync...))
	var pumps sync.WaitGroup
	pumps.Go(func() { _, _ = io.Copy(up, r); _ = up.Close() })
	pumps.Go(func() { _, _ = io.Copy(c, up); _ = c.Close() })
	pumps.Wait()
}

func readCommand(r *bufio.Reader) ([]string, error) {
	var n int
	if _, err := fmt.Fscanf(r, "*%d\r\n", &n); err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		var size int
		if _, err := fmt.Fscanf(r, "$%d\r\n", &size); err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:size])
	}
	return args, nil
}

// image is a snapshot with one key, a string of these bytes.
func image(value string) string {
	b := []byte("REDIS0009\xfa\x0erepl-stream-db\x012\xfe\x00\x00\x01k")
	b = binary.BigEndian.AppendUint32(append(b, 0x80), uint32(len(value)))
	b = append(b, value...)
	b = append(b, 0xff)
	sum := rdb.CRC64(0, b)
	for i := range 8 {
		b = append(b, byte(sum>>(8*i)))
	}
	return string(b)
}

func sized(value string) string {
	b := image(value)
	return fmt.Sprintf("$%d\r\n%s", len(b), b)
}

var (
	acks       = rt.Ignore("REPLCONF", "ACK", rt.Any)
	full       = rt.Expect("PSYNC", "?", "-1")
	fullresync = rt.Send("+FULLRESYNC " + id1 + " 100\r\n")
)

func fast(c *PSYNCConfig) { c.ReplyTimeout = 5 * time.Second }

// TestPeerRefuses: answers to PSYNC that are no full sync, and what follows from them.
func TestPeerRefuses(t *testing.T) {
	t.Run("later", func(t *testing.T) {
		f := newFront(
			t,
			rt.Script{full, rt.Reply("-NOMASTERLINK Can't SYNC while not connected with my master"), rt.ExpectEOF()},
			rt.Script{full, rt.Reply("-LOADING Redis is loading the dataset in memory"), rt.ExpectEOF()},
			rt.Script{full, rt.Reply("-MASTERDOWN Link with MASTER is down"), rt.ExpectEOF()},
			rt.Script{full, rt.Send("\n\n"), rt.Send("\n"), fullresync, rt.Send("\n\n\n"), rt.Send(sized("v"))},
		)
		r := run(t, plan{url: f.url(), config: fast})
		r.waiting("NOMASTERLINK")
		r.waiting("LOADING")
		r.streaming()
		if s := r.reader.Status(); s.Received != 100 || s.FullSyncs != 1 || s.DB != 2 {
			t.Errorf("%+v", s)
		}
		if w := r.waits.List(); len(w) != 0 {
			t.Errorf("still waits: %+v", w)
		}
	})
	for name, c := range map[string]struct {
		answer string
		code   haul.Exit
		text   string
	}{
		"unknown command": {"-ERR unknown command 'PSYNC'", haul.ExitRefused, "+psync"},
		"forbidden":       {"-ERR Permission to use PSYNC denied by the provider", haul.ExitRefused, "managed services"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, rt.Script{full, rt.Reply(c.answer), rt.ExpectEOF()})
			r := run(t, plan{url: f.url(), config: fast})
			r.exit(c.code, c.text)
		})
	}
	t.Run("no permission", func(t *testing.T) {
		f := newFrontWith(t, func(f *front) {
			f.script, f.answer = 0, "-NOPERM User default has no permissions to run the 'psync' command\r\n"
		})
		r := run(t, plan{url: f.url(), config: func(c *PSYNCConfig) { c.Patience = 300 * time.Millisecond }})
		r.waiting("NOPERM")
		r.exit(haul.ExitUnreachable, "NOPERM", "+psync")
	})
	for name, answer := range map[string]string{
		"garbage":       "+FULLRESYNC garbage\r\n",
		"short id":      "+FULLRESYNC 1234 100\r\n",
		"no offset":     "+FULLRESYNC " + id1 + " x\r\n",
		"negative":      "+FULLRESYNC " + id1 + " -5\r\n",
		"blank":         "   \r\n",
		"another world": "HTTP/1.1 400 Bad Request\r\n",
		"endless":       strings.Repeat("+", 64<<10),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, rt.Script{full, rt.Send(answer), rt.ExpectEOF()})
			r := run(t, plan{url: f.url(), config: fast})
			r.waiting("PSYNC: ")
			if s := r.reader.Status(); s.Phase != haul.PhaseConnecting || s.FullSyncs != 0 {
				t.Errorf("%+v", s)
			}
			f.peer.Wait()
		})
	}
}

// TestPeerPayload: what may go wrong between +FULLRESYNC and the end of the snapshot.
func TestPeerPayload(t *testing.T) {
	t.Run("error instead", func(t *testing.T) {
		f := newFront(
			t,
			rt.Script{full, fullresync, rt.Send("\n"), rt.Reply("-BGSAVE failed, replication can't continue"), rt.ExpectEOF()},
			rt.Script{full, fullresync, rt.Send(sized("v"))},
		)
		r := run(t, plan{url: f.url(), config: fast})
		r.waiting("BGSAVE failed")
		r.streaming()
	})
	t.Run("never more than two", func(t *testing.T) {
		failed := rt.Script{full, fullresync, rt.Reply("-BGSAVE failed, replication can't continue"), rt.ExpectEOF()}
		f := newFront(t, failed, failed)
		r := run(t, plan{url: f.url(), config: fast})
		r.exit(haul.ExitFailed, "third", "BGSAVE failed")
		if n := f.links.Load(); n != 2 {
			t.Errorf("asked for %d full syncs", n)
		}
	})
	for name, sent := range map[string]string{
		"no header":   "hello\r\n",
		"bad length":  "$12x\r\n",
		"short mark":  "$EOF:abc\r\n",
		"no snapshot": "$9\r\nNOTREDIS0",
		"newer":       "$9\r\nREDIS0077",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFrontWith(t, func(f *front) { f.script, f.keep, f.answer = 0, true, "+FULLRESYNC "+id1+" 100\r\n"+sent })
			r := run(t, plan{url: f.url(), config: fast})
			r.exit(haul.ExitFailed)
		})
	}
	t.Run("damaged", func(t *testing.T) {
		b := []byte(sized("value"))
		b[len(b)-12] ^= 1
		f := newFront(t, rt.Script{full, fullresync, rt.Send(string(b)), acks, rt.ExpectEOF()})
		r := run(t, plan{url: f.url(), config: fast})
		r.exit(haul.ExitFailed, "checksum", "snapshot byte")
		if r.reader.Status().SnapshotDone {
			t.Error("a damaged snapshot counts as done")
		}
	})
	t.Run("cut twice", func(t *testing.T) {
		b := sized(strings.Repeat("v", 1000))
		s := rt.Script{full, fullresync, rt.Send(b[:500]), rt.Hangup()}
		f := newFront(t, s, s)
		r := run(t, plan{url: f.url(), config: fast})
		r.exit(haul.ExitFailed, "third", "client-output-buffer-limit")
		if n := f.links.Load(); n != 2 {
			t.Errorf("asked for %d full syncs", n)
		}
	})
}

// TestPeerMark: an end mark comes in any pieces, and looks like data until it is complete.
func TestPeerMark(t *testing.T) {
	mark := "0123456789abcdefghijklmnopqrstuvwxyz0123"
	if len(mark) != markLength {
		t.Fatal(len(mark))
	}
	values := map[string]string{
		"plain":         "value",
		"near mark":     strings.Repeat(mark[:39], 4) + mark[:20] + "!",
		"starts a mark": strings.Repeat("x", 5000) + mark[:39],
		"long":          strings.Repeat("0123456789", 60_000),
	}
	for name, value := range values {
		b := image(value)
		whole := "$EOF:" + mark + "\r\n" + b + mark
		steps := rt.Script{full, fullresync}
		cuts := []int{len(whole) - 60, len(whole) - 41, len(whole) - 40, len(whole) - 39, len(whole) - 20, len(whole) - 1, len(whole)}
		from := 0
		pause := rt.Call(func() error { time.Sleep(3 * time.Millisecond); return nil }) // so that they come apart
		for _, to := range cuts {
			steps = append(steps, rt.Send(whole[from:to]), pause)
			from = to
		}
		// the stream begins after the first ACK only
		steps = append(steps, rt.Expect("REPLCONF", "ACK", rt.Any), acks,
			rt.Send(string(resp.AppendCommand(nil, "SET", "a", "1"))))
		t.Run(name, func(t *testing.T) {
			f := newFront(t, steps)
			r := run(t, plan{url: f.url(), config: fast})
			r.streaming()
			r.eventually("command", func() error {
				if got := r.sink.commands(); !slices.Equal(got, []string{"2:SET a 1"}) {
					return fmt.Errorf("%q", got)
				}
				return nil
			})
			if s := r.reader.Status(); s.SnapshotBytes != int64(len(b)) {
				t.Errorf("%d bytes of %d", s.SnapshotBytes, len(b))
			}
		})
	}
}

func wire(args ...string) string { return string(resp.AppendCommand(nil, args...)) }

// TestPeerStream: a stream that holds everything that is no entry, byte by byte and at once.
func TestPeerStream(t *testing.T) {
	stream := wire("SELECT", "4") + wire("SET", "a", "1") + "\n" + wire("PING") + wire("REPLCONF", "GETACK", "*") +
		wire("MULTI") + wire("SELECT", "5") + wire("SET", "b", "2") + wire("SELECT", "6") + wire("SET", "c", "") + wire("EXEC") +
		wire("MULTI") + wire("EXEC") + "\n\n" + wire("incr", "d") + wire("multi") + wire("set", "e", "1") + wire("exec") + wire("PING")
	want := []string{"4:SET a 1", "5:MULTI[SET b 2; 6:SET c ]", "6:incr d", "6:MULTI[set e 1]"}
	for name, piece := range map[string]int{"bytes": 1, "at once": len(stream), "sevens": 7} {
		t.Run(name, func(t *testing.T) {
			steps := rt.Script{full, fullresync, rt.Send(sized("v")), acks}
			for at := 0; at < len(stream); at += piece {
				steps = append(steps, rt.Send(stream[at:min(at+piece, len(stream))]))
			}
			f := newFront(t, steps)
			r := run(t, plan{url: f.url(), config: fast})
			r.eventually("all", func() error {
				if s := r.reader.Status(); s.Applied != 100+int64(len(stream)) || s.DB != 6 {
					return errors.New("not yet")
				}
				return nil
			})
			if got := r.sink.commands(); !slices.Equal(got, want) {
				t.Errorf("%q", got)
			}
		})
	}
}

// TestPeerGetack: GETACK is answered with an offset before its own bytes or behind, never with one that the target
// does not have.
func TestPeerGetack(t *testing.T) {
	first := wire("SELECT", "0") + wire("SET", "a", "1")
	held, asked := make(chan struct{}), make(chan struct{})
	s := &sink{}
	f := newFront(t, rt.Script{
		full, fullresync, rt.Send(sized("v")), rt.Ignore("REPLCONF", "ACK", "0"), rt.Expect("REPLCONF", "ACK", "100"),
		rt.Await(held), rt.Ignore("REPLCONF", "ACK", "100"), rt.Send(first + wire("REPLCONF", "GETACK", "*")), rt.Call(func() error { close(asked); return nil }),
		rt.Capture(func(args []string) error {
			want := []string{fmt.Sprint(100 + len(first)), fmt.Sprint(100 + len(first) + len(wire("REPLCONF", "GETACK", "*")))}
			if !slices.Contains(want, args[2]) {
				return fmt.Errorf("answer %q", args)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.held {
				return errors.New("answered while the target was held")
			}
			return nil
		}),
	})
	r := run(t, plan{url: f.url(), sink: s, config: fast})
	r.streaming()
	s.hold(true)
	close(held)
	<-asked
	r.eventually("received", func() error {
		if len(s.all(false)) == 0 {
			return errors.New("nothing")
		}
		return nil
	})
	s.hold(false)
	f.peer.Wait()
}

// TestPeerContinue: the link comes back, under the same id, a new one, or one that the source does not say.
func TestPeerContinue(t *testing.T) {
	set := wire("SELECT", "1") + wire("SET", "a", "1")
	more := wire("SET", "b", "2")
	for name, c := range map[string]struct {
		answer string
		id     string
	}{
		"same id": {"+CONTINUE " + id1, id1},
		"bare":    {"+CONTINUE", id1},
		"new id":  {"+CONTINUE " + id2, id2},
	} {
		t.Run(name, func(t *testing.T) {
			cut := len(set) - 5 // in the middle of a command
			f := newFront(
				t,
				rt.Script{full, fullresync, rt.Send(sized("v")), acks, rt.Send(set[:cut]), rt.Hangup()},
				rt.Script{rt.Expect("PSYNC", id1, fmt.Sprint(100+cut+1)), rt.Reply("-NOMASTERLINK not yet"), rt.ExpectEOF()},
				rt.Script{rt.Expect("PSYNC", id1, fmt.Sprint(100+cut+1)), rt.Reply(c.answer), rt.Send(set[cut:]), acks, rt.Hangup()},
				rt.Script{rt.Expect("PSYNC", c.id, fmt.Sprint(100+len(set)+1)), rt.Send("\n"), rt.Reply("+CONTINUE"), rt.Send(more)},
			)
			if c.id == id2 {
				f.info.Store(infoText(id2, id1, 1000, 500, 1, 1<<20))
			}
			r := run(t, plan{url: f.url(), config: fast})
			r.eventually("both", func() error {
				if got := r.sink.commands(); !slices.Equal(got, []string{"1:SET a 1", "1:SET b 2"}) {
					return fmt.Errorf("%q", got)
				}
				return nil
			})
			if s := r.reader.Status(); s.PartialSyncs != 2 || s.FullSyncs != 1 || s.ReplID != c.id || s.DB != 1 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestPeerHistory: what INFO says decides before PSYNC is asked, and an unexpected full sync is not taken.
func TestPeerHistory(t *testing.T) {
	zero := strings.Repeat("0", 40)
	start := rt.Script{full, fullresync, rt.Send(sized("v")), acks, rt.Send(wire("SET", "a", "1")), rt.Hangup()}
	for name, c := range map[string]struct {
		info  string
		texts []string
	}{
		"another history":  {infoText(id2, zero, -1, 5000, 1, 1<<20), []string{"another replication history", "--on-lost-history"}},
		"diverged":         {infoText(id2, id1, 105, 5000, 1, 1<<20), []string{"another replication history", "--on-lost-history"}},
		"backlog overrun":  {infoText(id1, zero, -1, 5_000_000, 4_000_000, 1<<20), []string{"backlog", "repl-backlog-size above 4999873"}},
		"source went back": {infoText(id1, zero, -1, 50, 1, 50), []string{"less of this history", "--on-lost-history"}},
		"no backlog": {
			strings.Replace(infoText(id1, zero, -1, 500, 1, 1<<20), "backlog_active:1", "backlog_active:0", 1),
			[]string{"no backlog", "--on-lost-history"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun := make(chan struct{})
			f := newFront(t, append(slices.Clone(start[:5]), rt.Await(begun), rt.Hangup()))
			r := run(t, plan{url: f.url(), config: fast})
			r.streaming()
			r.eventually("command", func() error {
				if len(r.sink.all(false)) == 0 {
					return errors.New("none")
				}
				return nil
			})
			f.info.Store(c.info)
			close(begun)
			r.exit(haul.ExitHistoryLost, c.texts...)
			if n := f.links.Load(); n != 1 {
				t.Errorf("PSYNC was asked %d times", n)
			}
		})
	}
	t.Run("full sync instead", func(t *testing.T) {
		f := newFront(t, start, rt.Script{
			rt.Expect("PSYNC", id1, rt.Any), rt.Reply("+FULLRESYNC " + id2 + " 900"), rt.ExpectEOF(),
		})
		r := run(t, plan{url: f.url(), config: fast})
		r.exit(haul.ExitHistoryLost, "--on-lost-history")
	})
	t.Run("forbidden later", func(t *testing.T) {
		f := newFront(t, start, rt.Script{rt.Expect("PSYNC", id1, rt.Any), rt.Reply("-ERR forbidden"), rt.ExpectEOF()})
		r := run(t, plan{url: f.url(), config: fast})
		r.exit(haul.ExitFailed, "forbidden") // not 3: much was written
	})
}

// TestPeerHangsUp: a source that continues and hangs up at once, for ever, is not dialled without pause.
func TestPeerHangsUp(t *testing.T) {
	f := newFrontWith(t, func(f *front) { f.script, f.answer = 1, "+CONTINUE\r\n" },
		rt.Script{full, fullresync, rt.Send(sized("v")), acks, rt.Send(wire("SET", "a", "1")), rt.Hangup()})
	r := run(t, plan{url: f.url(), config: fast})
	r.streaming()
	r.waiting("closed the connection")
	before := f.links.Load()
	time.Sleep(time.Second) // the time that is measured
	if n := f.links.Load() - before; n > 8 {
		t.Errorf("%d connections in a second", n)
	}
}

// TestPeerCorrupt: bytes that are no commands end the run, and are not repeated in what it says.
func TestPeerCorrupt(t *testing.T) {
	for name, stream := range map[string]string{
		"inline":       "SET secret-value 1\r\n",
		"exec":         wire("EXEC"),
		"multi twice":  wire("MULTI") + wire("MULTI"),
		"bad database": wire("SELECT", "secret-value"),
		"bad length":   "*1\r\n$secret-value\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, rt.Script{full, fullresync, rt.Send(sized("v")), acks, rt.Send(stream), rt.ExpectEOF()})
			r := run(t, plan{url: f.url(), config: fast})
			r.exit(haul.ExitFailed, "offset 1")
			if strings.Contains(r.err.Error()+r.log.String(), "secret-value") {
				t.Errorf("a value shows: %v\n%s", r.err, r.log)
			}
		})
	}
}

// TestPeerSilent: a source that says nothing for ReplyTimeout is dialled again.
func TestPeerSilent(t *testing.T) {
	f := newFront(
		t,
		rt.Script{full, fullresync, rt.Send(sized("v")), acks, rt.Send(wire("SET", "a", "1")), rt.ExpectEOF()},
		rt.Script{rt.Expect("PSYNC", id1, rt.Any), rt.Reply("+CONTINUE"), rt.Send(wire("SET", "b", "1"))},
	)
	r := run(t, plan{url: f.url(), config: func(c *PSYNCConfig) { c.ReplyTimeout = 500 * time.Millisecond }})
	r.eventually("second", func() error {
		if len(r.sink.all(false)) < 2 {
			return errors.New("not yet")
		}
		return nil
	})
	if !strings.Contains(r.log.String(), "has sent nothing for 500ms") {
		t.Errorf("%s", r.log)
	}
}

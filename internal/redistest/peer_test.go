package redistest

import (
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

func TestPeerFollowsItsScripts(t *testing.T) {
	gate := make(chan struct{})
	var psync []string
	p := NewPeer(
		t,
		Script{
			Ignore("REPLCONF", "ACK", Any),
			Expect("PING"), Reply("+PONG"),
			Expect("REPLCONF", "listening-port", Any), Reply("+OK"),
			Capture(func(args []string) error { psync = args; return nil }),
			Await(gate),
			Send("\n+FULLRESYNC 0 1\r\n"),
			Hangup(),
		},
		Script{Expect("AUTH", Rest), Reply("-ERR no"), ExpectEOF()},
	)
	ep := Addr(p.Addr())
	conn, err := ep.connect(t.Context(), p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	c := resp.NewConn(conn)
	_, _ = c.Write(resp.AppendCommand([]byte("\n"), "REPLCONF", "ACK", "7"))
	for _, command := range [][]string{{"ping"}, {"REPLCONF", "listening-port", "0"}} {
		if _, err := c.Do(t.Context(), 10*time.Second, command...); err != nil {
			t.Fatal(err)
		}
	}
	close(gate)
	if _, err := c.Write(resp.AppendCommand(nil, "PSYNC", "?", "-1")); err != nil {
		t.Fatal(err)
	}
	if line, err := c.Reader.ReadString('1'); err != nil || !strings.HasPrefix(line, "\n+FULL") {
		t.Errorf("got %q, %v", line, err)
	}
	ep.Password = "x"
	if _, err := ep.connect(t.Context(), p.Addr()); err == nil {
		t.Error("AUTH succeeded")
	}
	p.Wait()
	if strings.Join(psync, " ") != "PSYNC ? -1" {
		t.Errorf("captured %q", psync)
	}
}

func TestPeerTellsWhatWentWrong(t *testing.T) {
	var addr string
	for _, test := range []struct {
		script Script
		want   string
	}{
		{Script{Expect("PING"), Reply("+PONG")}, `connection 1, step 1 Expect("PING"): got "INFO" "all"`},
		{Script{ExpectAny(), Reply("+OK"), Await(make(chan int))}, "1 scripts were not followed to the end"},
		{Script{ExpectAny(), Reply("+OK"), Expect("INFO")}, `connection 1, step 3 Expect("INFO"): after "": EOF`},
	} {
		err := Run(nil, func(tb TB) {
			p := NewPeer(tb, test.script)
			addr = p.Addr()
			conn, err := Addr(addr).pipe(t.Context(), addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.close()
			_, _ = conn.do(t.Context(), "INFO", "all")
		})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %s", err, test.want)
		}
	}
}

package topology

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/keepalive"
)

// journal notes events as "state addr#attempt".
type journal struct {
	list []string
	last Event
}

func (j *journal) add(e Event) {
	j.list = append(j.list, fmt.Sprintf("%s %s#%d", e.State, e.Addr, e.Attempt))
	j.last = e
}

func (j *journal) want(t *testing.T, want ...string) {
	t.Helper()
	if got := strings.Join(j.list, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("events:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

// shortest makes the backoff predictable: 100 ms, 200 ms, ... 5 s.
func shortest() *keepalive.Backoff { return &keepalive.Backoff{Rand: func() float64 { return 0 }} }

func TestConnectWaitsForAServerThatStartsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newFakeNet(t), &journal{}
		defer n.wg.Wait()
		n.serve("b:2", nil)
		time.AfterFunc(time.Minute, func() { n.serve("b:2", scripted(map[string]string{"PING": "+PONG "})) })
		began := time.Now()
		prepared := 0
		c, err := Connect(t.Context(), ConnectOptions{
			Dialer: n.dialer("redis://a:1,b:2"), Role: "source", Observe: j.add,
			Prepare: func(context.Context, *resp.Conn) error { prepared++; return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if took := time.Since(began); took < time.Minute || took > time.Minute+10*time.Second {
			t.Errorf("took %v", took)
		}
		if len(n.dialled) < 120 || len(n.dialled) > 250 || prepared != 1 { // two addresses, every 0.5 to 1 s
			t.Errorf("%d dials, prepared %d times", len(n.dialled), prepared)
		}
		if j.last.State != Ready || j.last.Addr != "b:2" {
			t.Errorf("last event %+v", j.last)
		}
	})
}

func TestConnectEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newFakeNet(t), &journal{}
		defer n.wg.Wait()
		ready := scripted(map[string]string{"AUTH": "+OK ", "PING": "+PONG "})
		n.serve("b:2", ready)
		n.serve("a:1", nil)
		c, err := Connect(t.Context(), ConnectOptions{Dialer: n.dialer("redis://u:p@a:1,b:2"), Observe: j.add})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		j.want(t, "connecting a:1#1", "backing-off a:1#1", "connecting b:2#2", "authenticating b:2#2", "ready b:2#2")
	})
}

func TestConnectWaitsForLoading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newFakeNet(t), &journal{}
		defer n.wg.Wait()
		began := time.Now()
		n.serve("a:1", func(cmd []string) string {
			left := 5*time.Minute - time.Since(began)
			switch {
			case cmd[0] == "PING" && left > 0:
				return "-LOADING Redis is loading the dataset in memory\r\n"
			case cmd[0] == "PING":
				return "+PONG\r\n"
			}
			info := fmt.Sprintf("loading:1\r\nloading_eta_seconds:%d\r\n", int(left.Minutes()))
			return fmt.Sprintf("$%d\r\n%s\r\n", len(info), info)
		})
		c, err := Connect(t.Context(), ConnectOptions{
			Dialer: n.dialer("redis://a:1"), Observe: j.add, Within: 10 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if took := time.Since(began); took != 5*time.Minute {
			t.Errorf("took %v", took)
		}
		loading := "loading a:1#1"
		j.want(t, "connecting a:1#1", "authenticating a:1#1", loading, loading, loading, loading, loading, loading,
			"authenticating a:1#1", "ready a:1#1")
		if len(n.dialled) != 1 {
			t.Errorf("%d dials", len(n.dialled))
		}
	})
}

func TestConnectGivesUpWithTheLastCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newFakeNet(t), &journal{}
		defer n.wg.Wait()
		n.serve("a:1", scripted(map[string]string{"AUTH": "-WRONGPASS|invalid|username-password|pair "}))
		began := time.Now()
		_, err := Connect(t.Context(), ConnectOptions{
			Dialer: n.dialer("redis://u:secretpassword@a:1"), Role: "target", Observe: j.add, Within: time.Minute,
		})
		want := "target a:1 not reached within 1m0s: AUTH: WRONGPASS invalid username-password pair (check user and password)"
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		var reply *resp.Error
		var notReached *NotReachedError
		if !errors.As(err, &reply) || reply.Code != "WRONGPASS" || !errors.As(err, &notReached) || !notReached.Within {
			t.Errorf("causes are lost: %#v", err)
		}
		if took := time.Since(began); took != time.Minute {
			t.Errorf("took %v", took)
		}
		if j.last.State != Closed || len(n.dialled) > 25 {
			t.Errorf("last event %+v, %d dials", j.last, len(n.dialled))
		}
	})
}

func TestConnectEndsAtOnceWithItsContext(t *testing.T) {
	stopped := errors.New("stopped by a signal")
	const limit = 3*time.Minute + 300*time.Millisecond // between two polls
	for name, c := range map[string]struct {
		answer func([]string) string
		want   string
	}{
		"while backing off": {nil, "a:1 not reached within 3m0s (stopped by a signal): dial: connection refused"},
		"while loading": {
			scripted(map[string]string{"PING": "-LOADING|x ", "INFO": "-NOPERM|x "}),
			"a:1 not reached within 3m0s (stopped by a signal): LOADING: stopped by a signal",
		},
		"while nothing answers": {
			func([]string) string { return "~" },
			"a:1 not reached within 3m0s (stopped by a signal): PING: i/o timeout",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newFakeNet(t)
				defer n.wg.Wait()
				n.serve("a:1", c.answer)
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(limit, func() { cancel(stopped) })
				began := time.Now()
				_, err := Connect(ctx, ConnectOptions{Dialer: n.dialer("redis://a:1")})
				if !errors.Is(err, stopped) || err.Error() != c.want {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
				if took := time.Since(began); took != limit {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

func TestConnectDeadlineOfItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNet(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := Connect(ctx, ConnectOptions{Dialer: n.dialer("redis://a:1,b:2"), Role: "source"})
		want := "source a:1, b:2 not reached within 1m0s: a:1: dial: connection refused; b:2: dial: connection refused"
		if err == nil || err.Error() != want || !errors.Is(err, errRefused) {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	})
}

func TestConnectPrepare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, j := newFakeNet(t), &journal{}
		defer n.wg.Wait()
		n.serve("a:1", scripted(map[string]string{"PING": "+PONG "}))
		refused := errors.New("source and target are one server")
		tries := 0
		_, err := Connect(t.Context(), ConnectOptions{
			Dialer: n.dialer("redis://a:1"), Observe: j.add, Backoff: shortest(),
			Prepare: func(context.Context, *resp.Conn) error {
				if tries++; tries == 2 {
					return &Permanent{refused}
				}
				return errors.New("not yet")
			},
		})
		if !errors.Is(err, refused) || errors.As(err, new(*NotReachedError)) {
			t.Errorf("got %v", err)
		}
		j.want(t, "connecting a:1#1", "authenticating a:1#1", "backing-off a:1#1",
			"connecting a:1#2", "authenticating a:1#2", "closed a:1#2")
	})
}

func TestConnectProbe(t *testing.T) {
	for name, c := range map[string]struct {
		ping, info string
		err        string
	}{
		"answers":                {"+PONG ", "", ""},
		"busy with a script":     {"-BUSY|Redis|is|busy ", "", ""},
		"cannot save":            {"-MISCONF|x ", "", ""},
		"lost its primary":       {"-MASTERDOWN|x ", "", ""},
		"PING forbidden":         {"-NOPERM|x ", "$9 loading:0 ", ""},
		"PING, INFO forbidden":   {"-NOPERM|x ", "-NOPERM|x ", "a:1 not reached within 5s: PING: NOPERM x (grant the user this permission: ACL SETUSER)"},
		"no password":            {"-NOAUTH|x. ", "", "a:1 not reached within 5s: PING: NOAUTH x. (configure a password or password file)"},
		"protected mode":         {"-DENIED|x ", "", "a:1 not reached within 5s: PING: DENIED x (protected mode: set a password on the server, or connect from its own machine)"},
		"closes":                 {"", "", "a:1 not reached within 5s: PING: the server closed the connection"},
		"is something different": {"HTTP/1.1|400 ", "", `a:1 not reached within 5s: PING: resp: unexpected first byte 'H' of a reply`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newFakeNet(t)
				defer n.wg.Wait()
				n.serve("a:1", scripted(map[string]string{"PING": c.ping, "INFO": c.info}))
				conn, err := Connect(t.Context(), ConnectOptions{Dialer: n.dialer("redis://a:1"), Within: 5 * time.Second})
				if err == nil {
					conn.Close()
				}
				if got := fmt.Sprint(err); err == nil && c.err != "" || err != nil && got != c.err {
					t.Errorf("got  %s\nwant %s", got, c.err)
				}
			})
		})
	}
}

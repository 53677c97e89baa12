package topology

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/keyhaul/keyhaul/internal/resp"
)

var errRefused = errors.New("connection refused")

// fakeNet is a network in memory. An address without a server refuses; one with a nil server too.
type fakeNet struct {
	t  *testing.T
	mu sync.Mutex
	// servers answer one command each; "" closes the connection, "~" never answers.
	servers map[string]func(cmd []string) string
	dialled []string
	wg      sync.WaitGroup
}

func newFakeNet(t *testing.T) *fakeNet {
	return &fakeNet{t: t, servers: map[string]func([]string) string{}}
}

func (n *fakeNet) serve(addr string, answer func(cmd []string) string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.servers[addr] = answer
}

// scripted answers by the command's first word, with blanks for line ends and | for blanks.
func scripted(answers map[string]string) func([]string) string {
	return func(cmd []string) string {
		if a, ok := answers[strings.ToUpper(cmd[0])]; ok {
			return wire(a)
		}
		return "-ERR unknown command\r\n"
	}
}

func wire(a string) string {
	return strings.ReplaceAll(strings.ReplaceAll(a, " ", "\r\n"), "|", " ")
}

func (n *fakeNet) dialer(url string, addrs ...string) *Dialer {
	e := Endpoint{Scheme: SchemeTCP, Addrs: addrs}
	if url != "" {
		var err error
		if e, err = Parse(url); err != nil {
			n.t.Fatal(err)
		}
	}
	d := NewDialer(e)
	d.Network = n.open
	return d
}

func (n *fakeNet) open(_ context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialled = append(n.dialled, addr)
	answer := n.servers[addr]
	if answer == nil {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errRefused}
	}
	near, far := net.Pipe()
	n.wg.Go(func() { serveFake(far, answer) })
	return near, nil
}

func serveFake(c net.Conn, answer func([]string) string) {
	defer c.Close()
	peer := &resp.Conn{Conn: c, Reader: bufio.NewReader(c)}
	for {
		r, err := peer.ReadReply()
		if err != nil {
			return
		}
		cmd := make([]string, len(r.Array))
		for i, a := range r.Array {
			cmd[i] = a.Text
		}
		switch reply := answer(cmd); reply {
		case "":
			return
		case "~":
		default:
			if _, err := c.Write([]byte(reply)); err != nil {
				return
			}
		}
	}
}

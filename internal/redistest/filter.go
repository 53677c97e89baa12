package redistest

import (
	"context"
	"net"
	"strings"
	"sync"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// NewFilter starts a proxy in front of a server that does not let all commands through, and returns its address. It
// answers as unknown those whose beginning is listed, such as "MULTI" or "CLIENT LIST". It ends with the test.
func NewFilter(t TB, target string, unknown ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("redistest: %v", err)
	}
	f := &filter{target: target, unknown: unknown}
	ctx, cancel := context.WithCancel(context.Background())
	f.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(ctx, c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		f.wg.Wait()
	})
	return l.Addr().String()
}

type filter struct {
	target  string
	unknown []string
	wg      sync.WaitGroup
}

// serve hands on one command after the other.
func (f *filter) serve(ctx context.Context, c net.Conn) {
	client := &pipe{conn: c, addr: "client"}
	defer client.close()
	server, err := Addr(f.target).pipe(ctx, f.target)
	if err != nil {
		return
	}
	defer server.close()
	stop := context.AfterFunc(ctx, func() {
		client.close()
		server.close()
	})
	defer stop()
	for {
		_, command, err := client.readRaw()
		if err != nil {
			return
		}
		answer := f.refusal(command)
		if answer == nil {
			if _, err := server.conn.Write(command); err != nil {
				return
			}
			if _, answer, err = server.readRaw(); err != nil {
				return
			}
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// refusal is the answer to a command that is not let through; nil if it is.
func (f *filter) refusal(command []byte) []byte {
	r, _, err := resp.Decode(command)
	if err != nil {
		return nil
	}
	words := make([]string, len(r.Array))
	for i, word := range r.Array {
		words[i] = strings.ToUpper(word.Text)
	}
	line := strings.Join(words, " ") + " "
	for _, name := range f.unknown {
		if strings.HasPrefix(line, name+" ") {
			return []byte("-ERR unknown command '" + name + "'\r\n")
		}
	}
	return nil
}

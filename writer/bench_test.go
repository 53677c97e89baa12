package writer

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// nowhere is a connection that takes everything.
type nowhere struct{ net.Conn }

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }

// benchBatch fills one batch of its standard size.
func benchBatch(b testing.TB, add func(*batch, int)) *haul.Batch {
	r := &rig{t: b, ch: haul.NewChannel(16 << 20)}
	x := r.batch(false)
	for i := 0; i < haul.BatchEntries && len(x.b.Buf) < haul.BatchBytes*3/4; i++ {
		add(x, i)
	}
	return x.b
}

func benchEncode(b *testing.B, enc encoder, batch *haul.Batch) {
	o := &outbox{conn: nowhere{}, push: func([]op) {}}
	all := item{batch: batch, n: uint32(len(batch.Entries))}
	b.SetBytes(int64(len(batch.Buf)))
	b.ReportAllocs()
	for b.Loop() {
		if err := enc.encode(o, all); err != nil {
			b.Fatal(err)
		}
		if err := o.flush(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(batch.Entries))/b.Elapsed().Seconds(), "entries/s")
}

func BenchmarkEncodeCommands(b *testing.B) {
	for _, c := range []struct {
		name string
		add  func(*batch, int)
	}{
		{"run", func(x *batch, i int) { x.do(0, "SET", fmt.Sprintf("key:%d", i), "some value of the usual size") }},
		{"databases", func(x *batch, i int) { x.do(i%2, "SET", fmt.Sprintf("key:%d", i), "some value of the usual size") }},
		{"transactions", func(x *batch, i int) { x.tx(0, fmt.Sprintf("INCR a:%d", i), fmt.Sprintf("INCR b:%d", i)) }},
	} {
		b.Run(c.name, func(b *testing.B) { benchEncode(b, encoder{}, benchBatch(b, c.add)) })
	}
}

func BenchmarkEncodeSnapshot(b *testing.B) {
	text := append([]byte("\x00\x20"), strings.Repeat("x", 32)...)
	text = append(text, make([]byte, 10)...)
	list := append([]byte("\x10\x40\x80"), strings.Repeat("x", 128)...)
	list = append(list, make([]byte, 10)...)
	key := func(dump []byte, change func(*haul.Key)) func(*batch, int) {
		return func(x *batch, i int) { x.key(0, fmt.Sprintf("key:%d", i), dump, change) }
	}
	expire := func(k *haul.Key) { k.Has |= haul.HasExpire; k.ExpireAt = 9999999999999 }
	for _, c := range []struct {
		name    string
		strings bool
		add     func(*batch, int)
	}{
		{"MSET", true, key(text, nil)},
		{"SET", false, key(text, nil)},
		{"SET PXAT", false, key(text, expire)},
		{"RESTORE", false, key(list, nil)},
	} {
		b.Run(c.name, func(b *testing.B) {
			batch := benchBatch(b, c.add)
			batch.Snapshot = true
			benchEncode(b, encoder{pxat: true, strings: c.strings}, batch)
		})
	}
}

// okServer answers +OK to every command of a known size as fast as it can.
type okServer struct {
	l    net.Listener
	size int
	wg   sync.WaitGroup
}

func newOKServer(b *testing.B, size int) *okServer {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &okServer{l: l, size: size}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() { s.serve(c) })
		}
	})
	b.Cleanup(func() { _ = l.Close(); s.wg.Wait() })
	return s
}

func (s *okServer) serve(c net.Conn) {
	defer c.Close()
	if !greet(c) {
		return
	}
	in, ok := make([]byte, 256<<10), bytes.Repeat([]byte("+OK\r\n"), 256<<10/s.size+2)
	have := 0
	for {
		n, err := c.Read(in)
		if err != nil {
			return
		}
		have += n
		if _, err := c.Write(ok[:have/s.size*5]); err != nil {
			return
		}
		have %= s.size
	}
}

// greet answers what a lane asks before it is ready.
func greet(c net.Conn) bool {
	const info = "role:master\r\nredis_version:7.0.15\r\n"
	r := resp.NewConn(c)
	for {
		q, err := r.ReadReply()
		if err != nil {
			return false
		}
		answer, last := "+OK\r\n", false
		switch q.Array[0].Text {
		case "INFO":
			answer = fmt.Sprintf("$%d\r\n%s\r\n", len(info), info)
		case "CONFIG":
			answer, last = "*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n", true
		}
		if _, err := io.WriteString(c, answer); err != nil {
			return false
		}
		if last {
			return true
		}
	}
}

// BenchmarkReplies measures what a lane costs for each entry: from the channel to the watermark, with a peer that
// answers at once.
func BenchmarkReplies(b *testing.B) {
	command := resp.AppendCommand(nil, "SET", "key:1234", "some value of the usual size")
	s := newOKServer(b, len(command))
	ep := topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{s.l.Addr().String()}}
	node := topology.ParseInfo("redis_version:7.0.15\r\nrole:master\r\n")
	r := newRigFor(b, topology.NewDialer(ep), node, func(c *Config) { c.SnapshotLanes = 1 })
	rt.Eventually(b, limit, func() error {
		if !r.w.Status().Ready {
			return io.ErrNoProgress
		}
		return nil
	})
	proto := benchBatch(b, func(x *batch, _ int) { x.do(0, "SET", "key:1234", "some value of the usual size") })
	b.SetBytes(int64(len(proto.Buf)))
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		batch, err := r.ch.New(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		batch.Buf = append(batch.Buf[:0], proto.Buf...)
		batch.Entries = append(batch.Entries[:0], proto.Entries...)
		batch.Commands = append(batch.Commands[:0], proto.Commands...)
		batch.Args = append(batch.Args[:0], proto.Args...)
		n++
		batch.End = haul.Position{Offset: int64(n)}
		if err := r.ch.Send(context.Background(), batch); err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.ch.Watermark.Drain(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)*float64(len(proto.Entries))/b.Elapsed().Seconds(), "entries/s")
}

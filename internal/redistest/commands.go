package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// Do sends one command over the server's own connection and returns the reply, which may be an error reply. Arguments
// are formatted as by fmt.Sprint, []byte as text. SELECT and the like last until the server ends or closes the
// connection. The test fails when no reply comes.
func (s *Server) Do(args ...any) resp.Reply {
	s.t.Helper()
	ctx := context.Background()
	if s.ctl != nil && hungUp(s.ctl.conn) { // by CLIENT KILL, a timeout, or a restart behind our back
		s.hangUp()
	}
	if s.ctl == nil {
		p, err := s.ep.pipe(ctx, s.Addr)
		if err != nil {
			s.t.Fatalf("redistest: %v: %v", args[0], err)
		}
		s.ctl = p
	}
	s.ctl.add(texts(args)...)
	replies, err := s.ctl.exchange(ctx)
	if err != nil {
		s.hangUp()
		s.t.Fatalf("redistest: %v: %v", args[0], err)
	}
	return replies[0]
}

// MustDo is Do, but an error reply fails the test too.
func (s *Server) MustDo(args ...any) resp.Reply {
	s.t.Helper()
	r := s.Do(args...)
	if err := r.Err(); err != nil {
		s.t.Fatalf("redistest: %v on %s: %v", args[0], s.Addr, err)
	}
	return r
}

// Info returns the fields of one section of INFO.
func (s *Server) Info(section string) map[string]string {
	s.t.Helper()
	return parseInfo(s.MustDo("INFO", section).Text)
}

// Number returns a field of one section of INFO that is a whole number.
func (s *Server) Number(section, field string) int64 {
	s.t.Helper()
	n, err := strconv.ParseInt(s.Info(section)[field], 10, 64)
	if err != nil {
		s.t.Fatalf("redistest: INFO %s on %s: %s: %v", section, s.Addr, field, err)
	}
	return n
}

// Offset returns the end of the server's replication stream.
func (s *Server) Offset() int64 { return s.Number("replication", "master_repl_offset") }

// FullSyncs returns how many full synchronisations the server has given since it started, or since CONFIG RESETSTAT.
func (s *Server) FullSyncs() int64 { return s.Number("stats", "sync_full") }

// ReplicaOf makes the server a replica of source and waits until it is in step with what source has sent so far.
func (s *Server) ReplicaOf(source *Server) {
	s.t.Helper()
	s.MustDo("REPLICAOF", "127.0.0.1", source.Port)
	s.WaitReplica()
}

// WaitReplica waits until this replica is connected and has loaded its primary's data.
func (s *Server) WaitReplica() {
	s.t.Helper()
	Eventually(s.t, time.Minute, func() error {
		info := s.Info("replication")
		if info["master_link_status"] != "up" || info["master_sync_in_progress"] != "0" {
			return fmt.Errorf("%s: link to the primary is %q", s.Addr, info["master_link_status"])
		}
		return nil
	})
}

// Eventually calls check every few milliseconds until it returns nil, and fails the test with its last error after
// limit.
func Eventually(t TB, limit time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("redistest: after %s: %v", limit, err)
		}
		time.Sleep(pollInterval)
	}
}

// texts formats arguments for the wire.
func texts(args []any) []string {
	out := make([]string, len(args))
	for i, arg := range args {
		switch v := arg.(type) {
		case string:
			out[i] = v
		case []byte:
			out[i] = string(v)
		default:
			out[i] = fmt.Sprint(v)
		}
	}
	return out
}

// hungUp tells whether the peer has closed an idle connection, without reading from it.
func hungUp(conn net.Conn) bool {
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = wrapped.NetConn()
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	var closed bool
	err = raw.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		again := errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR)
		closed = n == 0 && err == nil || err != nil && !again
	})
	return closed || err != nil
}

package reader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// Large is Values for one key whose value is too large for memory: its payload, as DUMP has it, goes to a writer. The value
// that is returned has none. The source builds the payload in its own memory.
func (k *KeyReader) Large(ctx context.Context, from int64, key haul.KeyName, to io.Writer) (size int64, v haul.Value, at haul.Position, err error) {
	if k.p.superseded.Load() {
		return 0, v, at, haul.ErrSuperseded
	}
	if err := k.open(ctx); err != nil {
		return 0, v, at, notYetRead(err)
	}
	var node topology.Node
	if size, v, node, err = k.large(ctx, key, to); err != nil {
		k.Close() // some of the answer may be left
		return 0, v, at, notYetRead(err)
	}
	k.p.mu.Lock()
	defer k.p.mu.Unlock()
	return size, v, haul.Position{ReplID: node.ReplID, Offset: node.MasterReplOffset}, k.p.follows(node, from)
}

func (k *KeyReader) large(ctx context.Context, key haul.KeyName, to io.Writer) (size int64, v haul.Value, node topology.Node, err error) {
	calls := k.questions([]haul.KeyName{key})
	var out []byte
	for _, args := range calls {
		out = resp.AppendCommand(out, args...)
	}
	if err := k.conn.SetDeadline(time.Now().Add(k.p.cfg.ReplyTimeout)); err != nil {
		return 0, v, node, err
	}
	stop := context.AfterFunc(ctx, func() { _ = k.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := k.conn.Write(out); err != nil {
		return 0, v, node, orCause(ctx, err)
	}
	var refused error
	for range calls[1:] {
		r, err := k.conn.ReadReply()
		if err != nil {
			return 0, v, node, orCause(ctx, err)
		}
		if refused == nil {
			refused = r.Err()
		}
	}
	if refused != nil {
		return 0, v, node, refused
	}
	if n, err := k.header(resp.KindArray); err != nil || n != int64(len(calls)-2) {
		return 0, v, node, errors.Join(fmt.Errorf("EXEC: %d replies to %d commands", n, len(calls)-2), orCause(ctx, err))
	}
	if _, err := k.conn.ReadReply(); err != nil { // of SELECT
		return 0, v, node, orCause(ctx, err)
	}
	if size, err = k.payload(to); err != nil {
		return 0, v, node, orCause(ctx, err)
	}
	var rest [3]resp.Reply
	for i := range rest {
		if rest[i], err = k.conn.ReadReply(); err == nil {
			err = rest[i].Err()
		}
		if err != nil {
			return 0, v, node, orCause(ctx, err)
		}
	}
	if deadline := rest[0].Int; deadline >= 0 && !k.whole {
		v.ExpireAt = max(milliseconds(rest[1])+deadline, 1)
	} else if deadline >= 0 {
		v.ExpireAt = max(deadline, 1)
	}
	return size, v, topology.ParseInfo(rest[2].Text), nil
}

// header reads the number in the first line of a reply of some kind.
func (k *KeyReader) header(kind byte) (int64, error) {
	line, err := k.conn.Reader.ReadString('\n')
	if err != nil {
		return 0, err
	}
	line = strings.TrimRight(line, "\r\n")
	switch {
	case line != "" && line[0] == resp.KindError:
		return 0, resp.NewError(line[1:])
	case line == "" || line[0] != kind:
		return 0, &resp.ProtocolError{Reason: "another kind of reply than was expected"}
	}
	return resp.ParseInt([]byte(line[1:]))
}

// payload copies a bulk reply, which is -1 for a key that does not exist.
func (k *KeyReader) payload(to io.Writer) (size int64, err error) {
	if size, err = k.header(resp.KindBulk); err != nil || size < 0 {
		return 0, err
	}
	if _, err := io.CopyN(to, k.conn.Reader, size); err != nil {
		return 0, err
	}
	_, err = k.conn.Reader.Discard(len("\r\n"))
	return size, err
}

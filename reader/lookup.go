package reader

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// KeyReader reads keys from the server that a link reads its stream from, on a connection of its own. One goroutine
// uses it.
type KeyReader struct {
	p      *PSYNC
	conn   *resp.Conn
	addr   string // of conn
	valkey bool   // conn leads to a Valkey
	whole  bool   // it has PEXPIRETIME
}

// Keys returns a reader of this link's keys.
func (p *PSYNC) Keys() *KeyReader { return &KeyReader{p: p} }

// Close ends the connection, if there is one.
func (k *KeyReader) Close() {
	if k.conn != nil {
		_ = k.conn.Close()
		k.conn = nil
	}
}

// ReadKeys returns what the source has of keys, all at one offset of the link's stream, which is not before from. It
// tries once. A *resp.Error says that the source does not let keys be read, and haul.ErrSuperseded that its history is
// lost; after any other error a later try may succeed.
func (k *KeyReader) ReadKeys(ctx context.Context, from int64, keys []haul.KeyName) ([]haul.Value, int64, error) {
	if k.p.superseded.Load() {
		return nil, 0, haul.ErrSuperseded
	}
	values, offset, err := k.read(ctx, from, keys)
	if err != nil && !errors.As(err, new(*resp.Error)) {
		k.Close()
	}
	return values, offset, err
}

func (k *KeyReader) read(ctx context.Context, from int64, keys []haul.KeyName) ([]haul.Value, int64, error) {
	values, node, err := k.readNode(ctx, keys)
	if err != nil {
		return nil, 0, err
	}
	return values, node.MasterReplOffset, k.p.ahead(node, from)
}

// readNode reads keys, and what the source says of itself at that moment.
func (k *KeyReader) readNode(ctx context.Context, keys []haul.KeyName) ([]haul.Value, topology.Node, error) {
	if err := k.open(ctx); err != nil {
		return nil, topology.Node{}, notYetRead(err)
	}
	replies, err := k.ask(ctx, k.questions(keys))
	if err != nil {
		return nil, topology.Node{}, notYetRead(err)
	}
	return k.parse(keys, replies)
}

// SlotKeys returns the keys of a slot that the source has, all at one offset of the link's stream, which is not before
// from. Errors are those of ReadKeys.
func (k *KeyReader) SlotKeys(ctx context.Context, from int64, slot uint16) ([]haul.KeyName, int64, error) {
	if k.p.superseded.Load() {
		return nil, 0, haul.ErrSuperseded
	}
	keys, offset, err := k.slot(ctx, from, strconv.Itoa(int(slot)))
	if err != nil && !errors.As(err, new(*resp.Error)) {
		k.Close()
	}
	return keys, offset, err
}

func (k *KeyReader) slot(ctx context.Context, from int64, slot string) ([]haul.KeyName, int64, error) {
	if err := k.open(ctx); err != nil {
		return nil, 0, notYetRead(err)
	}
	for most := 1024; ; most *= 8 {
		about, err := k.conn.Do(ctx, k.p.cfg.ReplyTimeout, "INFO", "keyspace")
		if err != nil {
			return nil, 0, notYetRead(err)
		}
		dbs := []int{0}
		for db := range topology.ParseInfo(about.Text).Keyspace {
			if db > 0 {
				dbs = append(dbs, db)
			}
		}
		keys, node, full, err := k.list(ctx, slot, most, dbs)
		if err != nil {
			return nil, 0, notYetRead(err)
		}
		if !full {
			return keys, node.MasterReplOffset, k.p.ahead(node, from)
		}
	}
}

// list asks for up to most keys of a slot in each database, in one transaction. It tells whether some database may have
// more.
func (k *KeyReader) list(ctx context.Context, slot string, most int, dbs []int) (keys []haul.KeyName, node topology.Node, full bool, err error) {
	calls := [][]string{{"MULTI"}}
	for _, db := range dbs {
		if len(dbs) > 1 { // few clusters have more than one
			calls = append(calls, []string{"SELECT", strconv.Itoa(db)})
		}
		calls = append(calls, []string{"CLUSTER", "GETKEYSINSLOT", slot, strconv.Itoa(most)})
	}
	replies, err := k.ask(ctx, append(calls, []string{"INFO", "replication"}, []string{"EXEC"}))
	if err != nil {
		return nil, node, false, err
	}
	lists := replies[:len(replies)-1]
	for i, db := range dbs {
		r := lists[(i+1)*len(lists)/len(dbs)-1]
		if err := r.Err(); err != nil {
			return nil, node, false, err
		}
		full = full || len(r.Array) >= most
		for _, name := range r.Array {
			keys = append(keys, haul.KeyName{DB: int32(db), Name: name.Text})
		}
	}
	return keys, topology.ParseInfo(replies[len(replies)-1].Text), full, nil
}

// notYetRead tells errors of a source that cannot answer at the moment from those of one that will not. The former hold
// no *resp.Error.
func notYetRead(err error) error {
	var refused *resp.Error
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case "LOADING", "BUSY", "MASTERDOWN", "NOAUTH", "WRONGPASS", "MISCONF", "OOM":
		return fmt.Errorf("%w: %s", errNotNow, refused.Text)
	}
	return err
}

// open connects to where the link is connected.
func (k *KeyReader) open(ctx context.Context) error {
	addr, err := k.p.address(ctx)
	if err != nil {
		return err
	}
	if k.conn != nil && k.addr == addr {
		return nil
	}
	k.Close()
	conn, err := k.p.cfg.Dialer.Open(ctx, addr)
	if err != nil {
		return err
	}
	node, err := topology.Inspect(ctx, conn)
	if err == nil { // being read must not make a key look used; before Redis 7.2 that cannot be helped
		_, err = conn.Do(ctx, handshakeTimeout, "CLIENT", "NO-TOUCH", "ON")
	}
	if node.Cluster && node.Role == "slave" && (err == nil || errors.As(err, new(*resp.Error))) { // else it sends us to its primary
		_, err = conn.Do(ctx, handshakeTimeout, "READONLY")
	}
	if err != nil && !errors.As(err, new(*resp.Error)) {
		_ = conn.Close()
		return err
	}
	k.conn, k.addr = conn, addr
	k.valkey = node.Product == "valkey"
	k.whole = k.valkey || node.Product == "redict" || node.AtLeast(7, 0)
	return nil
}

// questions is one transaction: what it reads is of one moment, and INFO tells which.
func (k *KeyReader) questions(keys []haul.KeyName) [][]string {
	db := int32(-1)
	calls := [][]string{{"MULTI"}}
	for _, key := range keys {
		if key.DB != db {
			db = key.DB
			calls = append(calls, []string{"SELECT", strconv.Itoa(int(db))})
		}
		deadline := "PEXPIRETIME"
		if !k.whole {
			deadline = "PTTL"
		}
		calls = append(calls, []string{"DUMP", key.Name}, []string{deadline, key.Name})
	}
	return append(calls, []string{"TIME"}, []string{"INFO", "replication"}, []string{"EXEC"})
}

// ask sends calls and returns the replies to those within the transaction. Of several refusals the first is the error.
func (k *KeyReader) ask(ctx context.Context, calls [][]string) ([]resp.Reply, error) {
	replies, err := k.send(ctx, calls)
	if err != nil {
		return nil, err
	}
	for _, r := range replies {
		if err := r.Err(); err != nil {
			return nil, err
		}
	}
	last := replies[len(replies)-1]
	if len(last.Array) != len(calls)-2 {
		return nil, fmt.Errorf("EXEC: %d replies to %d commands", len(last.Array), len(calls)-2)
	}
	return last.Array, nil
}

// send sends calls and returns the replies.
func (k *KeyReader) send(ctx context.Context, calls [][]string) ([]resp.Reply, error) {
	var out []byte
	for _, args := range calls {
		out = resp.AppendCommand(out, args...)
	}
	if err := k.conn.SetDeadline(time.Now().Add(k.p.cfg.ReplyTimeout)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = k.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := k.conn.Write(out); err != nil {
		return nil, orCause(ctx, err)
	}
	replies := make([]resp.Reply, len(calls))
	for i := range replies {
		var err error
		if replies[i], err = k.conn.ReadReply(); err != nil {
			return nil, orCause(ctx, err)
		}
	}
	return replies, nil
}

// parse reads what EXEC has answered.
func (k *KeyReader) parse(keys []haul.KeyName, replies []resp.Reply) ([]haul.Value, topology.Node, error) {
	for _, r := range replies {
		if err := r.Err(); err != nil {
			return nil, topology.Node{}, notYetRead(err)
		}
	}
	node := topology.ParseInfo(replies[len(replies)-1].Text)
	base := int64(0)
	if !k.whole {
		base = milliseconds(replies[len(replies)-2])
	}
	values, db, i := make([]haul.Value, len(keys)), int32(-1), 0
	for n, key := range keys {
		if key.DB != db {
			db = key.DB
			i++
		}
		payload, deadline := replies[i], replies[i+1]
		i += 2
		if payload.Null {
			continue
		}
		values[n].Payload = restamp(payload.Text, k.valkey)
		if deadline.Int >= 0 {
			values[n].ExpireAt = max(base+deadline.Int, 1)
		}
	}
	return values, node, nil
}

// milliseconds reads the reply of TIME.
func milliseconds(r resp.Reply) int64 {
	if len(r.Array) != 2 {
		return 0
	}
	seconds, _ := strconv.ParseInt(r.Array[0].Text, 10, 64)
	micros, _ := strconv.ParseInt(r.Array[1].Text, 10, 64)
	return seconds*1000 + micros/1000
}

// restamp makes a payload one that older servers take, too, if they know the type of its value: as keys of the snapshot
// are. One that begins with metadata stays as it is.
func restamp(payload string, valkey bool) string {
	const firstOpcode = 128
	if len(payload) <= rdb.FooterSize || payload[0] >= firstOpcode {
		return payload
	}
	value := []byte(payload[:len(payload)-rdb.FooterSize])
	return string(rdb.AppendFooter(value, rdb.FooterVersion(value[0], valkey, false), rdb.CRC64(0, value)))
}

// ahead makes the link know that the target is about to hold what the source had at its offset: should the source be
// replaced by a node with less than that, history is lost. It fails while that offset is not one of this link's history.
func (p *PSYNC) ahead(node topology.Node, from int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.follows(node, from); err != nil {
		return err
	}
	p.highest = max(p.highest, node.MasterReplOffset)
	return nil
}

// follows fails while the source's offset is not one of this link's history that is not before from. The link must be
// locked.
func (p *PSYNC) follows(node topology.Node, from int64) error {
	switch {
	case node.ReplID != p.lineage.ReplID:
		return fmt.Errorf("%w: the source has replication id %s, and the link follows %s", errNotNow, node.ReplID, p.lineage.ReplID)
	case node.MasterReplOffset < from:
		return fmt.Errorf("%w: the source is at offset %d, and %d was read", errNotNow, node.MasterReplOffset, from)
	}
	return nil
}

package checkpoint

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// scanCount is how many keys a SCAN asks for.
const scanCount = "1000"

// sweep goes over all keys of the target but those of keyhaul: of every database of every primary.
type sweep struct {
	store *Store
	what  string // it does, for messages

	// begin makes what looks at the keys of one node. Nodes are swept at once.
	begin func(ctx context.Context, c *conn, about topology.Node) (visitor, error)
	tick  func(seen, changed int64) // may be nil; is called by one goroutine at a time

	mu            sync.Mutex // guards the following and tick
	seen, changed int64
}

// visitor looks at keys.
type visitor interface {
	// ask adds the questions about a key, as many for each.
	ask(b *batch, key string)
	// decide returns the command that changes the key, or nil. Its integer reply is how much was changed.
	decide(db int32, key string, replies []resp.Reply) ([]string, error)
}

// run sweeps until it has gone through without an error, and without slots having moved: SCAN misses keys that move
// from a node that was not reached yet to one that was. So what it does must bear repetition. It tries until ctx ends.
func (w *sweep) run(ctx context.Context) error {
	return w.store.retry(ctx, w.what, func(ctx context.Context, l *layout) error {
		for {
			w.mu.Lock()
			w.seen = 0
			w.mu.Unlock()
			err := l.each(ctx, func(ctx context.Context, n node) error {
				return w.store.fresh(ctx, n.addr, true, func(c *conn) error { return c.fail(w.what, w.node(ctx, c)) })
			})
			if err != nil {
				return err
			}
			now, err := w.store.look(ctx, true)
			if err != nil || l.same(now) {
				return err
			}
			l = now
		}
	})
}

func (w *sweep) node(ctx context.Context, c *conn) error {
	about, err := topology.Inspect(ctx, c.Conn)
	if err != nil {
		return err
	}
	v, err := w.begin(ctx, c, about)
	if err != nil {
		return err
	}
	dbs := slices.Sorted(maps.Keys(about.Keyspace))
	if !slices.Contains(dbs, 0) { // some servers tell nothing of their databases
		dbs = slices.Insert(dbs, 0, 0)
	}
	for _, db := range dbs {
		if db != 0 { // which comes first, and is selected from the start
			if _, err := c.do(ctx, "SELECT", strconv.Itoa(db)); err != nil {
				return err
			}
		}
		if err := w.database(ctx, c, int32(db), v); err != nil {
			return err
		}
	}
	return nil
}

// database sweeps the selected database. Each round trip carries the changes of the batch before the last, the
// questions about the last, and the next SCAN.
func (w *sweep) database(ctx context.Context, c *conn, db int32, v visitor) error {
	r := round{db: db, visitor: v}
	for cursor := "0"; ; {
		var b batch
		for _, args := range r.changes {
			b.add(args...)
		}
		for _, key := range r.keys {
			v.ask(&b, key)
		}
		if cursor != "" {
			b.add("SCAN", cursor, "COUNT", scanCount)
		}
		if b.n == 0 && len(r.keys) == 0 {
			return nil
		}
		replies, err := c.ask(ctx, &b)
		if err != nil {
			return err
		}
		seen := len(r.keys)
		changed, err := r.take(replies, &cursor)
		if err != nil {
			return err
		}
		w.count(int64(seen), changed)
	}
}

func (w *sweep) count(seen, changed int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen += seen
	w.changed += changed
	if w.tick != nil {
		w.tick(w.seen, w.changed)
	}
}

// round is what the next round trip carries.
type round struct {
	visitor
	db      int32
	changes [][]string
	keys    []string
}

// take reads the replies and makes the next round of them. It sets cursor, to "" behind the end.
func (r *round) take(replies []resp.Reply, cursor *string) (changed int64, err error) {
	for _, reply := range replies[:len(r.changes)] {
		changed += reply.Int
	}
	answers := replies[len(r.changes):]
	var page []string
	if *cursor != "" {
		last := answers[len(answers)-1].Array
		answers = answers[:len(answers)-1]
		if len(last) != 2 {
			return changed, errors.New("SCAN has no cursor and keys")
		}
		*cursor = last[0].Text
		if *cursor == "0" {
			*cursor = ""
		}
		for _, key := range last[1].Array {
			if !strings.HasPrefix(key.Text, Prefix) {
				page = append(page, key.Text)
			}
		}
	}
	r.changes = r.changes[:0]
	for i, key := range r.keys {
		each := len(answers) / len(r.keys)
		args, err := r.decide(r.db, key, answers[i*each:(i+1)*each])
		if err != nil {
			return changed, err
		}
		if args != nil {
			r.changes = append(r.changes, args)
		}
	}
	r.keys = page
	return changed, nil
}

// Prune removes every key that keep lacks, but for those under Prefix. It returns how many keys it removed, and tells
// tick how many it has seen and removed so far; a pass that is repeated counts what it sees anew. It tries until ctx
// ends, or keep fails.
func (s *Store) Prune(ctx context.Context, keep *KeySet, tick func(seen, removed int64)) (int64, error) {
	w := &sweep{
		store: s, what: "remove keys that the source lacks", tick: tick,
		begin: func(context.Context, *conn, topology.Node) (visitor, error) { return pruner{keep}, nil },
	}
	err := w.run(ctx)
	return w.changed, err
}

type pruner struct{ keep *KeySet }

func (pruner) ask(*batch, string) {}

func (p pruner) decide(db int32, key string, _ []resp.Reply) ([]string, error) {
	kept, err := p.keep.Has(db, []byte(key))
	if err != nil {
		return nil, &topology.Permanent{Err: err}
	}
	if kept {
		return nil, nil
	}
	return []string{"UNLINK", key}, nil
}

package checkpoint

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// scanCount is how many keys a SCAN asks for.
const scanCount = "500"

// sweep goes over all keys of the target but those of keyhaul: of every database of every primary.
type sweep struct {
	store *Store
	what  string // it does, for messages

	// begin makes what looks at the keys of one node. Nodes are swept at once.
	begin func(ctx context.Context, c *conn, about topology.Node) (visitor, error)
	same  bool                      // nodes must be the processes that Load has read
	tick  func(seen, changed int64) // may be nil; is called by one goroutine at a time

	mu            sync.Mutex // guards the following and tick
	seen, changed int64
}

// visitor looks at keys, at several at once.
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
	if w.same {
		if err := w.store.sameProcess(ctx, c); err != nil {
			return err
		}
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

// lookers is how many connections look at the keys of a node that another one finds: so that neither the server nor this
// process waits for the other.
const lookers = 2

// database sweeps the selected database.
func (w *sweep) database(ctx context.Context, c *conn, db int32, v visitor) error {
	pages := make(chan []string, lookers)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(pages)
		return w.scan(ctx, c, pages)
	})
	for range lookers {
		group.Go(func() error {
			return w.store.fresh(ctx, c.addr, true, func(c *conn) error {
				if db != 0 {
					if _, err := c.do(ctx, "SELECT", strconv.Itoa(int(db))); err != nil {
						return err
					}
				}
				return c.fail(w.what, w.look(ctx, c, db, v, pages))
			})
		})
	}
	return group.Wait()
}

// scan finds the keys to look at: none of keyhaul's own.
func (w *sweep) scan(ctx context.Context, c *conn, pages chan<- []string) error {
	for cursor := "0"; ; {
		r, err := c.do(ctx, "SCAN", cursor, "COUNT", scanCount)
		if err != nil {
			return err
		}
		if len(r.Array) != 2 {
			return errors.New("SCAN has no cursor and keys")
		}
		page := make([]string, 0, len(r.Array[1].Array))
		for _, key := range r.Array[1].Array {
			if !strings.HasPrefix(key.Text, Prefix) {
				page = append(page, key.Text)
			}
		}
		select {
		case pages <- page:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if cursor = r.Array[0].Text; cursor == "0" {
			return nil
		}
	}
}

// look visits keys. Each round trip carries the changes of a page and the questions about the next.
func (w *sweep) look(ctx context.Context, c *conn, db int32, v visitor, pages <-chan []string) error {
	var b batch
	for more := true; more; {
		var keys []string
		keys, more = <-pages
		changes := b.n
		for _, key := range keys {
			v.ask(&b, key)
		}
		replies, err := c.ask(ctx, &b)
		if err != nil {
			return err
		}
		var changed int64
		for _, r := range replies[:changes] {
			changed += r.Int
		}
		b = batch{out: b.out[:0]}
		answers := replies[changes:]
		each := len(answers) / max(len(keys), 1)
		for i, key := range keys {
			args, err := v.decide(db, key, answers[i*each:(i+1)*each])
			if err != nil {
				return err
			}
			if args != nil {
				b.add(args...)
			}
		}
		w.count(int64(len(keys)), changed)
	}
	return nil
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

// Prune removes every key that keep lacks, but for those under Prefix, and those in slots that are not the link's. It returns how many keys it removed, and tells
// tick how many it has seen and removed so far; a pass that is repeated counts what it sees anew. It tries until ctx
// ends, or keep fails.
func (s *Store) Prune(ctx context.Context, keep *KeySet, tick func(seen, removed int64)) (int64, error) {
	w := &sweep{
		store: s, what: "remove keys that the source lacks", tick: tick, same: true,
		begin: func(context.Context, *conn, topology.Node) (visitor, error) { return pruner{keep, s.mine}, nil },
	}
	err := w.run(ctx)
	return w.changed, err
}

type pruner struct {
	keep *KeySet
	mine func(slot uint16) bool
}

func (pruner) ask(*batch, string) {}

func (p pruner) decide(db int32, key string, _ []resp.Reply) ([]string, error) {
	if !p.mine(command.Slot([]byte(key))) {
		return nil, nil
	}
	kept, err := p.keep.Has(db, []byte(key))
	if err != nil {
		return nil, &topology.Permanent{Err: err}
	}
	if kept {
		return nil, nil
	}
	return []string{"UNLINK", key}, nil
}

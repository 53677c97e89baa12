package redistest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// side is one of the two that Compare reads, or the one that load goes to: a server, or the primaries of a cluster.
type side struct {
	name  string // source, target or load, for messages
	ep    Endpoint
	nodes []string
	table []string // owner of each slot, nil for a server without cluster
	dbs   []int    // that hold keys

	deadlines      bool // PEXPIRETIME (Redis 7.0)
	digest         bool // DEBUG DIGEST-VALUE, where enable-debug-command and the ACL allow it
	knowsFieldTTLs bool // HPEXPIRETIME (Redis 7.4, Valkey 9.0)
	fieldTTLs      bool // some hash has fields with deadlines
}

// newSide learns which nodes a side has.
func newSide(ctx context.Context, name string, ep Endpoint) (*side, error) {
	if len(ep.Addrs) == 0 {
		return nil, fmt.Errorf("redistest: no address of the %s", name)
	}
	s := &side{name: name, ep: ep}
	p, err := s.anyNode(ctx)
	if err != nil {
		return nil, err
	}
	defer p.close()
	info, err := p.do(ctx, "INFO", "cluster")
	if err != nil {
		return nil, err
	}
	s.nodes = []string{p.addr}
	if parseInfo(info.Text)["cluster_enabled"] != "1" {
		return s, nil
	}
	r, err := p.do(ctx, "CLUSTER", "SLOTS")
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(p.addr)
	if s.table, err = parseSlots(r, host); err != nil {
		return nil, fmt.Errorf("%w (%s)", err, name)
	}
	s.nodes = slices.Compact(slices.Sorted(slices.Values(s.table)))
	return s, nil
}

// openSide learns what a side is, can do and holds.
func openSide(ctx context.Context, name string, ep Endpoint) (*side, error) {
	s, err := newSide(ctx, name, ep)
	if err != nil {
		return nil, err
	}
	p, err := ep.pipe(ctx, s.nodes[0])
	if err != nil {
		return nil, err
	}
	defer p.close()
	for known, command := range map[*bool][]string{
		&s.deadlines:      {"PEXPIRETIME", "k"},
		&s.digest:         {"DEBUG", "DIGEST-VALUE", "k"},
		&s.knowsFieldTTLs: {"HPEXPIRETIME", "k", "FIELDS", "1", "f"},
	} {
		p.add(command...)
		replies, err := p.exchange(ctx)
		if err != nil {
			return nil, err
		}
		refused := replies[0].Err()
		var redirected *resp.Error
		*known = refused == nil || errors.As(refused, &redirected) && redirected.Code == "MOVED"
	}
	return s, s.learnDatabases(ctx)
}

// anyNode connects to the first address that answers.
func (s *side) anyNode(ctx context.Context) (*pipe, error) {
	var errs []error
	for _, addr := range s.ep.Addrs {
		p, err := s.ep.pipe(ctx, addr)
		if err == nil {
			return p, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("redistest: no address of the %s answers: %w", s.name, errors.Join(errs...))
}

// learnDatabases finds the databases that hold keys on any node, and whether hashes have fields with deadlines.
func (s *side) learnDatabases(ctx context.Context) error {
	sess := s.session()
	defer sess.close()
	dbs := make(map[int]bool)
	for _, node := range s.nodes {
		p, err := sess.node(ctx, node, 0)
		if err != nil {
			return err
		}
		r, err := p.do(ctx, "INFO", "keyspace")
		if err != nil {
			return err
		}
		for name, line := range parseInfo(r.Text) {
			n, err := strconv.Atoi(strings.TrimPrefix(name, "db"))
			if err != nil {
				return fmt.Errorf("redistest: %s: INFO keyspace names %q", node, name)
			}
			dbs[n] = true
			for _, field := range []string{"subexpiry", "keys_with_volatile_items"} { // Redis, Valkey
				if _, count, ok := strings.Cut(line, field+"="); ok && !strings.HasPrefix(count, "0") {
					s.fieldTTLs = true
				}
			}
		}
	}
	s.dbs = slices.Sorted(maps.Keys(dbs))
	return nil
}

// scan gives all keys, database by database and node by node.
func (s *side) scan(ctx context.Context, yield func(db int, keys []string) error) error {
	sess := s.session()
	defer sess.close()
	for _, db := range s.dbs {
		for _, node := range s.nodes {
			p, err := sess.node(ctx, node, db)
			if err != nil {
				return err
			}
			if err := scanNode(ctx, p, func(keys []string) error { return yield(db, keys) }); err != nil {
				return err
			}
		}
	}
	return nil
}

func scanNode(ctx context.Context, p *pipe, yield func(keys []string) error) error {
	for cursor := "0"; ; {
		r, err := p.do(ctx, "SCAN", cursor, "COUNT", strconv.Itoa(compareBatch))
		if err != nil {
			return err
		}
		if len(r.Array) != 2 {
			return fmt.Errorf("redistest: %s: SCAN gave %d elements", p.addr, len(r.Array))
		}
		if keys := textsOf(r.Array[1].Array); len(keys) > 0 {
			if err := yield(keys); err != nil {
				return err
			}
		}
		if cursor = r.Array[0].Text; cursor == "0" {
			return nil
		}
	}
}

func textsOf(replies []resp.Reply) []string {
	out := make([]string, len(replies))
	for i, r := range replies {
		out[i] = r.Text
	}
	return out
}

// noSuchKey is how XINFO answers for a key that expired since its type was read.
const noSuchKey = "ERR no such key"

// session is one worker's connections to a side.
type session struct {
	*side
	pipes map[string]*pipe
}

func (s *side) session() *session { return &session{side: s, pipes: make(map[string]*pipe)} }

func (s *session) close() {
	for _, p := range s.pipes {
		p.close()
	}
}

// node returns the connection to a node, with a database selected.
func (s *session) node(ctx context.Context, addr string, db int) (*pipe, error) {
	p := s.pipes[addr]
	if p == nil {
		var err error
		if p, err = s.ep.pipe(ctx, addr); err != nil {
			return nil, err
		}
		s.pipes[addr] = p
	}
	return p, p.selectDB(ctx, db)
}

// split groups the indices of keys by the node that holds them.
func (s *session) split(keys []string) map[string][]int {
	parts := make(map[string][]int)
	for i, key := range keys {
		node := s.nodes[0]
		if s.table != nil {
			node = s.table[Slot(key)]
		}
		parts[node] = append(parts[node], i)
	}
	return parts
}

// ask sends commands about keys to the nodes that hold them, and gives each reply to take. commands returns those of
// one key; take gets the index of the key and the replies in the same order. An error reply ends it, except noSuchKey.
func (s *session) ask(ctx context.Context, db int, keys []string, commands func(i int) [][]string, take func(i int, r []resp.Reply) error) error {
	for addr, part := range s.split(keys) {
		p, err := s.node(ctx, addr, db)
		if err != nil {
			return err
		}
		counts := make([]int, len(part))
		for n, i := range part {
			for _, command := range commands(i) {
				p.add(command...)
				counts[n]++
			}
		}
		replies, err := p.exchange(ctx)
		if err != nil {
			return err
		}
		for n, i := range part {
			mine := replies[:counts[n]]
			replies = replies[counts[n]:]
			for _, r := range mine {
				if err := r.Err(); err != nil && r.Text != noSuchKey {
					return fmt.Errorf("redistest: %s %s: key %s: %w", s.name, addr, quote(keys[i]), err)
				}
			}
			if err := take(i, mine); err != nil {
				return err
			}
		}
	}
	return nil
}

// missing returns those of keys that do not exist.
func (s *session) missing(ctx context.Context, db int, keys []string) ([]string, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	if s.table == nil { // one command tells whether all are there
		p, err := s.node(ctx, s.nodes[0], db)
		if err != nil {
			return nil, err
		}
		r, err := p.do(ctx, append([]string{"EXISTS"}, keys...)...)
		if err != nil || r.Int == int64(len(keys)) {
			return nil, err
		}
	}
	var missing []string
	err := s.ask(ctx, db, keys,
		func(i int) [][]string { return [][]string{{"EXISTS", keys[i]}} },
		func(i int, r []resp.Reply) error {
			if r[0].Int == 0 {
				missing = append(missing, keys[i])
			}
			return nil
		})
	return missing, err
}

// quote shows a key or value in a message, cut short.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		return fmt.Sprintf("%q… (%d bytes)", s[:most], len(s))
	}
	return strconv.Quote(s)
}

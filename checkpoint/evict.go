package checkpoint

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// Evict kills the connections that match on the node at addr, and returns how many were killed when none is left. What
// they had sent is carried out by then, or never will be. Its own connection is spared. Where the server forbids
// CLIENT LIST or CLIENT KILL the error is a *resp.Error, with code NOPERM. It tries once.
func (s *Store) Evict(ctx context.Context, addr string, match func(id int64, name string) bool) (int, error) {
	killed := 0
	err := s.fresh(ctx, addr, false, func(c *conn) error {
		own := int64(-1)
		if r, err := c.do(ctx, "CLIENT", "ID"); err == nil {
			own = r.Int
		} else if !refused(err) {
			return err
		}
		for {
			n, err := c.kill(ctx, func(id int64, name string) bool { return id != own && match(id, name) })
			killed += n
			if err != nil || n == 0 {
				return err
			}
			if err := sleep(ctx, time.Millisecond); err != nil {
				return err
			}
		}
	})
	return killed, err
}

// kill kills all listed connections that match. It returns 0 if none is listed.
func (c *conn) kill(ctx context.Context, match func(id int64, name string) bool) (int, error) {
	clients, err := c.clients(ctx)
	if err != nil {
		return 0, err
	}
	var b batch
	for id, x := range clients {
		if match(id, x.name) {
			b.add("CLIENT", "KILL", "ID", strconv.FormatInt(id, 10))
		}
	}
	if _, err := c.ask(ctx, &b); err != nil && !strings.Contains(err.Error(), "No such client") {
		return 0, c.fail("CLIENT KILL", err)
	}
	return b.n, nil
}

// client is a connection that a server lists.
type client struct{ name, addr string }

// clients returns the server's connections by their ids.
func (c *conn) clients(ctx context.Context) (map[int64]client, error) {
	r, err := c.do(ctx, "CLIENT", "LIST")
	if err != nil {
		return nil, err
	}
	clients := map[int64]client{}
	for line := range strings.Lines(r.Text) {
		var id int64
		var x client
		for field := range strings.FieldsSeq(line) {
			if text, ok := strings.CutPrefix(field, "id="); ok {
				id, _ = strconv.ParseInt(text, 10, 64)
			} else if text, ok := strings.CutPrefix(field, "name="); ok {
				x.name = text
			} else if text, ok := strings.CutPrefix(field, "addr="); ok {
				x.addr = text
			}
		}
		if id > 0 {
			clients[id] = x
		}
	}
	return clients, nil
}

// workerName is the name of all connections of a worker to the target. Those of one link of several have linkName.
func (s *Store) workerName(worker string) string { return Prefix + s.cfg.Name + ":" + worker }

// LinkName is the name of the connections of one link of a worker, whose own name is worker.
func LinkName(worker, link string) string { return worker + "." + link }

// isOf tells whether a connection with this name is one of a worker, whatever its link.
func isOf(worker, name string) bool {
	return name == worker || strings.HasPrefix(name, LinkName(worker, ""))
}

// EvictSelf ends all connections of this worker, those of its links included, on every primary and replica: what its closed connections have sent is
// carried out by then, or never will be. Those of the Store and of the lease are opened again when they are used. It
// tries until ctx ends.
func (s *Store) EvictSelf(ctx context.Context) error {
	return s.retry(ctx, "end this worker's connections", func(ctx context.Context, _ *layout) error {
		l, err := s.look(ctx, true) // there may be others than when it was last looked
		if err != nil {
			return err
		}
		for _, addr := range l.all() {
			_, err := s.Evict(ctx, addr, func(_ int64, name string) bool { return isOf(s.cfg.Dialer.ClientName, name) })
			if err != nil && !unavailable(err) {
				return err
			}
		}
		return nil
	})
}

// evictImporter ends the connections of this worker's link, and of all other workers, on a node that has no slots of its
// own yet, once since Load has begun: none of the others here looks at it. It is called while the link does not write.
func (s *Store) evictImporter(ctx context.Context, addr string) error {
	s.evicting.Lock()
	defer s.evicting.Unlock()
	if s.evicted[addr] {
		return nil
	}
	own, _, _ := strings.Cut(strings.TrimPrefix(s.cfg.Dialer.ClientName, s.workerName("")), LinkName("", ""))
	_, err := s.Evict(ctx, addr, func(_ int64, name string) bool {
		other, ok := strings.CutPrefix(name, s.workerName(""))
		return ok && !strings.Contains(other, ":") && (name == s.cfg.Dialer.ClientName || !isOf(s.workerName(own), name))
	})
	if err != nil && !unavailable(err) {
		return err
	}
	s.evicted[addr] = true
	return nil
}

// evictOthers kills, on every primary and replica, the connections of all workers of this haul but one: also of those
// before the last, who may have been taken over from by one who died before it had done this. false means that the
// target's servers do not allow it.
func (s *Store) evictOthers(ctx context.Context, worker string) (allowed bool, err error) {
	spared := s.workerName(worker)
	match := func(_ int64, name string) bool {
		other, ok := strings.CutPrefix(name, s.workerName(""))
		return ok && !isOf(spared, name) && name != s.cfg.Dialer.ClientName && !strings.Contains(other, ":")
	}
	l, err := s.look(ctx, true)
	if err != nil {
		return true, err
	}
	for _, addr := range l.all() {
		n, err := s.Evict(ctx, addr, match)
		if unavailable(err) {
			return false, nil
		}
		if err != nil {
			return true, err
		}
		if n > 0 {
			s.cfg.Log.Info().Str("node", addr).Int("connections", n).Msg("ended the connections of an earlier worker")
		}
	}
	return true, nil
}

// connected returns where a worker is connected to any node from; empty if it is not. known is false where the target's
// servers do not say.
func (s *Store) connected(ctx context.Context, worker string) (from string, known bool, err error) {
	l, err := s.look(ctx, true)
	if err != nil {
		return "", true, err
	}
	for _, addr := range l.all() {
		var clients map[int64]client
		err := s.fresh(ctx, addr, false, func(c *conn) (err error) {
			clients, err = c.clients(ctx)
			return err
		})
		if unavailable(err) {
			return "", false, nil
		}
		if err != nil {
			return "", true, err
		}
		for _, x := range clients {
			if isOf(s.workerName(worker), x.name) {
				return x.addr, true, nil
			}
		}
	}
	return "", true, nil
}

// unavailable tells whether a server does not have a command or does not let us use it.
func unavailable(err error) bool {
	return code(err) == "NOPERM" || code(err) == "ERR" && !heals(err)
}

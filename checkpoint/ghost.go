package checkpoint

import (
	"context"
	"slices"
)

// ghost is a connection to write with that was given up: what it has sent may still be carried out.
type ghost struct {
	addr string
	id   int64 // the server's number of the connection
}

// giveUp closes a connection. Unless it has answered everything it is remembered as a ghost.
func (s *Store) giveUp(c *conn, err error) {
	_ = c.Close()
	if c.id == 0 || err == nil || refused(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ghosts = append(s.ghosts, ghost{c.addr, c.id})
}

// layGhosts ends what is left of connections that were given up, on the nodes of l: behind it, nothing that they have
// sent is carried out any more. Where the servers do not allow it they are forgotten. It tries once.
func (s *Store) layGhosts(ctx context.Context, l *layout) error {
	s.mu.Lock()
	ghosts := slices.Clone(s.ghosts)
	s.mu.Unlock()
	for _, addr := range l.all() {
		if !slices.ContainsFunc(ghosts, func(g ghost) bool { return g.addr == addr }) {
			continue
		}
		_, err := s.Evict(ctx, addr, func(id int64, name string) bool {
			return name == s.cfg.Dialer.ClientName && slices.Contains(ghosts, ghost{addr, id})
		})
		if err != nil && !unavailable(err) {
			return err
		}
		s.mu.Lock()
		s.ghosts = slices.DeleteFunc(s.ghosts, func(g ghost) bool { return slices.Contains(ghosts, g) && g.addr == addr })
		s.mu.Unlock()
	}
	return nil
}

package checkpoint

import "context"

// Look reads the record of the haul, or of one of its links, and nothing else. It tries once. It is for those who only
// watch: what the store remembers does not change.
func (s *Store) Look(ctx context.Context, link string) (r Record, found bool, err error) {
	l, err := s.look(ctx, true)
	if err != nil {
		return Record{}, false, err
	}
	keys := Keys{s.cfg.Name, link}
	err = s.fresh(ctx, l.owner().addr, false, func(c *conn) error {
		reply, err := c.do(ctx, "GET", keys.Record())
		if err != nil || reply.Null {
			return err
		}
		found = true
		if r, err = parseRecord(reply.Text); err != nil {
			return s.unreadable(err)
		}
		return nil
	})
	return r, found, err
}

package rdb

import "fmt"

// streamType is the richest type of a stream that the release reads.
func (to Release) streamType() byte {
	for t := byte(TypeStream5); t > TypeStream; t-- {
		if typeKind(t, false) == TypeStream && to.reads(t, false) {
			return t
		}
	}
	return TypeStream
}

// splice copies the bytes of a value but for those that are left out.
type splice struct {
	cursor
	dst  []byte
	mark int // what is before it is copied or left out
}

// copied copies what was passed.
func (s *splice) copied() {
	s.dst = append(s.dst, s.buf[s.mark:s.pos]...)
	s.mark = s.pos
}

// pass copies what f passes if keep is set, else leaves it out.
func (s *splice) pass(keep bool, f func() error) error {
	s.copied()
	err := f()
	if !keep {
		s.mark = s.pos
	}
	return err
}

// rewriteStream appends a stream of type from as one of type to, which is poorer: each version only adds to the one before.
func rewriteStream(dst, body []byte, from, to byte) (out []byte, lost string, err error) {
	s := &splice{cursor: cursor{buf: body}, dst: dst}
	err = s.stream(from, to, &lost)
	if err == nil {
		err = s.end()
	}
	s.copied()
	return s.dst, lost, s.at(err)
}

func (s *splice) stream(from, to byte, lost *string) error {
	nodes, err := s.count()
	for ; nodes > 0 && err == nil; nodes-- {
		if err = s.skipString(); err == nil {
			err = s.skipString()
		}
	}
	if err == nil {
		err = s.counts(3) // length, last id
	}
	if err == nil && from >= TypeStream2 {
		err = s.pass(to >= TypeStream2, func() error { return s.counts(5) }) // first and greatest deleted id, entries added
	}
	if err != nil {
		return err
	}
	groups, err := s.count()
	for ; groups > 0 && err == nil; groups-- {
		err = s.group(from, to, lost)
	}
	if err != nil || from < TypeStream4 {
		return err
	}
	return s.pass(to >= TypeStream4, func() error {
		n, err := s.producers()
		if n > 0 && to < TypeStream4 {
			*lost = join(*lost, lostProducers)
		}
		return err
	})
}

// producers passes the idempotent producers and returns how many they are.
func (c *cursor) producers() (uint64, error) {
	if err := c.counts(2); err != nil { // how long and how many ids are kept
		return 0, err
	}
	all, err := c.count()
	for n := all; n > 0 && err == nil; n-- {
		if err = c.skipString(); err == nil {
			err = c.skipProducerIDs()
		}
	}
	if err == nil {
		err = c.counts(2) // ids added, duplicates
	}
	return all, err
}

func (s *splice) group(from, to byte, lost *string) error {
	err := s.skipString()
	if err == nil {
		err = s.counts(2) // last delivered id
	}
	if err == nil && from >= TypeStream2 {
		err = s.pass(to >= TypeStream2, func() error { return s.counts(1) }) // entries read
	}
	if err != nil {
		return err
	}
	if err := s.ownedPending(from, lost); err != nil {
		return err
	}
	if err := s.consumers(from, func() error {
		return s.pass(to >= TypeStream3, func() error { return s.skip(8) })
	}, nil); err != nil || from < TypeStream5 {
		return err
	}
	return s.pass(to >= TypeStream5, s.nacked)
}

type rawID [16]byte

// pendingEntry passes one thing that a group has pending and returns its id.
func (c *cursor) pendingEntry() (rawID, error) {
	p, err := c.fixed(len(rawID{}) + 8) // id, time of delivery
	if err != nil {
		return rawID{}, err
	}
	id := rawID(p)
	return id, c.counts(1) // deliveries
}

// allPending passes what a group has pending and returns how much that is.
func (c *cursor) allPending() (uint64, error) {
	all, err := c.count()
	for n := all; n > 0 && err == nil; n-- {
		_, err = c.pendingEntry()
	}
	return all, err
}

// ownedPending passes what a group has pending and leaves out what no consumer has: other releases refuse such an entry,
// or end when they are asked for it.
func (s *splice) ownedPending(from byte, lost *string) error {
	owned, err := s.ownedAhead(from)
	if err != nil {
		return err
	}
	if owned == nil {
		_, err := s.allPending()
		return err
	}
	s.copied()
	n, err := s.count()
	s.mark = s.pos
	s.dst = appendLength(s.dst, uint64(len(owned)))
	for ; n > 0 && err == nil; n-- {
		from := s.pos
		var id rawID
		if id, err = s.pendingEntry(); err != nil || owned[id] {
			delete(owned, id)
			continue
		}
		s.dst = append(s.dst, s.buf[s.mark:from]...)
		s.mark = s.pos
	}
	if err == nil && len(owned) > 0 {
		err = fmt.Errorf("%w: an id of a consumer that its group lacks", ErrCorrupt)
	}
	*lost = join(*lost, lostUnowned)
	return err
}

// ownedAhead returns the ids that consumers of the group have pending, nil if that is all that is pending. It does not move.
func (s *splice) ownedAhead(from byte) (map[rawID]bool, error) {
	ahead := s.cursor
	all, err := ahead.allPending()
	if err != nil {
		return nil, ahead.at(err)
	}
	skipActive := func() error { return ahead.skip(8) }
	consumers := ahead
	with := uint64(0)
	err = ahead.consumers(from, skipActive, func(rawID) { with++ })
	if err != nil || with == all {
		return nil, ahead.at(err)
	}
	owned := make(map[rawID]bool)
	ahead = consumers
	err = ahead.consumers(from, skipActive, func(id rawID) { owned[id] = true })
	return owned, ahead.at(err)
}

// consumers passes consumers: name, when seen, when active by active, ids, of which each gets every one if it is there.
func (c *cursor) consumers(from byte, active func() error, each func(id rawID)) error {
	n, err := c.count()
	for ; n > 0 && err == nil; n-- {
		if err = c.skipString(); err == nil {
			err = c.skip(8)
		}
		if err == nil && from >= TypeStream3 {
			err = active()
		}
		if err != nil {
			return err
		}
		var ids uint64
		ids, err = c.count()
		for ; ids > 0 && err == nil; ids-- {
			var p []byte
			if p, err = c.fixed(len(rawID{})); err == nil && each != nil {
				each(rawID(p))
			}
		}
	}
	return err
}

// nacked passes the ids that no consumer has.
func (c *cursor) nacked() error {
	n, err := c.count()
	if err != nil {
		return err
	}
	if n > uint64(len(c.buf))/16 {
		return errShort
	}
	return c.skip(16 * n)
}

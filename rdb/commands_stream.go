package rdb

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
)

// streamCommands is what the elements before say about the next one.
type streamCommands struct {
	pending    []StreamID // that are not known to be of an entry, ascending
	deleted    []StreamID // those that are of none: an entry stands for each until it is pending
	info       StreamInfo
	entries    uint64 // that were added
	group      []byte
	consumer   []byte
	owned      bool // a consumer of the group was met
	delivered  int64
	deliveries uint64
}

// streamElement builds a stream: entries, what it knows of itself, groups, consumers, what they have pending. Entries that
// were deleted need nothing: the greatest of their ids and their number are set. But those that are still pending have to be
// there until they are: servers take no others.
func (c *commands) streamElement(e *Element) error {
	s := &c.stream
	if e.Kind == ElementPending {
		return c.pending(e)
	}
	if err := c.claim(); err != nil {
		return err
	}
	switch e.Kind {
	case ElementEntry:
		if err := c.deletedBefore(e.ID); err != nil {
			return err
		}
		if len(s.pending) > 0 && s.pending[0] == e.ID {
			s.pending = s.pending[1:]
		}
		return c.entry(e)
	case ElementStream:
		s.info = e.Stream
		return c.streamInfo()
	case ElementGroup:
		s.group, s.owned = append(s.group[:0], e.Name...), false
		c.words("XGROUP", "CREATE")
		c.arg(c.key)
		c.arg(s.group)
		c.id(e.ID)
		if e.EntriesRead >= 0 && c.to.since(7, 0) {
			c.words("ENTRIESREAD")
			c.number(e.EntriesRead)
		}
		return c.flush()
	case ElementConsumer:
		s.consumer, s.owned = append(s.consumer[:0], e.Name...), true
		return c.createConsumer()
	case ElementProducer:
		c.lost = join(c.lost, lostProducers)
	}
	return nil
}

func (c *commands) id(id StreamID) {
	c.buf = strconv.AppendUint(c.buf, id.MS, 10)
	c.buf = append(c.buf, '-')
	c.buf = strconv.AppendUint(c.buf, id.Seq, 10)
	c.ends = append(c.ends, len(c.buf))
}

func (c *commands) entry(e *Element) error {
	if len(e.Fields) == 0 {
		return fmt.Errorf("%w: the entry %d-%d of a stream has no fields", ErrUnsupported, e.ID.MS, e.ID.Seq)
	}
	c.stream.entries++
	c.begin("XADD")
	c.id(e.ID)
	for _, f := range e.Fields {
		c.arg(f)
	}
	return c.flush()
}

// deletedBefore adds an entry for each id before that one which is pending and has none.
func (c *commands) deletedBefore(id StreamID) error {
	s := &c.stream
	for len(s.pending) > 0 && s.pending[0].less(id) {
		s.entries++
		c.begin("XADD")
		c.id(s.pending[0])
		c.words("x", "y")
		if err := c.flush(); err != nil {
			return err
		}
		s.deleted = append(s.deleted, s.pending[0])
		s.pending = s.pending[1:]
	}
	return nil
}

// streamInfo makes a stream without entries, by one that is trimmed at once, and sets the counters.
func (c *commands) streamInfo() error {
	s := &c.stream
	if err := c.deletedBefore(s.info.Last.next()); err != nil {
		return err
	}
	if s.entries == 0 {
		c.begin("XADD")
		c.words("MAXLEN", "0", "0-1", "x", "y")
		if err := c.flush(); err != nil {
			return err
		}
	}
	return c.setID(max(s.info.Added, s.entries))
}

func (c *commands) setID(added uint64) error {
	s := &c.stream.info
	c.begin("XSETID")
	c.id(s.Last)
	if s.Extended && c.to.since(7, 0) {
		c.words("ENTRIESADDED")
		c.number(int64(added))
		c.words("MAXDELETEDID")
		c.id(s.MaxDeleted)
	}
	return c.flush()
}

// deleteAgain removes the entries that stood for deleted ones, and sets the counters that this has changed.
func (c *commands) deleteAgain() error {
	s := &c.stream
	if len(s.deleted) == 0 {
		return nil
	}
	for some := range slices.Chunk(s.deleted, commandElements) {
		c.begin("XDEL")
		for _, id := range some {
			c.id(id)
		}
		if err := c.flush(); err != nil {
			return err
		}
	}
	return c.setID(s.info.Added)
}

// pendingOf returns the ids that are pending in any group of a stream, ascending.
func pendingOf(v Value, r io.Reader) ([]StreamID, error) {
	var ids []StreamID
	err := v.Elements(r, func(e *Element) error {
		if e.Kind == ElementPending {
			ids = append(ids, e.ID)
		}
		return nil
	})
	slices.SortFunc(ids, func(a, b StreamID) int {
		return cmp.Or(cmp.Compare(a.MS, b.MS), cmp.Compare(a.Seq, b.Seq))
	})
	return slices.Compact(ids), err
}

func (id StreamID) less(o StreamID) bool { return id.MS < o.MS || id.MS == o.MS && id.Seq < o.Seq }

// next is the id behind this one.
func (id StreamID) next() StreamID {
	if id.Seq++; id.Seq == 0 {
		id.MS++
	}
	return id
}

// createConsumer makes a consumer. Before 6.2, who asks for what it has pending becomes one.
func (c *commands) createConsumer() error {
	s := &c.stream
	if c.to.since(6, 2) {
		c.words("XGROUP", "CREATECONSUMER")
		c.arg(c.key)
		c.arg(s.group)
		c.arg(s.consumer)
		return c.flush()
	}
	c.words("XREADGROUP", "GROUP")
	c.arg(s.group)
	c.arg(s.consumer)
	c.words("COUNT", "1", "STREAMS")
	c.arg(c.key)
	c.words("0")
	return c.flush()
}

// pending adds an id to a command that claims those with the same time and number of deliveries.
func (c *commands) pending(e *Element) error {
	s := &c.stream
	if !s.owned {
		c.lost = join(c.lost, lostUnowned)
		return nil
	}
	const longestID = 41
	if c.count > 0 && (s.delivered != e.Delivered || s.deliveries != e.Deliveries || c.count >= commandElements || len(c.buf)+longestID > c.size) {
		if err := c.claim(); err != nil {
			return err
		}
	}
	if c.count == 0 {
		s.delivered, s.deliveries = e.Delivered, e.Deliveries
		c.begin("XCLAIM")
		c.arg(s.group)
		c.arg(s.consumer)
		c.words("0")
	}
	c.id(e.ID)
	c.count++
	return nil
}

// claim ends and emits the command that pending has begun, if there is one.
func (c *commands) claim() error {
	if c.count == 0 || !c.stream.owned {
		return nil
	}
	c.words("TIME")
	c.number(c.stream.delivered)
	c.words("RETRYCOUNT")
	c.number(int64(c.stream.deliveries))
	c.words("FORCE", "JUSTID")
	return c.flush()
}

package rdb

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strconv"
)

// stream emits a stream (protocol §3): entries, what it knows of itself, groups with consumers and what they have
// pending, idempotent producers.
func (w *walker) stream() error {
	nodes, err := w.count()
	if err != nil {
		return err
	}
	w.begin(ElementEntry, 0)
	for ; nodes > 0; nodes-- {
		if err := w.streamNode(); err != nil {
			return err
		}
	}
	if err := w.streamInfo(); err != nil {
		return err
	}
	groups, err := w.count()
	for ; groups > 0 && err == nil; groups-- {
		err = w.streamGroup()
	}
	if err == nil && w.typ >= TypeStream4 {
		err = w.streamProducers()
	}
	return err
}

func (w *walker) streamID() (id StreamID, err error) {
	if id.MS, err = w.count(); err == nil {
		id.Seq, err = w.count()
	}
	return id, err
}

// idOf decodes an id of 16 bytes.
func idOf(p []byte) StreamID {
	return StreamID{binary.BigEndian.Uint64(p), binary.BigEndian.Uint64(p[8:])}
}

// Compare orders ids as a stream does.
func (id StreamID) Compare(other StreamID) int {
	return cmp.Or(cmp.Compare(id.MS, other.MS), cmp.Compare(id.Seq, other.Seq))
}

func (w *walker) streamInfo() (err error) {
	w.begin(ElementStream, 0)
	s := &w.e.Stream
	if s.Length, err = w.count(); err == nil {
		s.Last, err = w.streamID()
	}
	if s.Extended = w.typ >= TypeStream2; err == nil && s.Extended {
		if s.First, err = w.streamID(); err == nil {
			s.MaxDeleted, err = w.streamID()
		}
		if err == nil {
			s.Added, err = w.count()
		}
	}
	if err != nil {
		return err
	}
	return w.send()
}

// Flags of an entry in a listpack of a stream.
const (
	entryDeleted    = 1
	entrySameFields = 2
)

// streamNode emits the entries of one listpack, whose key is the id that those of its entries are relative to. It
// begins with the master entry: how many entries live and how many are deleted, the number of its fields, their names, 0.
// An entry is flags, the difference of both halves of its id, its fields (values alone if the names are those of the master
// entry, else number, names and values), and how many elements of the listpack that were.
func (w *walker) streamNode() error {
	key, err := w.str(&w.name)
	if err != nil {
		return err
	}
	if len(key) != 16 {
		return fmt.Errorf("%w: a stream's id of %d bytes", ErrCorrupt, len(key))
	}
	base := idOf(key)
	b, err := w.str(&w.pack)
	if err != nil {
		return err
	}
	k, err := newPack(b, false)
	if err != nil {
		return err
	}
	n := node{pack: k, base: base}
	live, deleted, err := w.master(&n)
	if err != nil {
		return err
	}
	for {
		more, err := n.more()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		gone, err := w.streamEntry(&n)
		if err != nil {
			return err
		}
		if gone {
			deleted--
			continue
		}
		live--
		if err := w.send(); err != nil {
			return err
		}
	}
	if live != 0 || deleted != 0 {
		return n.corrupt("the number of a stream's entries")
	}
	return nil
}

// node is one listpack of a stream.
type node struct {
	pack
	base StreamID
}

// number reads an entry that must be a number.
func (n *node) number() (int64, error) {
	var x entry
	if err := n.next(&x); err != nil {
		return 0, err
	}
	if !x.isInt {
		return 0, n.corrupt("a text where a number must be")
	}
	return x.number, nil
}

// master reads the master entry, whose names stay in w.names.
func (w *walker) master(n *node) (live, deleted int64, err error) {
	w.names, w.name = w.names[:0], w.name[:0]
	if live, err = n.number(); err != nil {
		return 0, 0, err
	}
	if deleted, err = n.number(); err != nil {
		return 0, 0, err
	}
	fields, err := n.number()
	for ; fields > 0 && err == nil; fields-- {
		var x entry
		if err = n.next(&x); err == nil {
			w.names = append(w.names, fieldText(&x, &w.name))
		}
	}
	if err == nil && fields < 0 {
		err = n.corrupt("the number of fields")
	}
	if err == nil {
		_, err = n.number()
	}
	return live, deleted, err
}

// fieldText returns a field's name or value. The digits of a number are appended to digits, which may move when it grows:
// what it held stays where it was.
func fieldText(x *entry, digits *[]byte) []byte {
	if !x.isInt {
		return x.text
	}
	from := len(*digits)
	*digits = strconv.AppendInt(*digits, x.number, 10)
	return (*digits)[from:len(*digits):len(*digits)]
}

// streamEntry reads an entry into w.e.
func (w *walker) streamEntry(n *node) (gone bool, err error) {
	var head [3]int64 // flags, difference of milliseconds and of sequence
	for i := range head {
		if head[i], err = n.number(); err != nil {
			return false, err
		}
	}
	w.e.ID = StreamID{n.base.MS + uint64(head[1]), n.base.Seq + uint64(head[2])}
	w.e.Fields, w.text = w.e.Fields[:0], w.text[:0]
	if head[0]&entrySameFields != 0 {
		for _, name := range w.names {
			if err := w.streamField(n, name); err != nil {
				return false, err
			}
		}
	} else {
		fields, err := n.number()
		if err != nil {
			return false, err
		}
		for ; fields > 0; fields-- {
			var x entry
			if err := n.next(&x); err != nil {
				return false, err
			}
			if err := w.streamField(n, fieldText(&x, &w.text)); err != nil {
				return false, err
			}
		}
	}
	_, err = n.number() // elements of this entry
	return head[0]&entryDeleted != 0, err
}

func (w *walker) streamField(n *node, name []byte) error {
	var x entry
	if err := n.next(&x); err != nil {
		return err
	}
	w.e.Fields = append(w.e.Fields, name, fieldText(&x, &w.text))
	return nil
}

// streamProducers emits the idempotent producers and passes the ids of each.
func (w *walker) streamProducers() error {
	if err := w.counts(2); err != nil { // how long and how many ids are kept
		return err
	}
	n, err := w.count()
	for ; n > 0 && err == nil; n-- {
		w.begin(ElementProducer, 0)
		if w.e.Name, err = w.str(&w.name); err != nil {
			return err
		}
		if err = w.send(); err == nil {
			err = w.skipProducerIDs()
		}
	}
	if err != nil {
		return err
	}
	return w.counts(2) // ids added, duplicates
}

func (c *cursor) skipProducerIDs() error {
	n, err := c.count()
	for ; n > 0 && err == nil; n-- {
		if err = c.skipString(); err == nil {
			err = c.counts(2)
		}
	}
	return err
}

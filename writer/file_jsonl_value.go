package writer

import (
	"math"
	"strconv"

	"github.com/keyhaul/keyhaul/rdb"
)

// collection writes lists and sets as arrays of strings, sorted sets as arrays of [member, score], hashes as objects and
// arrays as arrays of [index, value]. Deadlines of a hash's fields are in an object of their own behind it.
func (f *jsonlFile) collection(v value) error {
	open, end := "[", "]"
	if jsonType(v.Type) == "hash" {
		open, end = "{", "}"
	}
	f.raw(`,"value":` + open)
	first, deadlines := true, false
	err := v.each(func(e *rdb.Element) error {
		if e.Kind == rdb.ElementCursor {
			return nil
		}
		f.comma(&first)
		f.element(e)
		deadlines = deadlines || e.ExpireAt != 0
		return f.flushFull()
	})
	f.raw(end)
	if err != nil || !deadlines {
		return err
	}
	f.raw(`,"field_expire_at_ms":{`)
	first = true
	err = v.each(func(e *rdb.Element) error {
		if e.ExpireAt == 0 {
			return nil
		}
		f.comma(&first)
		f.str("", e.Name)
		f.int(":", e.ExpireAt)
		return f.flushFull()
	})
	f.raw("}")
	return err
}

// comma separates what follows from what is before it.
func (f *jsonlFile) comma(first *bool) {
	if !*first {
		f.raw(",")
	}
	*first = false
}

func (f *jsonlFile) element(e *rdb.Element) {
	switch e.Kind {
	case rdb.ElementItem:
		f.str("", e.Value)
	case rdb.ElementMember:
		f.str("", e.Name)
	case rdb.ElementScored:
		f.str("[", e.Name)
		f.raw(",")
		f.score(e.Score)
		f.raw("]")
	case rdb.ElementField:
		f.str("", e.Name)
		f.str(":", e.Value)
	case rdb.ElementIndexed:
		f.uint("[", e.Index)
		f.str(",", e.Value)
		f.raw("]")
	}
}

// score writes a number from which its bits can be told again. JSON has none for infinity.
func (f *jsonlFile) score(x float64) {
	switch {
	case math.IsInf(x, 1):
		f.raw(`"inf"`)
	case math.IsInf(x, -1):
		f.raw(`"-inf"`)
	default:
		f.text = strconv.AppendFloat(f.text, x, 'g', -1, 64)
	}
}

// streamValue writes a stream:
//
//	{"entries":[["1-1",["field","value"]]],"last_id":"1-1","entries_added":1,"groups":[{"name":"g","last_id":"1-1",
//	"entries_read":1,"unowned":[],"consumers":[{"name":"c","seen_ms":1,"active_ms":1,"pending":[["1-1",1,1]]}]}],"producers":[]}
//
// A pending entry has its id, the time of its last delivery in ms, and how often it was delivered.
func (f *jsonlFile) streamValue(v value) error {
	f.raw(`,"value":{"entries":[`)
	s := streamText{f: f, first: true}
	err := v.each(func(e *rdb.Element) error {
		s.element(e)
		return f.flushFull()
	})
	s.close(0)
	f.raw("}")
	return err
}

// streamText writes the elements of a stream.
type streamText struct {
	f         *jsonlFile
	parts     []streamPart // that are open, each within the one before
	first     bool         // nothing stands yet in the last one
	producers bool
}

// streamPart is a list within a stream.
type streamPart struct {
	end   string
	first bool // what follows the end begins a list
}

// Depths of lists within a stream: the groups, and the consumers of one. Within these are pending entries.
const (
	inGroups = iota + 1
	inConsumers
)

// open begins a list.
func (s *streamText) open(text, end string, first bool) {
	s.f.raw(text)
	s.parts = append(s.parts, streamPart{end, first})
	s.first = true
}

// close ends lists until so many are open.
func (s *streamText) close(depth int) {
	for n := len(s.parts); n > depth; n-- {
		last := s.parts[n-1]
		s.f.raw(last.end)
		s.parts, s.first = s.parts[:n-1], last.first
	}
}

func (s *streamText) element(e *rdb.Element) {
	f := s.f
	switch e.Kind {
	case rdb.ElementEntry:
		f.comma(&s.first)
		f.id("[", e.ID)
		f.raw(",[")
		first := true
		for _, text := range e.Fields {
			f.comma(&first)
			f.str("", text)
		}
		f.raw("]]")
	case rdb.ElementStream:
		s.info(&e.Stream)
	case rdb.ElementGroup:
		s.close(inGroups)
		f.comma(&s.first)
		f.str(`{"name":`, e.Name)
		f.id(`,"last_id":`, e.ID)
		f.int(`,"entries_read":`, e.EntriesRead)
		s.open("", "]}", false)
		s.open(`,"unowned":[`, `],"consumers":[`, true)
	case rdb.ElementConsumer:
		s.close(inConsumers)
		f.comma(&s.first)
		f.str(`{"name":`, e.Name)
		f.int(`,"seen_ms":`, e.Seen)
		f.int(`,"active_ms":`, e.Active)
		s.open(`,"pending":[`, "]}", false)
	case rdb.ElementPending:
		f.comma(&s.first)
		f.id("[", e.ID)
		f.int(",", e.Delivered)
		f.uint(",", e.Deliveries)
		f.raw("]")
	case rdb.ElementProducer:
		if !s.producers {
			s.producers = true
			s.close(0)
			s.open(`,"producers":[`, "]", false)
		}
		f.comma(&s.first)
		f.str("", e.Name)
	}
}

// info writes what stands behind the entries, and begins the groups.
func (s *streamText) info(x *rdb.StreamInfo) {
	f := s.f
	f.uint(`],"length":`, x.Length)
	f.id(`,"last_id":`, x.Last)
	if x.Extended {
		f.id(`,"first_id":`, x.First)
		f.id(`,"max_deleted_id":`, x.MaxDeleted)
		f.uint(`,"entries_added":`, x.Added)
	}
	s.open(`,"groups":[`, "]", false)
}

func (f *jsonlFile) id(label string, id rdb.StreamID) {
	f.uint(label+`"`, id.MS)
	f.uint("-", id.Seq)
	f.raw(`"`)
}

func (f *jsonlFile) uint(label string, n uint64) {
	f.text = strconv.AppendUint(append(f.text, label...), n, 10)
}

package rdb

// Value is a value as it stands in a snapshot or a payload of DUMP: what follows its type byte. What is read of it is
// never more than one element, but for what the server itself keeps in one piece (a listpack, an integer set).
type Value struct {
	Type   byte
	Valkey bool // of a snapshot or payload of Valkey: types from 22 on differ
}

// ElementKind tells what an Element is.
type ElementKind uint8

// Kinds of elements, in the order in which they come.
const (
	ElementPiece    ElementKind = iota + 1 // of a string: the next bytes of it, in Value
	ElementItem                            // of a list: Value
	ElementMember                          // of a set: Name
	ElementScored                          // of a sorted set: Name, Score
	ElementField                           // of a hash: Name, Value, ExpireAt
	ElementEntry                           // of a stream: ID, Fields
	ElementStream                          // of a stream, behind its entries: Stream
	ElementGroup                           // of a stream: Name, ID (last delivered), EntriesRead
	ElementConsumer                        // of the group before: Name, Seen, Active
	ElementPending                         // of the consumer before: ID, Delivered, Deliveries; of no consumer if it comes before the first
	ElementProducer                        // of a stream: an idempotent producer (Redis 8.6), Name
	ElementIndexed                         // of an array (Redis 8.8): Index, Value
	ElementCursor                          // of an array, before its values: Index at which the next value is inserted
)

// StreamID is the id of an entry of a stream.
type StreamID struct{ MS, Seq uint64 }

// StreamInfo is what a stream knows beside its entries.
type StreamInfo struct {
	Length     uint64
	Last       StreamID
	First      StreamID
	MaxDeleted StreamID
	Added      uint64
	Extended   bool // First, MaxDeleted and Added are known (servers since 7.0)
}

// Element is one part of a value. Its byte slices are valid until the next one is asked for.
type Element struct {
	Kind        ElementKind
	Name        []byte
	Value       []byte
	Score       float64
	ExpireAt    int64 // unix milliseconds; 0: never
	ID          StreamID
	Fields      [][]byte // names and values in turn
	Stream      StreamInfo
	EntriesRead int64 // -1: not known
	Seen        int64 // unix milliseconds
	Active      int64 // unix milliseconds; -1: never or not known
	Delivered   int64 // unix milliseconds
	Deliveries  uint64
	Index       uint64
	Size        uint64 // with the first element: how many there are at most, where the value says so; of a string, its bytes
}

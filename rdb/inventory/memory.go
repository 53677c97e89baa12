package inventory

import "github.com/keyhaul/keyhaul/rdb"

// What a server of 64 bits allocates, in bytes: an estimate, from the structures of Redis 7 and the size classes of
// jemalloc. Others differ by some percent of it.
const (
	object     = 16  // robj
	entry      = 32  // of a hash table: 24, and a pointer to it
	sdsHead    = 4   // header and end mark of a short string
	rounding   = 6   // what an allocation is larger than what was asked for, on average of small ones
	skipNode   = 56  // of a sorted set, with its levels
	listNode   = 48  // of a quicklist
	radixNode  = 96  // of a stream: a listpack's place in the tree
	embedded   = 44  // bytes of a string that fit into its object
	container  = 80  // of a collection: its own structures
	groups     = 900 // of a stream: its own structures, with a group and a consumer
	fieldEntry = 40  // more for a field that has, or may have, a deadline
)

// memoryOf estimates what a key needs.
func memoryOf(r *rdb.Record, name int, m *rdb.Measure) int64 {
	total := entry + allocated(int64(name)+sdsHead)
	if r.HasExpire {
		total += entry
	}
	return total + valueMemory(r.Type, r.Value.Len, m)
}

func valueMemory(t byte, size int64, m *rdb.Measure) int64 {
	strings := m.Bytes + m.Strings*(sdsHead+rounding)
	switch t {
	case rdb.TypeString:
		switch {
		case m.Bytes == 0: // an integer
			return object
		case m.Bytes <= embedded:
			return allocated(object + sdsHead + m.Bytes)
		}
		return object + allocated(m.Bytes+sdsHead)
	case rdb.TypeList, rdb.TypeListQuicklist, rdb.TypeListQuicklist2:
		return object + container + m.Bytes + m.Strings*(listNode+rounding)
	case rdb.TypeSet:
		return object + container + strings + m.Elements*entry
	case rdb.TypeHash:
		return object + container + strings + m.Elements*entry
	case rdb.TypeZSet, rdb.TypeZSet2:
		return object + container + strings + m.Elements*(entry+skipNode)
	case rdb.TypeHashTTL, rdb.Type22:
		return object + container + strings + m.Elements*(entry+fieldEntry)
	case rdb.TypeStream, rdb.TypeStream2, rdb.TypeStream3, rdb.TypeStream4, rdb.TypeStream5:
		return object + groups + m.Bytes + m.Strings/2*radixNode
	case rdb.TypeModule2, rdb.TypeArray:
		return object + container + size
	}
	return object + allocated(m.Bytes) // a compact encoding is kept as it is
}

// allocated rounds a size up to what jemalloc gives: four classes for each doubling.
func allocated(n int64) int64 {
	switch {
	case n <= 8:
		return 8
	case n <= 128:
		return (n + 15) &^ 15
	}
	step := int64(32)
	for limit := int64(256); n > limit; limit *= 2 {
		step *= 2
	}
	return (n + step - 1) &^ (step - 1)
}

package haul

import (
	"cmp"
	"errors"
	"strings"
)

// KeyName names a key of the source.
type KeyName struct {
	DB   int32
	Name string
}

// Compare orders keys by database and name.
func (k KeyName) Compare(o KeyName) int {
	return cmp.Or(cmp.Compare(k.DB, o.DB), strings.Compare(k.Name, o.Name))
}

// Value is what the source has of a key at some offset of its stream.
type Value struct {
	Payload  string // as RESTORE takes it; empty if there is no such key
	ExpireAt int64  // unix milliseconds; 0 for never
}

// ErrSuperseded says that values cannot be read any more because the history of the stream is lost, and that another
// full copy comes, which makes whatever is left of the old stream void.
var ErrSuperseded = errors.New("the source has another history, of which a new copy is made")

// DropDB is where a DBMap sends a database that is left out.
const DropDB = -1

// DBMap says to which database of the target those of the source go. What is not in it keeps its number.
type DBMap map[int32]int32

// Of returns the target's database for one of the source's, or DropDB.
func (m DBMap) Of(db int32) int32 {
	if to, ok := m[db]; ok {
		return to
	}
	return db
}

// Alone reports whether no other database of the source goes where db goes.
func (m DBMap) Alone(db int32) bool {
	to := m.Of(db)
	for from, other := range m {
		if from != db && other == to {
			return false
		}
	}
	_, named := m[to]
	return to == db || named || to == DropDB
}

package haul

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
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

// DBMap says to which database of the target those of the source go. What is not in it keeps its number, and must be
// empty if another one goes there: two go to the same place only if both are named.
type DBMap map[int32]int32

// Of returns the target's database for one of the source's, or DropDB.
func (m DBMap) Of(db int32) int32 {
	if to, ok := m[db]; ok {
		return to
	}
	return db
}

// String returns the map as it is written in the configuration, in order: 1=0,3=drop.
func (m DBMap) String() string {
	pairs := make([]string, 0, len(m))
	for _, from := range slices.Sorted(maps.Keys(m)) {
		if to := m[from]; to == DropDB {
			pairs = append(pairs, fmt.Sprintf("%d=drop", from))
		} else {
			pairs = append(pairs, fmt.Sprintf("%d=%d", from, to))
		}
	}
	return strings.Join(pairs, ",")
}

// Alone reports whether no other database of the source goes where db goes.
func (m DBMap) Alone(db int32) bool {
	for from, to := range m {
		if from != db && to == m.Of(db) && to != DropDB {
			return false
		}
	}
	return true
}

// Taken reports whether db would keep its number although another database goes there: it must be empty.
func (m DBMap) Taken(db int32) bool {
	_, named := m[db]
	return !named && !m.Alone(db)
}

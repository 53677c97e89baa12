package rdb

import "errors"

// emptyBytes is how many bytes a value takes at most that has no elements, however it is kept.
const emptyBytes = 16

// Empty reports whether a list, set, hash or sorted set has no elements: faults of old servers have left such keys in
// snapshots. Servers leave them out when they load one, and refuse their payloads.
func (v Value) Empty(body []byte) bool {
	switch {
	case len(body) > emptyBytes || len(body) == 0:
		return false
	case v.Type == TypeHash || v.Type == TypeSet || v.Type == TypeList || v.Type == TypeZSet || v.Type == TypeZSet2:
		return body[0] == 0
	}
	switch typeKind(v.Type, v.Valkey) {
	case TypeList, TypeSet, TypeZSet2, TypeHash, TypeHashTTL:
		return v.ElementsOf(body, func(*Element) error { return errElement }) == nil
	}
	return false
}

// errElement says that there is an element.
var errElement = errors.New("there is an element")

package rdb

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Rewrite appends to dst the body of the same value in a type t that the release reads: what belongs between the type
// byte and the footer of a payload. body is that of v, whole. lost names what the release has no place for and the value
// had, "" if nothing; what every value of an older release lacks (counters of streams, when a consumer was active) is no
// loss. A value that the release cannot hold at all is ErrUnsupported, one with wrong bytes a *ValueError; a type that the
// release reads is copied without a look at its bytes, and so are the listpacks of a stream. out is dst, grown, after an error too.
func (to Release) Rewrite(dst []byte, v Value, body []byte) (out []byte, t byte, lost string, err error) {
	if to.reads(v.Type, v.Valkey) {
		return append(dst, body...), v.Type, "", nil
	}
	switch kind := typeKind(v.Type, v.Valkey); kind {
	case TypeStream:
		t = to.streamType()
		out, lost, err = rewriteStream(dst, body, v.Type, t)
		return out, t, lost, err
	case TypeHashTTL:
		return to.rewriteFieldTTLs(dst, v, body)
	case TypeList, TypeSet, TypeZSet2, TypeHash:
		out, err = rewriteTable(dst, v, body, appendElement)
		return out, kind, "", err
	}
	return dst, 0, "", fmt.Errorf("%w: %s cannot hold a %s", ErrUnsupported, to, TypeName(v.Type))
}

// rewriteTable appends the number of elements, then each.
func rewriteTable(dst []byte, v Value, body []byte, one func([]byte, *Element) []byte) ([]byte, error) {
	at := len(dst)
	dst = append(dst, 0x81, 0, 0, 0, 0, 0, 0, 0, 0) // known at the end
	n := uint64(0)
	err := v.ElementsOf(body, func(e *Element) error {
		dst = one(dst, e)
		n++
		return nil
	})
	binary.BigEndian.PutUint64(dst[at+1:], n)
	return dst, err
}

// appendElement appends an element of one of the types that every release reads.
func appendElement(dst []byte, e *Element) []byte {
	switch e.Kind {
	case ElementItem:
		return appendText(dst, e.Value)
	case ElementMember:
		return appendText(dst, e.Name)
	case ElementScored:
		return binary.LittleEndian.AppendUint64(appendText(dst, e.Name), math.Float64bits(e.Score))
	}
	return appendText(appendText(dst, e.Name), e.Value)
}

func appendText(dst, text []byte) []byte {
	return append(appendLength(dst, uint64(len(text))), text...)
}

// appendLength appends the shortest encoding of a length.
func appendLength(dst []byte, n uint64) []byte {
	switch {
	case n < 1<<6:
		return append(dst, byte(n))
	case n < 1<<14:
		return append(dst, 1<<6|byte(n>>8), byte(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, 0x80), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 0x81), n)
}

// rewriteFieldTTLs writes a hash whose fields may have deadlines. One without any becomes a plain one.
func (to Release) rewriteFieldTTLs(dst []byte, v Value, body []byte) ([]byte, byte, string, error) {
	least, lost := int64(math.MaxInt64), ""
	err := v.ElementsOf(body, func(e *Element) error {
		at, without := to.fieldTTL(e.ExpireAt)
		if lost = join(lost, without); at > 0 {
			least = min(least, at)
		}
		return nil
	})
	switch {
	case err != nil:
		return dst, 0, "", err
	case least == math.MaxInt64:
		dst, err = rewriteTable(dst, v, body, appendElement)
		return dst, TypeHash, lost, err
	case to.Valkey:
		dst, err = rewriteTable(dst, v, body, func(dst []byte, e *Element) []byte {
			at := e.ExpireAt
			if at == 0 {
				at = -1
			}
			return binary.LittleEndian.AppendUint64(appendElement(dst, e), uint64(at))
		})
		return dst, Type22, lost, err
	}
	dst = binary.LittleEndian.AppendUint64(dst, uint64(least))
	dst, err = rewriteTable(dst, v, body, func(dst []byte, e *Element) []byte {
		ttl := uint64(0)
		if at, _ := to.fieldTTL(e.ExpireAt); at > 0 {
			ttl = uint64(at-least) + 1
		}
		return appendElement(appendLength(dst, ttl), e)
	})
	return dst, TypeHashTTL, lost, err
}

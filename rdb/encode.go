package rdb

import (
	"encoding/binary"
	"fmt"
)

// A snapshot consists of a header, pairs of AUX, functions and keys, and an end:
//
//	AppendHeader AppendAux … AppendFunction … AppendSelectDB AppendKey VALUE AppendKey VALUE … AppendEnd

// AppendHeader begins a snapshot.
func AppendHeader(dst []byte, version int, valkey bool) []byte {
	if valkey {
		return fmt.Appendf(dst, "VALKEY%03d", version)
	}
	return fmt.Appendf(dst, "REDIS%04d", version)
}

// AppendAux says something about the snapshot. Versions before 7 know no such fields.
func AppendAux(dst []byte, name, value string) []byte {
	dst = appendLength(append(dst, opAux), uint64(len(name)))
	dst = appendLength(append(dst, name...), uint64(len(value)))
	return append(dst, value...)
}

// AppendFunction appends a library of functions.
func AppendFunction(dst, code []byte) []byte { return appendText(append(dst, opFunction2), code) }

// AppendSelectDB makes db the database of the keys that follow.
func AppendSelectDB(dst []byte, db int) []byte {
	return appendLength(append(dst, opSelectDB), uint64(db))
}

// AppendKey appends what stands before a value: what r says of its age and deadline, metadata, its type and its name.
func AppendKey(dst []byte, r *Record, metadata, name []byte) []byte {
	if r.HasExpire {
		dst = binary.LittleEndian.AppendUint64(append(dst, opExpireMS), uint64(r.ExpireAt))
	}
	if r.HasIdle {
		dst = appendLength(append(dst, opIdle), uint64(r.Idle))
	}
	if r.HasFreq {
		dst = append(dst, opFreq, r.Freq)
	}
	dst = append(dst, metadata...)
	return appendText(append(dst, r.Type), name)
}

// AppendEnd ends a snapshot. crc is that of everything before. Versions before 5 have no checksum.
func AppendEnd(dst []byte, version int, crc uint64) []byte {
	dst = append(dst, opEOF)
	if version < 5 {
		return dst
	}
	return binary.LittleEndian.AppendUint64(dst, CRC64(crc, []byte{opEOF}))
}

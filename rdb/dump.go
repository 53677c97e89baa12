package rdb

import "encoding/binary"

// FooterSize is the number of bytes behind the value in a payload of RESTORE: version and checksum.
const FooterSize = 10

// FooterVersion returns the smallest RDB version that knows type t, to be written into the footer of its payload: a
// server compares it with its own and never decodes by it. Types from 22 on mean different things to Redis and
// Valkey, so theirs is never lowered across the two (protocol §4).
func FooterVersion(t byte, valkey, metadata bool) uint16 {
	v := footerVersion(t, valkey)
	if metadata {
		v = max(v, 13)
	}
	return v
}

func footerVersion(t byte, valkey bool) uint16 {
	switch t {
	case TypeListQuicklist:
		return 7
	case TypeZSet2, TypeModule2:
		return 8
	case TypeStream:
		return 9
	case TypeHashListpack, TypeZSetListpack, TypeListQuicklist2, TypeStream2:
		return 10
	case TypeSetListpack, TypeStream3:
		return 11
	case Type22, Type23:
		if valkey {
			return 80
		}
		return 12
	case TypeHashTTL, TypeHashTTLListpack:
		return 12
	case TypeStream4:
		return 13
	case TypeStream5, TypeArray:
		return 14
	}
	return 6
}

// AppendFooter appends the footer of a payload. crc is that of everything before the footer.
func AppendFooter(dst []byte, version uint16, crc uint64) []byte {
	var v [2]byte
	binary.LittleEndian.PutUint16(v[:], version)
	dst = append(dst, v[:]...)
	return binary.LittleEndian.AppendUint64(dst, CRC64(crc, v[:]))
}

package command

import "bytes"

// Slots is the number of slots of a cluster.
const Slots = 16384

// crcTables serve eight bytes at a time: table k is the CRC of a byte with k zero bytes behind it.
var crcTables = makeCRCTables()

func makeCRCTables() (t [8][256]uint16) {
	for i := range t[0] {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc & 0x8000
			crc <<= 1
			if carry != 0 {
				crc ^= 0x1021
			}
		}
		t[0][i] = crc
	}
	for k := 1; k < len(t); k++ {
		for i, crc := range t[k-1] {
			t[k][i] = crc<<8 ^ t[0][crc>>8]
		}
	}
	return t
}

// CRC16 is the checksum behind slots: CRC-16/XMODEM, polynomial 0x1021, initial value 0, neither reflected nor inverted
// (cluster specification, appendix A; crc16.c).
func CRC16(b []byte) uint16 {
	t := &crcTables
	var crc uint16
	for len(b) >= 8 {
		crc = t[7][b[0]^byte(crc>>8)] ^ t[6][b[1]^byte(crc)] ^ t[5][b[2]] ^ t[4][b[3]] ^
			t[3][b[4]] ^ t[2][b[5]] ^ t[1][b[6]] ^ t[0][b[7]]
		b = b[8:]
	}
	for _, c := range b {
		crc = crc<<8 ^ t[0][byte(crc>>8)^c]
	}
	return crc
}

// Slot returns the slot of a key: CRC16 modulo Slots of what stands between its first '{' and the next '}', or of the
// whole key if there is no such pair or nothing within it. It does not allocate. Source: protocol.md section 7.
func Slot(key []byte) uint16 {
	if open := bytes.IndexByte(key, '{'); open >= 0 {
		tag := key[open+1:]
		if end := bytes.IndexByte(tag, '}'); end > 0 {
			key = tag[:end]
		}
	}
	return CRC16(key) % Slots
}

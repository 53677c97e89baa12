// Package resp is the wire codec of the Redis protocol: pure functions that append requests to a buffer and find the
// end of a reply, and a small synchronous connection for handshakes. It holds no goroutine and keeps no state of its
// own beside that connection's buffers.
package resp

import "strconv"

// AppendArray appends the header of an array of n elements, `*n\r\n`.
func AppendArray(dst []byte, n int) []byte {
	return appendHeader(dst, '*', n)
}

// AppendBulkHeader appends the header of a bulk string of n bytes, `$n\r\n`; the caller appends the bytes and `\r\n`.
func AppendBulkHeader(dst []byte, n int) []byte {
	return appendHeader(dst, '$', n)
}

// AppendBulk appends b as a bulk string.
func AppendBulk(dst, b []byte) []byte {
	dst = appendHeader(dst, '$', len(b))
	dst = append(dst, b...)
	return append(dst, '\r', '\n')
}

// AppendBulkString appends s as a bulk string.
func AppendBulkString(dst []byte, s string) []byte {
	dst = appendHeader(dst, '$', len(s))
	dst = append(dst, s...)
	return append(dst, '\r', '\n')
}

// AppendBulkInt appends the decimal digits of n as a bulk string.
func AppendBulkInt(dst []byte, n int64) []byte {
	var digits [20]byte
	return AppendBulk(dst, strconv.AppendInt(digits[:0], n, 10))
}

// AppendCommand appends a whole command: an array of bulk strings.
func AppendCommand(dst []byte, args ...string) []byte {
	dst = AppendArray(dst, len(args))
	for _, a := range args {
		dst = AppendBulkString(dst, a)
	}
	return dst
}

func appendHeader(dst []byte, kind byte, n int) []byte {
	dst = append(dst, kind)
	if n >= 0 && n < 10 {
		dst = append(dst, byte('0'+n))
	} else {
		dst = strconv.AppendInt(dst, int64(n), 10)
	}
	return append(dst, '\r', '\n')
}

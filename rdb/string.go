package rdb

import (
	"encoding/binary"
	"errors"
	"strconv"
)

// ErrString says that bytes are no encoded string.
var ErrString = errors.New("rdb: malformed string")

// Encodings of a string (protocol §3).
const (
	encInt8 = iota
	encInt16
	encInt32
	encLZF
)

// StringForm splits an encoded string: the plain bytes if it is stored as they are, else its encoding's bytes. size
// is the length of the decoded string; of an integer it is the longest one that it may have.
func StringForm(enc []byte) (plain []byte, size int, err error) {
	if len(enc) == 0 {
		return nil, 0, ErrString
	}
	if enc[0]>>6 == 3 {
		return encodedForm(enc)
	}
	n, used, ok := sliceLength(enc)
	if !ok || uint64(len(enc)-used) != n {
		return nil, 0, ErrString
	}
	return enc[used:], int(n), nil
}

func encodedForm(enc []byte) ([]byte, int, error) {
	switch enc[0] & 0x3f {
	case encInt8, encInt16, encInt32:
		if len(enc) != 1+1<<(enc[0]&0x3f) {
			return nil, 0, ErrString
		}
		return nil, len("-2147483648"), nil
	case encLZF:
		_, raw, err := splitLZF(enc)
		return nil, raw, err
	}
	return nil, 0, ErrString
}

// splitLZF returns the compressed bytes of an encoded string and the length that they have when they are not.
func splitLZF(enc []byte) (packed []byte, raw int, err error) {
	n, used, ok := sliceLength(enc[1:])
	if !ok {
		return nil, 0, ErrString
	}
	enc = enc[1+used:]
	size, used, ok := sliceLength(enc)
	if !ok || size > 1<<40 || uint64(len(enc)-used) != n {
		return nil, 0, ErrString
	}
	return enc[used:], int(size), nil
}

// AppendString appends the decoded form of an encoded string, which is the whole of enc.
func AppendString(dst, enc []byte) ([]byte, error) {
	plain, _, err := StringForm(enc)
	if err != nil || plain != nil || enc[0]>>6 != 3 {
		return append(dst, plain...), err
	}
	switch enc[0] & 0x3f {
	case encInt8:
		return strconv.AppendInt(dst, int64(int8(enc[1])), 10), nil
	case encInt16:
		return strconv.AppendInt(dst, int64(int16(binary.LittleEndian.Uint16(enc[1:]))), 10), nil
	case encInt32:
		return strconv.AppendInt(dst, int64(int32(binary.LittleEndian.Uint32(enc[1:]))), 10), nil
	}
	packed, raw, err := splitLZF(enc)
	if err != nil {
		return dst, err
	}
	return appendLZF(dst, packed, raw)
}

// appendLZF appends the raw bytes that the LZF block in holds.
func appendLZF(dst, in []byte, raw int) ([]byte, error) {
	start := len(dst)
	dst, used := lzfSteps(dst, in, start, start+raw)
	if used != len(in) || len(dst)-start != raw {
		return dst, ErrString
	}
	return dst, nil
}

// lzfLongest is the greatest number of bytes that one step uses.
const lzfLongest = 33

// lzfSteps appends what the beginning of in stands for until dst has the length of limit, or little more (redis src/lzf_d.c
// has the format): a control byte below 32 precedes that many literals plus one; else it begins a back reference of three
// bits of length, extended by a byte if all are set, and thirteen bits of distance. References reach back to start of dst at
// most. It returns how many bytes of in were used: it stops before a step that is wrong or not there to its end.
func lzfSteps(dst, in []byte, start, limit int) (out []byte, used int) {
	for used < len(in) && len(dst) < limit {
		ctrl := int(in[used])
		if ctrl < 32 {
			end := used + ctrl + 2
			if end > len(in) {
				return dst, used
			}
			dst = append(dst, in[used+1:end]...)
			used = end
			continue
		}
		n, next := ctrl>>5, used+2
		if n == 7 {
			next++
		}
		if next > len(in) {
			return dst, used
		}
		if n == 7 {
			n += int(in[used+1])
		}
		from := len(dst) - (ctrl&0x1f)<<8 - int(in[next-1]) - 1
		if from < start {
			return dst, used
		}
		dst = appendFrom(dst, from, n+2)
		used = next
	}
	return dst, used
}

// appendFrom appends n bytes from index from of dst itself, which may overlap what is appended.
func appendFrom(dst []byte, from, n int) []byte {
	for n > 0 {
		step := min(n, len(dst)-from)
		dst = append(dst, dst[from:from+step]...)
		from += step
		n -= step
	}
	return dst
}

// sliceLength reads a length encoding that is no special one.
func sliceLength(b []byte) (n uint64, used int, ok bool) {
	if len(b) == 0 {
		return 0, 0, false
	}
	switch {
	case b[0]>>6 == 0:
		return uint64(b[0]), 1, true
	case b[0]>>6 == 1 && len(b) >= 2:
		return uint64(b[0]&0x3f)<<8 | uint64(b[1]), 2, true
	case b[0] == 0x80 && len(b) >= 5:
		return uint64(binary.BigEndian.Uint32(b[1:])), 5, true
	case b[0] == 0x81 && len(b) >= 9:
		return binary.BigEndian.Uint64(b[1:]), 9, true
	}
	return 0, 0, false
}

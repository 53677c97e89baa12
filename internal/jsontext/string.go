// Package jsontext writes strings of any bytes as JSON strings from which the bytes can be told again.
package jsontext

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// Mark precedes the base64 of a string that is not valid UTF-8, and of one that begins with the mark itself.
const Mark = "base64:"

// Marked tells whether s is written as base64.
func Marked(s []byte) bool {
	return len(s) >= len(Mark) && string(s[:len(Mark)]) == Mark || !utf8.Valid(s)
}

// AppendString appends s as a JSON string.
func AppendString(dst, s []byte) []byte {
	dst = append(dst, '"')
	if Marked(s) {
		dst = append(dst, Mark...)
		dst = base64.StdEncoding.AppendEncode(dst, s)
	} else {
		dst = AppendEscaped(dst, s)
	}
	return append(dst, '"')
}

// AppendEscaped appends valid UTF-8 as it stands between the quotes of a JSON string (RFC 8259 §7). A string may be
// appended in pieces, which are then cut between any two bytes.
func AppendEscaped(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	from := 0
	for i, c := range s {
		if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(dst, s[from:]...)
}

// Text returns s as AppendString writes it, without quotes and escapes.
func Text(s []byte) string {
	if Marked(s) {
		return Mark + base64.StdEncoding.EncodeToString(s)
	}
	return string(s)
}

// Bytes returns what Text was given.
func Bytes(text string) ([]byte, error) {
	if packed, ok := strings.CutPrefix(text, Mark); ok {
		return base64.StdEncoding.DecodeString(packed)
	}
	return []byte(text), nil
}

// Checker tells whether a string that comes in pieces is written as base64.
type Checker struct {
	size   int
	head   [len(Mark)]byte
	rest   []byte // of a character that the last piece has begun
	broken bool   // it is not valid UTF-8
}

// Add hears of the next piece.
func (c *Checker) Add(p []byte) {
	if c.size < len(c.head) {
		copy(c.head[c.size:], p)
	}
	c.size += len(p)
	for len(c.rest) > 0 && len(p) > 0 && !c.broken { // the character that lies across two pieces
		c.rest = append(c.rest, p[0])
		p = p[1:]
		if utf8.FullRune(c.rest) {
			c.broken = !utf8.Valid(c.rest)
			c.rest = c.rest[:0]
		}
	}
	end := len(p)
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if utf8.RuneStart(p[len(p)-i]) {
			if !utf8.FullRune(p[len(p)-i:]) {
				end = len(p) - i
			}
			break
		}
	}
	c.broken = c.broken || !utf8.Valid(p[:end])
	c.rest = append(c.rest, p[end:]...)
}

// Marked tells it when there are no more pieces.
func (c *Checker) Marked() bool {
	return c.broken || len(c.rest) > 0 || c.size >= len(Mark) && string(c.head[:]) == Mark
}

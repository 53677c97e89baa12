package resp

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Kinds of a reply: the first byte of its wire form (RESP2 and RESP3).
const (
	KindSimple   = '+'
	KindError    = '-'
	KindInteger  = ':'
	KindBulk     = '$'
	KindArray    = '*'
	KindNull     = '_'
	KindDouble   = ','
	KindBool     = '#'
	KindBlobErr  = '!'
	KindVerbatim = '='
	KindBigNum   = '('
	KindMap      = '%'
	KindSet      = '~'
	KindAttr     = '|'
	KindPush     = '>'
)

// ErrShort says that the bytes end before the reply does; more of them may complete it.
var ErrShort = errors.New("resp: incomplete")

// A ProtocolError is bytes that are no RESP. The connection that they came from cannot be used any further.
type ProtocolError struct{ Reason string }

func (e *ProtocolError) Error() string { return "resp: " + e.Reason }

const (
	maxDepth   = 16
	maxElement = 1 << 31
	maxLine    = 1 << 20
)

// Scan returns the length in bytes of the first whole reply in b, nested ones included, ErrShort if b ends before it
// does, or a *ProtocolError.
func Scan(b []byte) (int, error) {
	return scan(b, 0)
}

// ArrayHeader reads the start of an array: how many elements it has, and where the first one begins.
func ArrayHeader(b []byte) (n, at int, err error) {
	eol := bytes.IndexByte(b, '\n')
	if eol < 3 || b[0] != KindArray {
		return 0, 0, &ProtocolError{"no array"}
	}
	size, err := ParseInt(b[1 : eol-1])
	return int(size), eol + 1, err
}

func scan(b []byte, depth int) (int, error) {
	if len(b) == 0 {
		return 0, ErrShort
	}
	if depth > maxDepth {
		return 0, &ProtocolError{"reply nested too deeply"}
	}
	eol := bytes.IndexByte(b, '\n')
	if eol > maxLine || eol < 0 && len(b) > maxLine {
		return 0, &ProtocolError{"reply line longer than 1 MiB"}
	}
	if eol < 0 {
		return 0, ErrShort
	}
	if eol < 2 || b[eol-1] != '\r' {
		return 0, &ProtocolError{"reply line does not end in CRLF"}
	}
	switch b[0] {
	case KindSimple, KindError, KindNull, KindDouble, KindBool, KindBigNum:
		return eol + 1, nil
	case KindInteger:
		if _, err := ParseInt(b[1 : eol-1]); err != nil {
			return 0, err
		}
		return eol + 1, nil
	case KindBulk, KindBlobErr, KindVerbatim:
		n, err := scanLength(b, eol)
		if err != nil {
			return 0, err
		}
		if n < 0 {
			return eol + 1, nil
		}
		end := eol + 1 + int(n) + 2
		if len(b) < end {
			return 0, ErrShort
		}
		if b[end-2] != '\r' || b[end-1] != '\n' {
			return 0, &ProtocolError{"bulk reply does not end in CRLF"}
		}
		return end, nil
	case KindArray, KindSet, KindPush, KindMap, KindAttr:
		return scanElements(b, eol, depth)
	}
	return 0, &ProtocolError{fmt.Sprintf("unexpected first byte %q of a reply", b[0])}
}

// scanLength reads the length in a header. Only strings and arrays of RESP2 may be null, with -1; RESP3 has a type for it.
func scanLength(b []byte, eol int) (int64, error) {
	least := int64(0)
	if b[0] == KindBulk || b[0] == KindArray {
		least = -1
	}
	n, err := ParseInt(b[1 : eol-1])
	if err != nil || n < least || n > maxElement {
		return 0, &ProtocolError{"bad length in a reply"}
	}
	return n, nil
}

func scanElements(b []byte, eol, depth int) (int, error) {
	n, err := scanLength(b, eol)
	if err != nil {
		return 0, err
	}
	if b[0] == KindMap || b[0] == KindAttr {
		n *= 2
	}
	if b[0] == KindAttr {
		n++ // an attribute stands before the reply that it belongs to
	}
	pos := eol + 1
	for ; n > 0; n-- {
		used, err := scan(b[pos:], depth+1)
		if err != nil {
			return 0, err
		}
		pos += used
	}
	return pos, nil
}

// ParseInt reads a decimal integer with an optional sign, without allocating.
func ParseInt(b []byte) (int64, error) {
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg = b[0] == '-'
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 19 {
		return 0, &ProtocolError{"not an integer"}
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, &ProtocolError{"not an integer"}
		}
		n = n*10 + uint64(c-'0')
	}
	if neg {
		if n > 1<<63 {
			return 0, &ProtocolError{"integer out of range"}
		}
		return -int64(n), nil
	}
	if n > 1<<63-1 {
		return 0, &ProtocolError{"integer out of range"}
	}
	return int64(n), nil
}

// Reply is one decoded reply. Text holds simple strings, bulk strings and error texts; Array holds the elements of any
// aggregate, a map's keys and values in turn.
type Reply struct {
	Kind  byte
	Null  bool
	Int   int64
	Text  string
	Array []Reply
}

// Decode decodes the first whole reply in b and returns its length, or the errors of Scan.
func Decode(b []byte) (Reply, int, error) {
	n, err := Scan(b)
	if err != nil {
		return Reply{}, 0, err
	}
	r, _, err := decode(b[:n])
	return r, n, err
}

// decode relies on Scan having checked the bytes.
func decode(b []byte) (Reply, int, error) {
	eol := bytes.IndexByte(b, '\n')
	r := Reply{Kind: b[0]}
	line := b[1 : eol-1]
	switch b[0] {
	case KindSimple, KindError, KindDouble, KindBool, KindBigNum:
		r.Text = string(line)
	case KindNull:
		r.Null = true
	case KindInteger:
		n, err := ParseInt(line)
		if err != nil {
			return r, 0, err
		}
		r.Int = n
	case KindBulk, KindBlobErr, KindVerbatim:
		n, err := ParseInt(line)
		if err != nil {
			return r, 0, err
		}
		if n < 0 {
			r.Null = true
			break
		}
		r.Text = string(b[eol+1 : eol+1+int(n)])
		return r, eol + 1 + int(n) + 2, nil
	default:
		return decodeElements(b, eol)
	}
	return r, eol + 1, nil
}

func decodeElements(b []byte, eol int) (Reply, int, error) {
	r := Reply{Kind: b[0]}
	n, err := ParseInt(b[1 : eol-1])
	if err != nil {
		return r, 0, err
	}
	if n < 0 {
		r.Null = true
	}
	if b[0] == KindMap || b[0] == KindAttr {
		n *= 2
	}
	pos := eol + 1
	for ; n > 0; n-- {
		e, used, err := decode(b[pos:])
		if err != nil {
			return r, 0, err
		}
		r.Array = append(r.Array, e)
		pos += used
	}
	if b[0] == KindAttr { // carries nothing that keyhaul reads
		inner, used, err := decode(b[pos:])
		return inner, pos + used, err
	}
	return r, pos, nil
}

// Err returns the reply as an *Error if it is one, nil otherwise.
func (r Reply) Err() error {
	if r.Kind == KindError || r.Kind == KindBlobErr {
		return NewError(r.Text)
	}
	return nil
}

// Error is an error reply of a server. Its text never holds argument values: servers append those to some messages,
// and they are cut off here.
type Error struct {
	Code string // first word, such as ERR, MOVED or LOADING
	Text string // whole text, code included
}

// NewError parses the text of an error reply (without the leading '-').
func NewError(text string) *Error {
	if i := strings.Index(text, ", with args beginning with"); i >= 0 {
		text = text[:i]
	}
	code, rest, _ := strings.Cut(text, " ")
	if _, refused, ok := strings.Cut(rest, " has no permissions "); ok && strings.HasPrefix(rest, "User ") { // since 7.0 it names the user
		text = code + " this user has no permissions " + refused
	}
	return &Error{Code: code, Text: text}
}

func (e *Error) Error() string { return e.Text }

// Redirect returns the slot and address of a MOVED or ASK error. An empty host means that of the answering server.
func (e *Error) Redirect() (slot int, addr string, ok bool) {
	f := strings.Fields(e.Text)
	if (e.Code != "MOVED" && e.Code != "ASK") || len(f) != 3 {
		return 0, "", false
	}
	n, err := strconv.ParseUint(f[1], 10, 14) // there are 16,384 slots
	if err != nil {
		return 0, "", false
	}
	return int(n), f[2], true
}

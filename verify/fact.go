package verify

import (
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/rdb"
)

// fact is what one end says about a key.
type fact struct {
	there    bool
	d        digest
	form     rdb.Form // in which the source's value reaches the target's release
	deadline int64    // unix milliseconds; 0 for none
	failed   *resp.Error
}

// text is the digest in a report.
func (f *fact) text() string {
	if !f.there || f.d.value == (sum{}) {
		return ""
	}
	all := f.d.value
	all.add(f.d.groups)
	all.add(f.d.fields)
	all.add(f.d.added)
	return all.String()
}

// rules are how facts are compared.
type rules struct {
	tolerance   int64 // of deadlines, in ms
	grace       int64 // by which a deadline of the target may be later, in ms
	fieldTTLs   bool  // the target's release has them
	unsupported bool  // the haul goes without what that lacks
}

// differ says in what two facts differ; in nothing if empty.
func (r *rules) differ(s, t *fact) Kind {
	switch {
	case !s.there && !t.there:
		return ""
	case !s.there:
		return Extra
	case !t.there:
		return r.missing(s)
	case s.d.kind != t.d.kind:
		return Type
	}
	if kind := r.content(&s.d, &t.d); kind != "" {
		return kind
	}
	if !r.sameDeadline(s.deadline, t.deadline) {
		return TTL
	}
	return ""
}

// missing judges a key that the target lacks.
func (r *rules) missing(s *fact) Kind {
	switch {
	case s.form != rdb.FormMissing && s.form != rdb.FormDegraded:
		return Missing
	case r.unsupported:
		return ""
	}
	return Unsupported
}

// content compares values of one type.
func (r *rules) content(s, t *digest) Kind {
	switch {
	case s.kind == "module" && s.value != t.value:
		return Unsupported
	case s.kind == "hash" && s.expires && !r.fieldTTLs && !r.unsupported:
		return Unsupported
	case s.kind == "hash" && r.fieldTTLs && s.value == t.heldValue && s.fields == t.heldFields:
		return ""
	case s.value != t.value && (s.kind != "hash" || s.value != t.heldValue):
		return Value
	case s.kind == "hash" && r.fieldTTLs && s.fields != t.fields:
		return FieldTTL
	case s.groups != t.groups:
		return Group
	case s.extended && t.extended && s.added != t.added:
		return Value
	}
	return ""
}

// sameDeadline tells whether the target's deadline is the source's own, or later by the grace.
func (r *rules) sameDeadline(s, t int64) bool {
	if s == 0 || t == 0 {
		return s == t
	}
	return near(s, t, r.tolerance) || r.grace > 0 && near(s+r.grace, t, r.tolerance)
}

func near(a, b, within int64) bool { return a-b <= within && b-a <= within }

// deadlineOf reads the reply to PEXPIRETIME, or to PTTL where base is the server's clock. It is 0 for none.
func deadlineOf(raw []byte, base int64) int64 {
	n := integer(raw)
	if n < 0 {
		return 0
	}
	return max(base+n, 1)
}

// sameBytes tells whether two payloads of DUMP are of the same value for certain: version and checksum do not count. Types
// from 22 on mean different things to Redis and Valkey.
func sameBytes(s, t []byte, sameFamily bool) bool {
	if len(s) <= rdb.FooterSize || len(s) != len(t) {
		return false
	}
	if s[0] >= rdb.Type22 && !sameFamily {
		return false
	}
	return string(s[:len(s)-rdb.FooterSize]) == string(t[:len(t)-rdb.FooterSize])
}

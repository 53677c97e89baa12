package rdb

// Release is a server release, as far as it decides what the server can hold and how that is written to it. Redict and
// KeyDB count as the Redis that they were forked from.
type Release struct {
	Valkey       bool
	Major, Minor int
}

// Form says in which form a value reaches a release.
type Form uint8

// Forms.
const (
	FormAsItIs    Form = iota // its own bytes are a payload of RESTORE there
	FormRewritten             // the same value, as a payload of another type
	FormDegraded              // only without what the release lacks
	FormMissing               // the release has nothing of the kind
)

// Functions reports whether the release has functions.
func (r Release) Functions() bool { return r.Valkey || r.Major >= 7 }

// FieldDeadlines reports whether fields of hashes can have deadlines there.
func (r Release) FieldDeadlines() bool {
	if r.Valkey {
		return r.Major >= 9
	}
	return r.Major > 7 || r.Major == 7 && r.Minor >= 4
}

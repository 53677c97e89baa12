package rdb

import (
	"fmt"
	"strconv"
	"strings"
)

// Release is a server release, as far as it decides what the server can hold and how that is written to it. Redict and
// KeyDB count as the Redis that they were forked from. The oldest that counts is Redis 5.0.
type Release struct {
	Valkey       bool
	Major, Minor int
}

// ParseRelease reads a release such as "redis-7.0", "valkey 9.1", "redict-7.3" or "keydb-6.3". What follows the minor
// number is not read.
func ParseRelease(text string) (Release, error) {
	family, number, ok := strings.Cut(strings.ToLower(strings.TrimSpace(text)), "-")
	if !ok {
		family, number, ok = strings.Cut(family, " ")
	}
	parts := strings.SplitN(number, ".", 3)
	if !ok || len(parts) < 2 {
		return Release{}, fmt.Errorf("release %q is not of the form redis-7.0 or valkey-9.1", text)
	}
	major, err := strconv.ParseUint(parts[0], 10, 16)
	minor, err2 := strconv.ParseUint(parts[1], 10, 16)
	if err != nil || err2 != nil {
		return Release{}, fmt.Errorf("release %q has no number such as 7.0", text)
	}
	r := Release{Major: int(major), Minor: int(minor)}
	switch family {
	case "redis":
	case "valkey":
		r.Valkey = true
	case "redict":
		r = Release{Major: 7, Minor: 2}
	case "keydb":
		r = Release{Major: 6, Minor: 2}
	default:
		return Release{}, fmt.Errorf("release %q is of none of redis, valkey, redict and keydb", text)
	}
	if r.Major < 5 {
		return Release{}, fmt.Errorf("release %q is older than Redis 5.0", text)
	}
	if r.Valkey && !r.since(7, 2) {
		return Release{}, fmt.Errorf("release %q is none: the first of Valkey is 7.2", text)
	}
	return r, nil
}

func (to Release) String() string {
	family := "redis"
	if to.Valkey {
		family = "valkey"
	}
	return fmt.Sprintf("%s %d.%d", family, to.Major, to.Minor)
}

// since tells whether the release is of that number or a later one. Numbers of Redis and Valkey compare up to 7.2.
func (to Release) since(major, minor int) bool {
	return to.Major > major || to.Major == major && to.Minor >= minor
}

// redis tells whether it is Redis of that number or a later one, where Valkey has nothing of the kind.
func (to Release) redis(major, minor int) bool { return !to.Valkey && to.since(major, minor) }

// FieldTTLs tells whether fields of hashes can have deadlines.
func (to Release) FieldTTLs() bool { return to.redis(7, 4) || to.Valkey && to.since(9, 0) }

// LastFieldTTL is the last deadline that a field can have in Redis, in the year 4199, in unix milliseconds: it keeps 46 bits
// (redis src/t_hash.c, HFE_MAX_ABS_TIME_MSEC). Valkey takes any.
const LastFieldTTL = 1<<46 - 1

// fieldTTL returns the deadline that a field gets whose own is at, and what is lost.
func (to Release) fieldTTL(at int64) (possible int64, lost string) {
	switch {
	case at > 0 && !to.FieldTTLs():
		return 0, lostFieldTTLs
	case at > LastFieldTTL && !to.Valkey:
		return LastFieldTTL, lostLateTTLs
	}
	return at, ""
}

// Functions tells whether there are functions.
func (to Release) Functions() bool { return to.since(7, 0) }

// VectorSets tells whether there are vector sets.
func (to Release) VectorSets() bool { return to.redis(8, 0) }

// Arrays tells whether there are arrays.
func (to Release) Arrays() bool { return to.redis(8, 8) }

// Form says in which form a value reaches a release.
type Form uint8

// Forms.
const (
	FormAsItIs    Form = iota // its own bytes are a payload of RESTORE there
	FormRewritten             // the same value, as a payload of another type
	FormDegraded              // only without what the release lacks
	FormMissing               // the release has nothing of the kind
)

// What a release may lack.
const (
	lostFieldTTLs = "hash field TTLs"
	lostLateTTLs  = "hash field TTLs after the year 4199"
	lostProducers = "idempotent producers"
	lostUnowned   = "pending entries of no consumer"
	lostMetadata  = "key metadata"
)

// Form says how values of type t of a snapshot of Redis or Valkey reach the release, and what it lacks (protocol §4).
// metadata says that key metadata precede the type. FormRewritten with a text is a value that loses this if it has any, which
// the type alone does not tell: Rewrite and Commands do. A value of a module counts as it is, for targets with the same module.
func (to Release) Form(t byte, valkey, metadata bool) (Form, string) {
	form, lacks := to.form(t, valkey)
	if !metadata || to.redis(8, 6) || form == FormMissing {
		return form, lacks
	}
	return FormDegraded, join(lostMetadata, lacks)
}

func (to Release) form(t byte, valkey bool) (Form, string) {
	kind := typeKind(t, valkey)
	switch {
	case to.reads(t, valkey):
		return FormAsItIs, ""
	case kind == 0:
		return FormMissing, TypeName(t)
	case kind == TypeHashTTL && !to.FieldTTLs():
		return FormDegraded, lostFieldTTLs
	case kind == TypeArray:
		return FormMissing, "arrays"
	case kind == TypeHashTTL && !to.Valkey:
		return FormRewritten, lostLateTTLs
	case kind == TypeStream && !to.redis(8, 6) && t == TypeStream5:
		return FormRewritten, join(lostUnowned, lostProducers)
	case kind == TypeStream && t == TypeStream5:
		return FormRewritten, lostUnowned
	case kind == TypeStream && t == TypeStream4:
		return FormRewritten, lostProducers
	}
	return FormRewritten, ""
}

// reads tells whether type t of Redis or Valkey is one that the release loads.
func (to Release) reads(t byte, valkey bool) bool {
	switch t {
	case TypeModulePreGA:
		return false
	case TypeHashListpack, TypeZSetListpack, TypeListQuicklist2, TypeStream2:
		return to.since(7, 0)
	case TypeSetListpack, TypeStream3:
		return to.since(7, 2)
	case Type22:
		return to.Valkey == valkey && to.FieldTTLs()
	case Type23, TypeHashTTL, TypeHashTTLListpack:
		return !valkey && to.redis(7, 4)
	case TypeStream4:
		return !valkey && to.redis(8, 6)
	case TypeStream5, TypeArray:
		return !valkey && to.redis(8, 8)
	}
	return t <= TypeStream && t != 8
}

// FieldTTLs tells whether fields of a value of type t may have deadlines.
func FieldTTLs(t byte) bool { return t >= Type22 && t <= TypeHashTTLListpack }

// typeKind returns the type that stands for all of a kind, 0 for one that is not known and for strings, which every
// release reads.
func typeKind(t byte, valkey bool) byte {
	if valkey && t > Type22 {
		return 0
	}
	switch t {
	case TypeList, TypeListZiplist, TypeListQuicklist, TypeListQuicklist2:
		return TypeList
	case TypeSet, TypeSetIntset, TypeSetListpack:
		return TypeSet
	case TypeZSet, TypeZSet2, TypeZSetZiplist, TypeZSetListpack:
		return TypeZSet2
	case TypeHash, TypeHashZipmap, TypeHashZiplist, TypeHashListpack:
		return TypeHash
	case Type22, Type23, TypeHashTTL, TypeHashTTLListpack:
		return TypeHashTTL
	case TypeStream, TypeStream2, TypeStream3, TypeStream4, TypeStream5:
		return TypeStream
	case TypeModule2, TypeArray:
		return t
	}
	return 0
}

// join names what is lost, each thing once.
func join(lost, more string) string {
	switch {
	case more == "" || strings.Contains(lost, more):
		return lost
	case lost == "":
		return more
	}
	return lost + ", " + more
}

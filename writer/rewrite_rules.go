package writer

import (
	"math"

	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/rdb"
)

// abilities are what a target takes of an ordinary client, as far as that differs between releases (protocol §5).
type abilities struct {
	release rdb.Release

	keepTTL       bool // SET KEEPTTL
	pxat          bool // SET PXAT; false if that is not known, for there is another way
	v62           bool // SET PXAT, XGROUP CREATECONSUMER, LPOP with a count, COPY, LMOVE and more: Redis 6.2
	v70           bool // EXPIRE NX, ENTRIESREAD and ENTRIESADDED of streams, SPUBLISH
	functions     bool
	ifEq          bool  // SET IFEQ
	ifNe          bool  // SET IFNE, IFDEQ, IFDNE
	fieldTTL      bool  // HPEXPIREAT
	lastFieldTTL  int64 // the last deadline that a field can have, in unix milliseconds
	hsetex        bool
	hsetexNX      bool // HSETEX NX and XX
	hgetdel       bool
	msetex        bool
	entryRefs     bool // XADD and XTRIM with KEEPREF, DELREF, ACKED
	deletesByRefs bool // XDELEX, XACKDEL
	idempotence   bool // XCFGSET
	vectors       bool
	arrays        bool
}

// abilitiesOf is a table by release. A server that does not say what it is takes whatever comes, as far as is known.
func abilitiesOf(r rdb.Release) abilities {
	unknown := r == rdb.Release{}
	since := func(major, minor int) bool {
		return unknown || !r.Valkey && (r.Major > major || r.Major == major && r.Minor >= minor)
	}
	valkey := func(major, minor int) bool {
		return unknown || r.Valkey && (r.Major > major || r.Major == major && r.Minor >= minor)
	}
	last := int64(math.MaxInt64)
	if since(7, 4) && !unknown {
		last = rdb.LastFieldTTL
	}
	return abilities{
		release:       r,
		keepTTL:       since(6, 0) || valkey(7, 2),
		pxat:          !unknown && (since(6, 2) || valkey(7, 2)),
		v62:           since(6, 2) || valkey(7, 2),
		v70:           since(7, 0) || valkey(7, 2),
		functions:     since(7, 0) || valkey(7, 2),
		ifEq:          since(8, 4) || valkey(8, 1),
		ifNe:          since(8, 4),
		fieldTTL:      since(7, 4) || valkey(9, 0),
		lastFieldTTL:  last,
		hsetex:        since(8, 0) || valkey(9, 0),
		hsetexNX:      valkey(9, 0),
		hgetdel:       since(8, 0) || valkey(9, 1),
		msetex:        since(8, 4) || valkey(9, 1),
		entryRefs:     since(8, 2),
		deletesByRefs: since(8, 2),
		idempotence:   since(8, 6),
		vectors:       since(8, 0),
		arrays:        since(8, 8),
	}
}

// What targets lack, for people.
const (
	lacksFieldTTL   = "hash field TTLs"
	lacksLateTTL    = "hash field TTLs after the year 4199"
	lacksKeepTTL    = "HSETEX, which keeps hash field TTLs"
	lacksFunctions  = "functions"
	lacksVectors    = `module for values of type "vectorset"`
	lacksArrays     = "arrays"
	lacksReferences = "deletion of stream entries by their references"
	lacksSearches   = "searches by BYBOX or COUNT ANY"
)

// rulesFor returns the rules for a target.
func rulesFor(can abilities) []rule {
	rules := make([]rule, command.Count())
	add := func(rule rule, names ...string) {
		for _, name := range names {
			rules[command.Lookup([]byte(name)).ID()] = rule
		}
	}
	lacking := func(has bool, what string, names ...string) {
		if !has {
			add(func(r *rewriter) outcome { return r.lacks(what) }, names...)
		}
	}
	// What no target takes from an ordinary client, or takes in time only.
	add((*rewriter).set, "SET")
	add((*rewriter).setex, "SETEX", "PSETEX")
	add((*rewriter).expire, "EXPIRE", "PEXPIRE")
	add((*rewriter).restore, "RESTORE", "RESTORE-ASKING")
	add((*rewriter).stream, "XADD", "XTRIM")
	add(func(*rewriter) outcome { return needless }, "XIDMPRECORD")
	add((*rewriter).function, "FUNCTION")

	lacking(can.fieldTTL, lacksFieldTTL, "HEXPIRE", "HPEXPIRE", "HEXPIREAT", "HPEXPIREAT", "HPERSIST")
	lacking(can.vectors, lacksVectors, "VADD", "VREM", "VSETATTR")
	lacking(can.arrays, lacksArrays, "ARSET", "ARMSET", "ARINSERT", "ARDEL", "ARDELRANGE", "ARRING", "ARSEEK")
	lacking(can.deletesByRefs, lacksReferences, "XDELEX", "XACKDEL", "XNACK")
	if !can.idempotence {
		add(func(*rewriter) outcome { return needless }, "XCFGSET")
	}
	if can.fieldTTL && can.lastFieldTTL < math.MaxInt64 {
		add((*rewriter).expireField, "HPEXPIREAT")
	}
	if !can.hsetex || !can.hsetexNX {
		add((*rewriter).hsetex, "HSETEX")
	}
	if !can.hgetdel {
		add((*rewriter).hgetdel, "HGETDEL")
	}
	if !can.msetex {
		add((*rewriter).msetex, "MSETEX")
	}
	if !can.v70 {
		add((*rewriter).expire, "EXPIREAT", "PEXPIREAT")
		add((*rewriter).group, "XGROUP")
		add((*rewriter).setID, "XSETID")
		add((*rewriter).publish, "SPUBLISH")
	}
	if !can.v62 {
		add((*rewriter).pop, "LPOP", "RPOP")
		add((*rewriter).move, "LMOVE")
		add((*rewriter).copy, "COPY")
		add((*rewriter).flush, "FLUSHALL", "FLUSHDB", "SCRIPT")
		add((*rewriter).zadd, "ZADD")
		add((*rewriter).rangeStore, "ZRANGESTORE")
		add((*rewriter).diffStore, "ZDIFFSTORE")
		add((*rewriter).geoStore, "GEOSEARCHSTORE")
		add((*rewriter).radius, "GEORADIUS", "GEORADIUSBYMEMBER")
	}
	return rules
}

// lacks says that nothing can be done of a command because the target has nothing of the kind.
func (r *rewriter) lacks(what string) outcome { return r.without(what, lossy) }

// without says what is missing in what was made.
func (r *rewriter) without(what string, out outcome) outcome {
	r.what = what
	return out
}

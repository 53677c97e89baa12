package writer

import (
	"encoding/binary"
	"errors"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/rdb"
)

// metadataOpcode precedes the type in a payload of Redis 8.6 and later that has metadata of the key.
const metadataOpcode = 243

// takesFooter reports whether the target takes a payload whose footer has a version (protocol §4).
func (c *abilities) takesFooter(version uint16) bool {
	r := c.release
	if r == (rdb.Release{}) {
		return true
	}
	newest := uint16(9)
	switch at := r.Major*100 + r.Minor; {
	case r.Valkey && at >= 900:
		return version <= 11 || version == 80
	case r.Valkey:
		newest = 11
	case at >= 808:
		newest = 14
	case at >= 806:
		newest = 13
	case at >= 704:
		newest = 12
	case at >= 702:
		newest = 11
	case at >= 700:
		newest = 10
	}
	return version <= newest
}

// restore is about RESTORE key ttl payload [options], and RESTORE-ASKING, which is for slots that are imported.
func (r *rewriter) restore() outcome {
	if r.n < 4 {
		return passes
	}
	if id := r.moduleID(3); id != nil && !r.d.cfg.takesModule(id) {
		r.made.command("DEL")
		r.made.args(1, 2)
		return r.without(lacksModule(id), emptied)
	}
	payload := r.footer(3)
	x, timed := r.deadlineOf()
	timed = timed && x.Relative
	if payload == footerGood && !timed && r.cmd.Spec.Name == "RESTORE" {
		return passes
	}
	m, out := &r.made, anew
	var value []byte
	if payload == footerNewer {
		var lost string
		var err error
		switch value, lost, err = r.otherType(3); {
		case errors.Is(err, rdb.ErrUnsupported):
			m.command("DEL")
			m.args(1, 2)
			return r.without("values of this type", emptied)
		case err != nil:
			return passes // the target will refuse it as well
		case lost != "":
			out = r.without(lost, lossy)
		}
	}
	m.command("RESTORE")
	m.args(1, 2)
	if timed {
		at, ok := r.deadline(x)
		if !ok {
			return passes
		}
		m.number(at)
	} else {
		m.args(2, 3)
	}
	if value != nil {
		m.word(string(value))
	} else {
		r.stamped(3, payload)
	}
	m.args(4, r.n)
	if timed {
		m.word("ABSTTL")
	}
	return out
}

// moduleID returns what a payload begins with, if it is a value of a module.
func (r *rewriter) moduleID(i int) []byte {
	if r.size(i) <= idBytes+rdb.FooterSize || r.part(i, 0, 1)[0] != rdb.TypeModule2 {
		return nil
	}
	return r.part(i, 1, idBytes)
}

// otherType returns a payload as one of a type that the target knows, and what is lost by that. It is in memory as a whole,
// also if the command is read from the spool: servers send values of such size by RESTORE when a slot of theirs moves.
func (r *rewriter) otherType(i int) (payload []byte, lost string, err error) {
	old := r.get(i)
	size := len(old) - rdb.FooterSize
	value := rdb.Value{Type: old[0], Valkey: binary.LittleEndian.Uint16(old[size:]) >= 80}
	if value.Type == metadataOpcode && !value.Valkey {
		return nil, "", rdb.ErrUnsupported
	}
	payload, kind, lost, err := r.can.release.Rewrite(make([]byte, 1, len(old)), value, old[1:size])
	if err != nil {
		return nil, "", err
	}
	payload[0] = kind
	version := rdb.FooterVersion(kind, r.can.release.Valkey, false)
	return rdb.AppendFooter(payload, version, rdb.CRC64(0, payload)), lost, nil
}

// function is about FUNCTION RESTORE payload [policy] and, where the target has none, all that is about functions.
func (r *rewriter) function() outcome {
	if !r.can.functions {
		return r.lacks(lacksFunctions)
	}
	if r.n < 3 || !r.is(1, "RESTORE") {
		return passes
	}
	payload := r.footer(2)
	if payload != footerOld {
		return passes
	}
	r.made.command("FUNCTION")
	r.made.args(1, 2)
	r.stamped(2, payload)
	r.made.args(3, r.n)
	return anew
}

// footing is what a target says to the footer of a payload.
type footing uint8

const (
	footerGood  footing = iota
	footerOld           // it would take it with a lower version, or with a checksum, which the source has left out
	footerNewer         // it does not know the type
)

// footer looks at the payload that an argument is.
func (r *rewriter) footer(i int) footing {
	size := r.size(i)
	if size <= rdb.FooterSize {
		return footerGood // no payload: the target refuses it
	}
	foot := r.part(i, size-rdb.FooterSize, rdb.FooterSize)
	if r.err != nil {
		return footerGood
	}
	version, sum := binary.LittleEndian.Uint16(foot), binary.LittleEndian.Uint64(foot[2:])
	switch need := r.version(i); {
	case r.can.takesFooter(version) && sum != 0:
		return footerGood
	case r.can.takesFooter(need):
		return footerOld
	}
	return footerNewer
}

// version is the smallest that knows what a payload holds.
func (r *rewriter) version(i int) uint16 {
	size := r.size(i)
	valkey := binary.LittleEndian.Uint16(r.part(i, size-rdb.FooterSize, 2)) >= 80
	kind := r.part(i, 0, 1)[0]
	switch {
	case r.cmd.Spec.Name == "FUNCTION":
		return 10
	case kind == metadataOpcode && !valkey:
		return rdb.FooterVersion(kind, valkey, true)
	}
	return rdb.FooterVersion(kind, valkey, false)
}

// stamped appends a payload with the footer that the target takes.
func (r *rewriter) stamped(i int, payload footing) {
	if payload == footerGood {
		r.made.args(i, i+1)
		return
	}
	size := r.size(i) - rdb.FooterSize
	r.made.ending(i, size, rdb.AppendFooter(nil, r.version(i), r.checksum(i, size)))
}

// checksum is that of the first n bytes of an argument.
func (r *rewriter) checksum(i int, n int64) (sum uint64) {
	if r.big == nil {
		return rdb.CRC64(0, r.get(i)[:n])
	}
	for from := int64(0); from < n && r.err == nil; {
		p := r.part(i, from, min(n-from, pieceBytes))
		sum = rdb.CRC64(sum, p)
		from += int64(len(p))
	}
	return sum
}

// part returns n bytes of an argument.
func (r *rewriter) part(i int, from, n int64) []byte {
	if r.big == nil {
		return r.get(i)[from : from+n]
	}
	p := make([]byte, n)
	span := r.big.Args[i]
	if _, err := r.big.Section(haul.BigSpan{Off: span.Off + from, Len: n}).ReadAt(p, 0); err != nil && r.err == nil {
		r.err = err
	}
	return p
}

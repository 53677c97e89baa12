package verify

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"

	"github.com/keyhaul/keyhaul/rdb"
)

// sum is a digest of 128 bits. It is keyed by random numbers of this process, so it tells nothing about a value to those
// who do not have another value with the same digest.
type sum [2]uint64

// add makes s a digest of a set: the order of what is added does not count.
func (s *sum) add(other sum) {
	s[0] += other[0]
	s[1] += other[1]
}

func (s sum) String() string { return fmt.Sprintf("%016x%016x", s[0], s[1]) }

// seeds are the keys of all digests of a process.
type seeds [2]maphash.Seed

func newSeeds() seeds { return seeds{maphash.MakeSeed(), maphash.MakeSeed()} }

// hasher makes digests, one after the other.
type hasher struct {
	h      [2]maphash.Hash
	number [binary.MaxVarintLen64]byte
}

func newHasher(s seeds) *hasher {
	x := &hasher{}
	x.h[0].SetSeed(s[0])
	x.h[1].SetSeed(s[1])
	return x
}

func (x *hasher) begin() {
	x.h[0].Reset()
	x.h[1].Reset()
}

func (x *hasher) raw(b []byte) {
	_, _ = x.h[0].Write(b)
	_, _ = x.h[1].Write(b)
}

func (x *hasher) int(n uint64) { x.raw(binary.AppendUvarint(x.number[:0], n)) }

// text appends bytes such that what follows cannot be taken for a part of them.
func (x *hasher) text(b []byte) {
	x.int(uint64(len(b)))
	x.raw(b)
}

func (x *hasher) sum() sum { return sum{x.h[0].Sum64(), x.h[1].Sum64()} }

// of returns the digest of a few texts.
func (x *hasher) of(texts ...[]byte) sum {
	x.begin()
	for _, t := range texts {
		x.text(t)
	}
	return x.sum()
}

// digest is what a value holds, whatever its encoding.
type digest struct {
	kind   string // as TYPE names it; "module" for what only its module can read
	value  sum
	groups sum // consumer groups of a stream, with what they have pending

	fields  sum // deadlines of fields of a hash
	expires bool
	// The same of a hash whose fields' deadlines are held back.
	heldValue, heldFields sum

	extended bool // the stream tells what was ever added to it
	added    sum
}

// digester digests values. One goroutine uses it.
type digester struct {
	part  *hasher // of one element
	whole *hasher // of a sequence

	cut    int64 // fields whose deadline is not behind this do not count; unix milliseconds
	all    bool  // they do, because the other end cannot have deadlines of fields
	held   int64 // ms by which deadlines of fields may be held back
	latest int64 // the last deadline that the other end can have; 0 for any

	d               digest
	group, consumer []byte
	score           [8]byte
}

func newDigester(s seeds) *digester { return &digester{part: newHasher(s), whole: newHasher(s)} }

// payload digests what DUMP has returned.
func (g *digester) payload(p []byte, valkey bool) (digest, error) {
	if len(p) <= rdb.FooterSize {
		return digest{}, errors.New("DUMP has returned too few bytes")
	}
	body := p[:len(p)-rdb.FooterSize]
	g.d, g.group, g.consumer = digest{}, g.group[:0], g.consumer[:0]
	g.whole.begin()
	err := rdb.Value{Type: body[0], Valkey: valkey}.ElementsOf(body[1:], g.element)
	if errors.Is(err, rdb.ErrUnsupported) {
		g.whole.begin()
		g.whole.raw(body)
		return digest{kind: "module", value: g.whole.sum()}, nil
	}
	switch g.d.kind {
	case "string", "list", "stream":
		g.d.value = g.whole.sum()
	}
	return g.d, err
}

func (g *digester) element(e *rdb.Element) error {
	switch e.Kind {
	case rdb.ElementPiece:
		g.d.kind = "string"
		g.whole.raw(e.Value)
	case rdb.ElementItem:
		g.d.kind = "list"
		g.whole.text(e.Value)
	case rdb.ElementMember:
		g.d.kind = "set"
		g.d.value.add(g.part.of(e.Name))
	case rdb.ElementScored:
		g.d.kind = "zset"
		g.d.value.add(g.scored(e.Name, e.Score))
	case rdb.ElementField:
		g.d.kind = "hash"
		g.field(e.Name, e.Value, e.ExpireAt)
	case rdb.ElementIndexed:
		g.d.kind = "array"
		binary.LittleEndian.PutUint64(g.score[:], e.Index)
		g.d.value.add(g.part.of(g.score[:], e.Value))
	default:
		g.d.kind = "stream"
		g.stream(e)
	}
	return nil
}

// scored digests a member with its score; there is one zero only.
func (g *digester) scored(name []byte, score float64) sum {
	binary.LittleEndian.PutUint64(g.score[:], math.Float64bits(score+0))
	return g.part.of(name, g.score[:])
}

func (g *digester) field(name, value []byte, deadline int64) {
	if g.latest > 0 {
		deadline = min(deadline, g.latest)
	}
	content := g.part.of(name, value)
	if deadline == 0 {
		g.d.value.add(content)
		g.d.heldValue.add(content)
		return
	}
	g.d.expires = true
	if g.all || deadline > g.cut {
		g.d.value.add(content)
		g.d.fields.add(g.deadline(name, deadline))
	}
	if at := deadline - g.held; at > g.cut {
		g.d.heldValue.add(content)
		g.d.heldFields.add(g.deadline(name, at))
	}
}

func (g *digester) deadline(name []byte, at int64) sum {
	binary.LittleEndian.PutUint64(g.score[:], uint64(at))
	return g.part.of(name, g.score[:])
}

// stream digests a part of a stream. When an entry was delivered last, and how often, is known to the primary alone, as
// are consumers that have nothing pending, and how much a group has read: servers do not tell their replicas.
func (g *digester) stream(e *rdb.Element) {
	switch e.Kind {
	case rdb.ElementEntry:
		g.id(g.whole, e.ID)
		g.whole.int(uint64(len(e.Fields)))
		for _, f := range e.Fields {
			g.whole.text(f)
		}
	case rdb.ElementStream:
		g.whole.int(e.Stream.Length)
		g.id(g.whole, e.Stream.Last)
		if g.d.extended = e.Stream.Extended; g.d.extended {
			g.part.begin()
			g.id(g.part, e.Stream.MaxDeleted)
			g.part.int(e.Stream.Added)
			g.d.added = g.part.sum()
		}
	case rdb.ElementGroup:
		g.group, g.consumer = append(g.group[:0], e.Name...), g.consumer[:0]
		g.part.begin()
		g.part.text(g.group)
		g.id(g.part, e.ID)
		g.d.groups.add(g.part.sum())
	case rdb.ElementConsumer:
		g.consumer = append(g.consumer[:0], e.Name...)
	case rdb.ElementPending:
		if len(g.consumer) == 0 { // only Redis 8.8 and later have those of no consumer
			return
		}
		g.part.begin()
		g.part.text(g.group)
		g.part.text(g.consumer)
		g.id(g.part, e.ID)
		g.d.groups.add(g.part.sum())
	}
}

func (g *digester) id(x *hasher, id rdb.StreamID) {
	x.int(id.MS)
	x.int(id.Seq)
}

package writer

import (
	"errors"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// encoder writes items as the commands that this target takes.
type encoder struct {
	existing Existing
	pxat     bool // SET has PXAT: Redis 6.2
	strings  bool // keys of the snapshot that are plain strings travel in one MSET a batch
	plain    bool // the target has no transactions
	function *command.Spec
	grace    int64 // ms that deadlines are held back by
	dbs      haul.DBMap
	large    int64                                // bytes from which on a value is built; 0: never
	part     func(key []byte, moving bool) string // the name under which it is
	values

	// standing returns the commands that write keyhaul's own keys anew, after these were flushed; nil where that is
	// not done within a transaction of the stream.
	standing func() [][]string
	own      []string // the names of those keys
}

// decodedLimit is the size up to which a compressed string is sent decoded; a larger one goes as a payload, which
// the target decodes.
const decodedLimit = 1 << 20

// encode appends an item to the outbox, and what is to be expected for it to o.ops.
func (c *encoder) encode(o *outbox, it item) error {
	before, ops := o.size, len(o.ops)
	var err error
	switch {
	case it.part == partStrings:
		err = c.msetStrings(o, it)
	case it.batch.Snapshot && it.entry().Kind != haul.KindCommand:
		err = c.snapshot(o, it)
	default:
		err = c.commands(o, it)
	}
	if n := len(o.ops); n > ops {
		o.ops[n-1].size += int32(o.size - before)
	}
	if errors.Is(err, rdb.ErrString) {
		return haul.Errorf(haul.ExitFailed, "the snapshot is damaged: check it with redis-check-rdb; the target holds a part of the data",
			"snapshot byte %d or soon behind it: %w", it.entry().Start, err)
	}
	return err
}

func (c *encoder) loadFunction(o *outbox, code []byte) {
	o.text("*4\r\n$8\r\nFUNCTION\r\n$4\r\nLOAD\r\n$7\r\nREPLACE\r\n")
	c.bulk(o, code)
}

func (c *encoder) bulk(o *outbox, v []byte) {
	n := len(o.arena)
	o.arena = resp.AppendBulkHeader(o.arena, len(v))
	o.grown(n)
	o.put(v)
	o.end()
}

// end finishes a bulk string.
func (o *outbox) end() {
	o.arena = append(o.arena, '\r', '\n')
	o.size += 2
}

// knowsPXAT reports whether SET takes an absolute deadline: since Redis 6.2, and in what came of 7.2. Others get such
// strings by RESTORE.
func knowsPXAT(n topology.Node) bool {
	switch n.Product {
	case "redis":
		return n.AtLeast(6, 2)
	case "valkey", "redict":
		return true
	}
	return false
}

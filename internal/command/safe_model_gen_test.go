package command

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// generator makes the commands of one sequence. Each sequence draws its own few keys and kinds of command: among all of
// them at once, the ones that disturb each other would hardly meet.
type generator struct {
	*rand.Rand
	base     time.Time // deadlines are counted from here, so that they are absolute
	payloads []string  // of DUMP, one a type
	bits     bool      // SETBIT and SETRANGE write to the keys of PFADD too

	keys, sketches []string // of this sequence
	kinds          []kind
}

// A kind is one form of command. Blank-separated words; those in braces are drawn for each command.
type kind string

func (k kind) name() string { name, _, _ := strings.Cut(string(k), " "); return name }

// safeKinds should be replay-safe, all others need a fence; which is which is for ReplaySafe to say.
var safeKinds = []kind{
	"SET {key} {value}", "SET {key} {value} KEEPTTL", "SET {key} {value} PXAT {ms}", "SET {key} {value} EXAT {s}",
	"HSET {key} {m} {value}", "HSET {key} {m} 1 {m} 2", "SADD {key} {m}", "SADD {key} {m} {m}", "ZADD {key} {n} {m}",
	"ZADD {key} -0 {m} {n} {m}", "SETBIT {bytes} {n} 1",
	"SETBIT {bytes} {n} 0", "SETRANGE {bytes} {n} {value}", "MSET {key} {value} {key} {value}", "DEL {key}",
	"UNLINK {key} {key}", "RESTORE {key} 0 {payload} REPLACE", "RESTORE {key} {ms} {payload} REPLACE ABSTTL",
}

var fencedKinds = []kind{
	"PFADD {sketch} {m} {m}", "PFADD {sketch} {value}",
	"INCR {key}", "INCRBYFLOAT {key} 1.5", "APPEND {key} {value}", "GETSET {key} {value}", "GETDEL {key}",
	"SETNX {key} {value}", "MSETNX {key} {value} {key} {value}", "SET {key} {value} NX", "SET {key} {value} XX",
	"SET {key} {value} XX KEEPTTL", "SET {key} {value} NX PXAT {ms}", "SET {key} {value} EX {ttl}", "SETEX {key} {ttl} {value}",
	"PEXPIREAT {key} {ms}", "EXPIREAT {key} {s}", "EXPIRE {key} {ttl}", "PERSIST {key}", "RENAME {key} {key}",
	"RENAMENX {key} {key}", "COPY {key} {key} REPLACE", "COPY {key} {key}", "RPUSH {key} {m}", "LPUSH {key} {m}",
	"LPOP {key}", "LSET {key} 0 {value}", "LTRIM {key} 0 1", "LREM {key} 1 {m}", "LMOVE {key} {key} LEFT RIGHT",
	"SREM {key} {m}", "SREM {key} {m} {m}", "SMOVE {key} {key} {m}", "SUNIONSTORE {key} {key} {key}", "HDEL {key} {m}",
	"HDEL {key} {m} {m}", "HSETNX {key} {m} {value}", "HINCRBY {key} {m} 2", "ZREM {key} {m}", "ZINCRBY {key} 1 {m}",
	"ZADD {key} NX {n} {m}", "ZADD {key} GT {n} {m}", "ZADD {key} XX {n} {m}", "ZPOPMIN {key}",
	"ZUNIONSTORE {key} 2 {key} {key}", "PFMERGE {sketch} {sketch}", "BITOP NOT {key} {key}",
	"BITFIELD {key} INCRBY u8 8 3", "RESTORE {key} 0 {payload}", "RESTORE {key} {ms} {payload} ABSTTL",
	"XADD {key} {id} f {value}", "XADD {key} MAXLEN = 2 {id} f {value}", "XDEL {key} {id}", "XTRIM {key} MAXLEN 1",
	"XSETID {key} {id}", "XACK {key} g {id}", "XGROUP CREATE {key} g {id} MKSTREAM", "XGROUP SETID {key} g {id}",
	"XGROUP CREATECONSUMER {key} g {consumer}", "XGROUP DELCONSUMER {key} g {consumer}", "XGROUP DESTROY {key} g",
	"XCLAIM {key} g {consumer} 0 {id} TIME {past} RETRYCOUNT {n} FORCE JUSTID LASTID {id}",
	"HPEXPIREAT {key} {ms} FIELDS 1 {m}", "HPERSIST {key} FIELDS 1 {m}", // from Redis 7.4 and Valkey 9 on
}

// streamKinds go together: a command for a group finds one only if others have made it.
var streamKinds = []string{"XADD", "XGROUP", "XCLAIM", "XACK", "XDEL"}

var beginnings = [][]kind{
	{"SADD {key} a b", "PEXPIREAT {key} {ms}", "SADD {key} b 3", "PEXPIREAT {key} {ms}"},
	{"HSET {key} a 1 b 2", "PEXPIREAT {key} {ms}", "ZADD {key} 1 a 2 b", "PEXPIREAT {key} {ms}"},
	streamBeginning,
	{"SET {key} {value} PXAT {ms}", "RPUSH {key} a b", "PEXPIREAT {key} {ms}", "PFADD {sketch} a b 3"},
}

var streamBeginning = []kind{
	"XGROUP CREATE {key} g 0 MKSTREAM", "XADD {key} 1-0 f v", "XADD {key} 2-0 f v",
	"XCLAIM {key} g alice 0 2-0 TIME {past} RETRYCOUNT 1 FORCE JUSTID LASTID 2-0", "XADD {key} 3-0 f v",
}

// sequence draws some 12 to 20 commands. Those named in always are among the kinds that it draws from.
func (g *generator) sequence(always []string) [][][]byte {
	g.keys, g.sketches = nil, []string{"h" + strconv.Itoa(g.IntN(2))}
	for range 1 + g.IntN(3) {
		g.keys = append(g.keys, "k"+strconv.Itoa(g.IntN(6)))
	}
	if g.IntN(4) == 0 { // other types under the keys of PFADD, and its type under others by RENAME and COPY
		g.keys = append(g.keys, g.sketches...)
	}
	g.bits = g.IntN(2) == 0
	g.drawKinds(always)
	var commands [][][]byte
	if g.IntN(2) == 0 { // begin with something that has much to lose
		for _, k := range beginnings[g.IntN(len(beginnings))] {
			commands = append(commands, g.command(k))
		}
	}
	for range 12 + g.IntN(9) {
		commands = append(commands, g.command(g.kinds[g.IntN(len(g.kinds))]))
	}
	return commands
}

func (g *generator) drawKinds(always []string) {
	wanted := make(map[string]bool)
	for _, name := range always {
		wanted[name] = true
	}
	streams, rare := g.IntN(4) == 0 || wanted["XCLAIM"], 4
	if streams {
		rare = 16 // mostly streams, then
		for _, name := range streamKinds {
			wanted[name] = wanted[name] || g.IntN(2) == 0
		}
	}
	g.kinds = g.kinds[:0]
	for _, k := range safeKinds {
		if g.IntN(rare) == 0 || wanted[k.name()] {
			g.kinds = append(g.kinds, k)
		}
	}
	for _, k := range fencedKinds {
		if g.IntN(16) == 0 || wanted[k.name()] {
			g.kinds = append(g.kinds, k)
		}
	}
	for range 2 { // whatever was drawn, and never nothing
		g.kinds = append(g.kinds, safeKinds[g.IntN(len(safeKinds))])
	}
}

func (g *generator) command(k kind) [][]byte {
	fields := strings.Fields(string(k))
	argv := make([][]byte, len(fields))
	for i, word := range fields {
		if strings.HasPrefix(word, "{") {
			word = g.draw(word)
		}
		argv[i] = []byte(word)
	}
	return argv
}

func (g *generator) draw(word string) string {
	// Half an hour past the full hour: a relative deadline reads the same as long as a test runs, see readState.
	deadline := g.base.Add(time.Duration(1+g.IntN(3))*24*time.Hour + 30*time.Minute)
	switch word {
	case "{key}":
		return g.of(g.keys)
	case "{sketch}":
		return g.of(g.sketches)
	case "{bytes}":
		if g.bits {
			return g.of(g.sketches)
		}
		for {
			if key := "k" + strconv.Itoa(g.IntN(6)); g.IntN(8) == 0 {
				return key
			} else if key = g.of(g.keys); key[0] == 'k' {
				return key
			}
		}
	case "{value}":
		return g.of([]string{"1", "7", "x", "long" + strings.Repeat("y", 60)})
	case "{m}":
		return g.of([]string{"a", "b", "3"})
	case "{n}":
		if g.bits {
			return strconv.Itoa(16 + g.IntN(150))
		}
		return strconv.Itoa(g.IntN(12))
	case "{ms}":
		return strconv.FormatInt(deadline.UnixMilli(), 10)
	case "{s}":
		return strconv.FormatInt(deadline.Unix(), 10)
	case "{ttl}":
		return strconv.FormatInt(int64((9*24*time.Hour+30*time.Minute)/time.Second), 10)
	case "{past}":
		return strconv.FormatInt(g.base.Add(-time.Duration(g.IntN(3))*time.Hour).UnixMilli(), 10)
	case "{id}":
		return strconv.Itoa(1+g.IntN(4)) + "-0"
	case "{consumer}":
		return g.of([]string{"alice", "bob"})
	case "{payload}":
		return g.of(g.payloads)
	}
	panic(fmt.Sprintf("nothing to draw for %s", word))
}

func (g *generator) of(choices []string) string { return choices[g.IntN(len(choices))] }

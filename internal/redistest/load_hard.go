package redistest

import (
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	hotKeys     = 8 // of each type, on which half of the choices fall
	groupName   = "group"
	mostUnacked = 1000 // entries of streams that a writer remembers to acknowledge
)

// The scripts of MixHard write to their keys in ways that change something twice when they are repeated.
const (
	countScript = "local n = redis.call('INCR', KEYS[1]) redis.call('RPUSH', KEYS[2], n) redis.call('LTRIM', KEYS[2], -40, -1) return n"
	moveScript  = "local v = redis.call('LPOP', KEYS[1]) if v then redis.call('APPEND', KEYS[2], '.') end return v"
	renewScript = "redis.call('HINCRBY', KEYS[1], 'visits', 1) return redis.call('PEXPIREAT', KEYS[1], ARGV[1])"
)

// hardMix is MixHard: each line is chosen as often as its weight says. Those up to the first comment are replay-safe.
var hardMix = mix{
	{14, func(w *loadWriter) unit { return command("SET", w.hard("text"), w.text(5, 100)) }},
	{4, func(w *loadWriter) unit {
		return command("SET", w.hard("text"), w.text(5, 100), "EX", w.within(60, 3600))
	}},
	{9, func(w *loadWriter) unit { return command("HSET", w.hard("hash"), "f"+w.within(0, 20), w.text(2, 30)) }},
	{6, func(w *loadWriter) unit { return command("SADD", w.hard("set"), "m"+w.within(0, 100)) }},
	{6, func(w *loadWriter) unit { return command("ZADD", w.hard("zset"), w.score(), "m"+w.within(0, 50)) }},
	{3, func(w *loadWriter) unit { return command("SETBIT", w.hard("bits"), w.within(0, 2000), w.within(0, 2)) }},
	{3, func(w *loadWriter) unit { return command("SETRANGE", w.hard("range"), w.within(0, 200), w.text(1, 20)) }},
	{2, func(w *loadWriter) unit { return command("PFADD", w.hard("pf"), w.id(), w.id()) }},
	{2, (*loadWriter).severalSet},
	{2, (*loadWriter).severalDeleted},
	{3, func(w *loadWriter) unit { return command("DEL", w.hard(w.anyKind())) }},

	// what follows is not
	{8, func(w *loadWriter) unit { return command("INCR", w.hard("count")) }},
	{3, func(w *loadWriter) unit { return command("APPEND", w.hard("text"), w.text(1, 8)) }},
	{4, func(w *loadWriter) unit {
		return command("HINCRBY", w.hard("hash"), "n"+w.within(0, 5), w.within(-50, 100))
	}},
	{4, func(w *loadWriter) unit { return command("RPUSH", w.hard("list"), w.text(2, 30), w.text(2, 30)) }},
	{5, func(w *loadWriter) unit { return command("LPOP", w.hard("list")) }},
	{4, func(w *loadWriter) unit { return command("ZINCRBY", w.hard("zset"), w.score(), "m"+w.within(0, 50)) }},
	{2, func(w *loadWriter) unit { return command("SREM", w.hard("set"), "m"+w.within(0, 100)) }},
	{2, func(w *loadWriter) unit { return command("SPOP", w.hard("set")) }},
	{3, func(w *loadWriter) unit {
		return command("XADD", w.hard("stream"), "MAXLEN", "~", "100", "*", "f", w.text(2, 30))
	}},
	{3, (*loadWriter).streamRead},
	{2, (*loadWriter).streamAcked},
	{2, func(w *loadWriter) unit { return command("PEXPIREAT", w.hard("text"), deadline(60+w.IntN(3600))) }},
	{1, func(w *loadWriter) unit { return command("PERSIST", w.hard("text")) }},
	{3, (*loadWriter).sessionOpened},
	{3, (*loadWriter).sessionRenewed},
	{2, (*loadWriter).renamed},
	{2, func(w *loadWriter) unit {
		a, b := w.together("set", "set")
		return unit{key: a, commands: [][]string{{"SUNIONSTORE", w.beside(a, "union"), a, b}}}
	}},
	{2, (*loadWriter).scripted},
	{4, (*loadWriter).hardTransaction},
}

// command is a unit of one command, whose first argument is its key.
func command(name, key string, args ...string) unit {
	return unit{key: key, commands: [][]string{append([]string{name, key}, args...)}}
}

// deadline is so many seconds from now, in Unix milliseconds.
func deadline(seconds int) string {
	return strconv.FormatInt(time.Now().Add(time.Duration(seconds)*time.Second).UnixMilli(), 10)
}

// group chooses the hash tag of a key, more often a hot one.
func (w *loadWriter) group() string {
	n := w.load.Keys
	if w.IntN(2) == 0 {
		n = min(n, hotKeys)
	}
	return "hard:{" + strconv.Itoa(w.IntN(n)) + "}:"
}

// hard returns a key of a kind. Each kind holds one type.
func (w *loadWriter) hard(kind string) string { return w.group() + kind }

// together returns two different keys that one command or transaction may name.
func (w *loadWriter) together(kind, other string) (a, b string) {
	group := w.group()
	if a = group + kind; w.load.Tagged {
		return a, group + other + "2"
	}
	return a, w.hard(other + "2")
}

// beside returns a key of a kind that may be named together with key.
func (w *loadWriter) beside(key, kind string) string {
	if !w.load.Tagged {
		return w.hard(kind)
	}
	for i := range len(key) {
		if key[i] == '}' {
			return key[:i+2] + kind
		}
	}
	return key
}

func (w *loadWriter) anyKind() string {
	kinds := []string{"text", "hash", "set", "set2", "zset", "bits", "range", "pf", "count", "list", "list2", "stream", "union", "session"}
	return kinds[w.IntN(len(kinds))]
}

// within returns one of n numbers, the first of which is least.
func (w *loadWriter) within(least, n int) string { return strconv.Itoa(least + w.IntN(n)) }

func (w *loadWriter) score() string { return strconv.FormatFloat(w.NormFloat64(), 'g', 6, 64) }

// several are keys of any slots where a command may name such: where the load goes to is what counts, since keyhaul
// splits these commands for a cluster.
func (w *loadWriter) several(kind string) []string {
	keys := make([]string, 2+w.IntN(3))
	group := w.group()
	for i := range keys {
		if keys[i] = w.hard(kind); w.load.clustered {
			keys[i] = group + kind
		}
	}
	return keys
}

func (w *loadWriter) severalSet() unit {
	set := []string{"MSET"}
	keys := w.several("text")
	for _, key := range keys {
		set = append(set, key, w.text(5, 60))
	}
	return unit{key: keys[0], commands: [][]string{set}}
}

func (w *loadWriter) severalDeleted() unit {
	keys := w.several(w.anyKind())
	return unit{key: keys[0], commands: [][]string{append([]string{"DEL"}, keys...)}}
}

// pendingEntry is an entry of a stream that a consumer has read.
type pendingEntry struct{ key, id string }

// streamRead reads for a consumer of a group, and remembers what was read. Group and consumer are created when they are
// missing: a consumer that XREADGROUP creates for nothing to read is news that some releases do not tell their replicas.
func (w *loadWriter) streamRead() unit {
	key, db, consumer := w.hard("stream"), w.db, "consumer"+w.within(0, 3)
	return unit{
		key: key,
		commands: [][]string{
			{"XGROUP", "CREATE", key, groupName, "0", "MKSTREAM"},
			{"XGROUP", "CREATECONSUMER", key, groupName, consumer},
			{"XREADGROUP", "GROUP", groupName, consumer, "COUNT", "2", "STREAMS", key, ">"},
		},
		expected: []string{"BUSYGROUP", "NOGROUP", "ERR The XGROUP subcommand requires", "ERR Unknown subcommand"},
		answered: func(replies []resp.Reply) {
			read := replies[len(replies)-1]
			if read.Err() != nil || len(w.unacked[db]) >= mostUnacked {
				return
			}
			for _, stream := range read.Array {
				for _, entry := range stream.Array[1].Array {
					w.unacked[db] = append(w.unacked[db], pendingEntry{key, entry.Array[0].Text})
				}
			}
		},
	}
}

// streamAcked acknowledges an entry that was read, if there is one.
func (w *loadWriter) streamAcked() unit {
	waiting := w.unacked[w.db]
	if len(waiting) == 0 {
		return w.streamRead()
	}
	entry := waiting[0]
	w.unacked[w.db] = waiting[1:]
	return command("XACK", entry.key, groupName, entry.id)
}

// A session counts its visits and lives for 1 to 20 seconds from the last one. One that a target lets die too early
// starts again from nothing there, or is missing.
func (w *loadWriter) sessionOpened() unit {
	key := w.hard("session")
	if w.IntN(2) == 0 {
		return unit{key: key, commands: [][]string{{"EVAL", renewScript, "1", key, deadline(1 + w.IntN(20))}}}
	}
	return unit{key: key, commands: [][]string{
		{"HINCRBY", key, "visits", "1"},
		{"EXPIRE", key, w.within(1, 20)},
	}}
}

func (w *loadWriter) sessionRenewed() unit {
	key := w.hard("session")
	if w.IntN(2) == 0 {
		return command("EXPIRE", key, w.within(1, 20))
	}
	return command("PEXPIREAT", key, deadline(1+w.IntN(20)))
}

// renamed gives a list another name, over what had that name.
func (w *loadWriter) renamed() unit {
	from, to := w.together("list", "list")
	return unit{
		key:      from,
		commands: [][]string{{"RPUSH", from, w.text(2, 30)}, {"RENAME", from, to}},
		expected: []string{"ERR no such key"},
	}
}

func (w *loadWriter) scripted() unit {
	if w.IntN(2) == 0 {
		from := w.hard("list")
		return unit{key: from, commands: [][]string{{"EVAL", moveScript, "2", from, w.beside(from, "text")}}}
	}
	count := w.hard("count")
	return unit{key: count, commands: [][]string{{"EVAL", countScript, "2", count, w.beside(count, "counted")}}}
}

// hardTransaction changes a few keys at once, of two databases where the target has them.
func (w *loadWriter) hardTransaction() unit {
	first := w.hard("count")
	u := unit{key: first, commands: [][]string{
		{"MULTI"},
		{"INCR", first},
		{"RPUSH", w.beside(first, "list"), w.text(2, 20)},
	}}
	switch w.IntN(4) {
	case 0:
		u.commands = append(u.commands, []string{"APPEND", w.beside(first, "text"), "+"})
	case 1:
		u.commands = append(u.commands, []string{"DEL", w.beside(first, "set")}, []string{"SADD", w.beside(first, "set"), "m1", "m2"})
	case 2:
		if w.load.Databases > 1 {
			other := strconv.Itoa(w.IntN(w.load.Databases))
			u.commands = append(u.commands, []string{"SELECT", other}, []string{"INCR", w.hard("count")}, []string{"SELECT", strconv.Itoa(w.db)})
		}
	}
	u.commands = append(u.commands, []string{"EXEC"})
	return u
}

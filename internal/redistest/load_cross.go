package redistest

import "strconv"

// crossMix is MixCross: each line is chosen as often as its weight says. Those up to the first comment have one key.
var crossMix = mix{
	{6, func(w *loadWriter) unit { return command("SET", w.key("text"), w.text(1, 30)) }},
	{6, func(w *loadWriter) unit { return command("APPEND", w.key("text"), w.text(1, 4)) }},
	{1, func(w *loadWriter) unit {
		return command("SET", w.key("text"), w.text(1, 30), "PX", w.within(100, 2000))
	}},
	{2, func(w *loadWriter) unit { return command("PEXPIREAT", w.key("text"), deadline(60+w.IntN(3600))) }},
	{1, func(w *loadWriter) unit { return command("PERSIST", w.key("text")) }},
	{9, func(w *loadWriter) unit { return command("INCR", w.key("count")) }},
	{6, func(w *loadWriter) unit { return command("RPUSH", w.key("list"), w.text(1, 6)) }},
	{3, func(w *loadWriter) unit { return command("LTRIM", w.key("list"), "-30", "-1") }},
	{3, func(w *loadWriter) unit { return command("LPOP", w.key("list")) }},
	{4, func(w *loadWriter) unit { return command("SADD", w.key("set"), "m"+w.within(0, 40)) }},
	{3, func(w *loadWriter) unit { return command("SPOP", w.key("set")) }},
	{4, func(w *loadWriter) unit {
		return command("ZINCRBY", w.key("zset"), w.within(-50, 100), "m"+w.within(0, 40))
	}},
	{3, func(w *loadWriter) unit { return command("HINCRBY", w.key("hash"), "n"+w.within(0, 5), "1") }},
	{2, func(w *loadWriter) unit { return command("PFADD", w.key("pf"), w.id()) }},
	{2, func(w *loadWriter) unit {
		return command("GEOADD", w.key("geo"), w.within(-100, 100), w.within(-80, 80), "m"+w.within(0, 20))
	}},
	{3, func(w *loadWriter) unit {
		return command("DEL", w.key([]string{"text", "count", "list", "set", "zset", "hash", "pf", "geo"}[w.IntN(8)]))
	}},

	// what follows has several
	{2, func(w *loadWriter) unit { return missing("RENAME", w.key("text"), w.key("text")) }},
	{2, func(w *loadWriter) unit { return missing("RENAME", w.key("count"), w.key("count")) }},
	{2, func(w *loadWriter) unit { return missing("RENAMENX", w.key("hash"), w.key("hash")) }},
	{2, func(w *loadWriter) unit { return missing("RENAME", w.key("list"), w.key("list")) }},
	{2, (*loadWriter).copied},
	{2, func(w *loadWriter) unit { return command("SMOVE", w.key("set"), w.key("set"), "m"+w.within(0, 40)) }},
	{1, func(w *loadWriter) unit { return command("SUNIONSTORE", w.key("set"), w.key("set"), w.key("set")) }},
	{1, func(w *loadWriter) unit { return command("SDIFFSTORE", w.key("set"), w.key("set"), w.key("set")) }},
	{1, func(w *loadWriter) unit {
		return command("ZUNIONSTORE", w.key("zset"), "2", w.key("zset"), w.key("set"))
	}},
	{1, func(w *loadWriter) unit { return newer("ZRANGESTORE", w.key("zset"), w.key("zset"), "0", "10") }},
	{1, func(w *loadWriter) unit {
		return newer("GEOSEARCHSTORE", w.key("geo"), w.key("geo"), "FROMLONLAT", "0", "0", "BYRADIUS", "9000", "km")
	}},
	{1, func(w *loadWriter) unit {
		return command("GEORADIUS", w.key("geo"), "0", "0", "9000", "km", "STORE", w.key("geo"))
	}},
	{1, func(w *loadWriter) unit { return command("SORT", w.key("set"), "ALPHA", "STORE", w.key("list")) }},
	{2, func(w *loadWriter) unit { return command("RPOPLPUSH", w.key("list"), w.key("list")) }},
	{2, func(w *loadWriter) unit { return newer("LMOVE", w.key("list"), w.key("list"), "LEFT", "RIGHT") }},
	{1, func(w *loadWriter) unit { return command("BITOP", "XOR", w.key("bits"), w.key("text"), w.key("text")) }},
	{1, func(w *loadWriter) unit { return command("PFMERGE", w.key("pf"), w.key("pf"), w.key("pf")) }},
	{1, func(w *loadWriter) unit {
		return command("MSETNX", w.key("text"), w.text(1, 9), w.key("text"), w.text(1, 9))
	}},
	{2, func(w *loadWriter) unit {
		return command("MSET", w.key("text"), w.text(1, 9), w.key("text"), w.text(1, 9))
	}},
	{2, func(w *loadWriter) unit { return command("DEL", w.key("list"), w.key("list"), w.key("set")) }},
	{4, (*loadWriter).crossTransaction},
}

// missing is a command that may find its key gone.
func missing(name, key, other string) unit {
	u := command(name, key, other)
	u.expected = []string{"ERR no such key"}
	return u
}

// newer is a command that Redis 6.0 does not have.
func newer(name, key string, args ...string) unit {
	u := command(name, key, args...)
	u.expected = []string{"ERR unknown command"}
	return u
}

// copied copies a key of some type.
func (w *loadWriter) copied() unit {
	kind := []string{"text", "count", "list", "set", "zset", "hash"}[w.IntN(6)]
	u := newer("COPY", w.key(kind), w.key(kind), "REPLACE")
	u.expected = append(u.expected, "ERR source and destination objects are the same")
	return u
}

// crossTransaction changes keys that a command in its midst brings together.
func (w *loadWriter) crossTransaction() unit {
	a, b := w.key("list"), w.key("list")
	u := unit{key: a, commands: [][]string{
		{"MULTI"},
		{"RPUSH", a, w.text(1, 5)},
		{"INCR", w.key("count")},
		{"RPOPLPUSH", a, b},
		{"RPUSH", b, strconv.Itoa(w.IntN(100))},
		{"EXEC"},
	}}
	if w.IntN(3) == 0 { // one that can be split
		u.commands = append(u.commands[:3], []string{"EXEC"})
	}
	return u
}

package redistest

import "strconv"

// script is what EVAL of a Load runs: two writes to its one key.
const script = "redis.call('RPUSH', KEYS[1], ARGV[1]) redis.call('LTRIM', KEYS[1], -50, -1) return 1"

// mix are units to choose from, each as often as its weight says.
type mix []struct {
	weight int
	make   func(w *loadWriter) unit
}

// pick makes one of them.
func (m mix) pick(w *loadWriter) unit {
	sum := 0
	for _, line := range m {
		sum += line.weight
	}
	n := w.IntN(sum)
	for _, line := range m {
		if n -= line.weight; n < 0 {
			return line.make(w)
		}
	}
	panic("redistest: the weights of a mix do not add up")
}

// key returns one of the load's keys of a kind. Kinds keep to themselves, so that no command meets a wrong type.
func (w *loadWriter) key(kind string) string {
	return "load:" + kind + ":" + strconv.Itoa(w.IntN(w.load.Keys))
}

func (w *loadWriter) number(n int) string { return strconv.Itoa(w.IntN(n)) }

// next makes up the next unit.
func (w *loadWriter) next() unit {
	one := func(name, key string, args ...string) unit {
		return unit{key: key, commands: [][]string{append([]string{name, key}, args...)}}
	}
	switch n := w.IntN(100); {
	case n < 14:
		return one("SET", w.key("string"), w.text(5, 120))
	case n < 20:
		return one("SET", w.key("string"), w.text(5, 120), "EX", strconv.Itoa(60+w.IntN(3600)))
	case n < 30:
		return one("INCR", w.key("count"))
	case n < 38:
		return one("HSET", w.key("hash"), "f"+w.number(20), w.text(2, 30))
	case n < 43:
		return one("HINCRBY", w.key("hash"), "n"+w.number(5), strconv.Itoa(w.IntN(100)-50))
	case n < 49:
		return one("RPUSH", w.key("list"), w.text(2, 40))
	case n < 53:
		return one("LPOP", w.key("list"))
	case n < 58:
		return one("ZADD", w.key("zset"), strconv.FormatFloat(w.NormFloat64(), 'g', 6, 64), "m"+w.number(50))
	case n < 62:
		return one("ZINCRBY", w.key("zset"), strconv.FormatFloat(w.NormFloat64(), 'g', 6, 64), "m"+w.number(50))
	case n < 67:
		return one("SADD", w.key("set"), "m"+w.number(100))
	case n < 70:
		return one("SREM", w.key("set"), "m"+w.number(100))
	case n < 72:
		return one("SPOP", w.key("set"))
	case n < 76:
		return one("XADD", w.key("stream"), "MAXLEN", "~", "100", "*", "f", w.text(2, 30))
	case n < 80:
		return one("APPEND", w.key("string"), w.text(1, 8))
	case n < 84:
		return one("DEL", w.key([]string{"string", "hash", "list", "zset", "set", "count"}[w.IntN(6)]))
	case n < 87:
		return one("EXPIRE", w.key("string"), strconv.Itoa(60+w.IntN(3600)))
	case n < 89:
		return one("PERSIST", w.key("string"))
	case n < 94:
		return w.transaction()
	}
	key := w.key("evaluated")
	return unit{key: key, commands: [][]string{{"EVAL", script, "1", key, w.text(2, 20)}}}
}

// transaction changes two or three keys of one hash tag.
func (w *loadWriter) transaction() unit {
	tag := "load:{" + w.number(w.load.Keys) + "}"
	u := unit{key: tag, commands: [][]string{
		{"MULTI"},
		{"INCR", tag + ":count"},
		{"RPUSH", tag + ":list", w.text(2, 20)},
		{"EXEC"},
	}}
	if w.IntN(2) == 0 {
		u.commands = append(u.commands[:3], []string{"LTRIM", tag + ":list", "-20", "-1"}, []string{"EXEC"})
	}
	return u
}

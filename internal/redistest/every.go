package redistest

import (
	"fmt"
	"strconv"
	"strings"
)

// everyCommands write keys of every type, encoding and state that releases have, under a prefix. What a release does not
// know it refuses.
func everyCommands(prefix string) [][]string {
	k := func(name string) string { return prefix + ":" + name }
	long := strings.Repeat("keyhaul ", 50)
	binary := "\x00\xff\r\n$3\r\n\xc3\x28"
	var all [][]string
	add := func(command ...string) { all = append(all, command) }
	each := func(n int, head []string, one func(i int) []string) { // in commands of 500
		for from := 0; from < n; from += 500 {
			command := append([]string(nil), head...)
			for i := from; i < min(from+500, n); i++ {
				command = append(command, one(i)...)
			}
			add(command...)
		}
	}
	number := func(format string) func(i int) []string {
		return func(i int) []string { return []string{fmt.Sprintf(format, i)} }
	}
	two := func(a, b string) func(i int) []string {
		return func(i int) []string { return []string{fmt.Sprintf(a, i), fmt.Sprintf(b, i)} }
	}

	// strings: raw, binary, integers, compressed, empty, large; deadlines
	add("SET", k("text"), "value")
	add("SET", k("empty"), "")
	add("SET", k("binary"), binary)
	for _, n := range []string{"0", "-1", "127", "-129", "32768", "2147483648", "-9223372036854775808", "012", "1e3"} {
		add("SET", k("number:"+n), n)
	}
	add("SET", k("compressed"), strings.Repeat(long, 20))
	add("SET", k("large"), strings.Repeat(long, 15_000)) // 6 MB
	add("SET", k("seconds"), "v", "EX", "50000")
	add("SETEX", k("setex"), "60000", "v")
	add("APPEND", k("appended"), "a")
	add("APPEND", k("appended"), "b")
	add("INCRBYFLOAT", k("float"), "0.1")
	add("SETBIT", k("bitmap"), "100000", "1")
	add("BITFIELD", k("bitfield"), "SET", "u8", "3", "200")
	each(1500, []string{"PFADD", k("hyperloglog")}, number("element:%d"))
	add("PFADD", k("hyperloglog:sparse"), "a", "b", "c")
	add("PFADD", k("hyperloglog:empty"))
	add("MSET", prefix+binary, "binary name", prefix, "the prefix itself")

	// lists, sets, hashes, sorted sets: small, of integers, with long elements, large; an expiring one of each
	add("RPUSH", k("list"), "a", "", "12", binary)
	add("RPUSH", k("list:long"), long+long+long, strings.Repeat(long, 100), "c")
	each(3000, []string{"RPUSH", k("list:large")}, number("element %d"))
	add("SADD", k("set"), "a", "b", binary)
	add("SADD", k("set:integers"), "1", "2", "-70000", "9223372036854775807")
	each(2000, []string{"SADD", k("set:large")}, number("member %d"))
	each(1000, []string{"SADD", k("set:large:integers")}, number("%d00000"))
	add("HSET", k("hash"), "f", "v", "", "empty name", "empty", "", "n", "12", binary, binary)
	add("HSET", k("hash:long"), "f", strings.Repeat(long, 20))
	each(2000, []string{"HSET", k("hash:large")}, two("field %d", "value %d"))
	add("ZADD", k("zset"), "1.5", "a", "-inf", "lowest", "+inf", "highest", "0", "tie a", "0", "tie b", "1e-300", "tiny", "123456789012345680", "big", "0.1", binary)
	add("ZADD", k("zset:long"), "3", strings.Repeat(long, 20))
	each(2000, []string{"ZADD", k("zset:large")}, two("%d.25", "member %d"))
	add("GEOADD", k("geo"), "13.361389", "38.115556", "Palermo", "15.087269", "37.502669", "Catania")
	for _, name := range []string{"list", "set", "hash", "zset", "geo"} {
		add("EXPIRE", k(name), "70000")
	}

	// deadlines of fields
	add("HSET", k("fields"), "a", "1", "b", "2", "c", "3")
	add("HEXPIRE", k("fields"), "80000", "FIELDS", "2", "a", "b")
	add("HPEXPIREAT", k("fields"), "9999999999999", "FIELDS", "1", "b")
	each(800, []string{"HSET", k("fields:large")}, two("field %d", "value %d"))
	add("HEXPIRE", k("fields:large"), "90000", "FIELDS", "3", "field 1", "field 2", "field 799")
	add("HSETEX", k("fields:set"), "EX", "90000", "FIELDS", "1", "f", "v")

	// streams
	entries := func(key string, n int) {
		for i := 1; i <= n; i++ {
			add("XADD", key, strconv.Itoa(i)+"-1", "sensor", "a", "reading", strconv.Itoa(i), binary, long)
		}
	}
	entries(k("stream"), 12)
	add("XADD", k("stream"), "13-1", "other", "fields")
	add("XGROUP", "CREATE", k("stream"), "group", "0")
	add("XGROUP", "CREATE", k("stream"), "unread", "$")
	add("XREADGROUP", "GROUP", "group", "alice", "COUNT", "4", "STREAMS", k("stream"), ">")
	add("XREADGROUP", "GROUP", "group", "bob", "COUNT", "3", "STREAMS", k("stream"), ">")
	add("XACK", k("stream"), "group", "1-1")
	add("XCLAIM", k("stream"), "group", "bob", "0", "2-1")
	add("XGROUP", "CREATECONSUMER", k("stream"), "group", "idle")
	add("XDEL", k("stream"), "3-1", "13-1") // pending, and the last one
	add("EXPIRE", k("stream"), "70000")
	entries(k("stream:large"), 300)
	add("XTRIM", k("stream:large"), "MAXLEN", "250")
	add("XGROUP", "CREATE", k("stream:empty"), "group", "$", "MKSTREAM")
	add("XADD", k("stream:emptied"), "5-5", "f", "v")
	add("XDEL", k("stream:emptied"), "5-5")

	// vector sets
	add("VADD", k("vectors"), "VALUES", "3", "1", "0.5", "-2", "a")
	add("VADD", k("vectors"), "VALUES", "3", "0", "1", "0", "b", "SETATTR", `{"year":1950}`)

	// what scripts and functions write
	add("EVAL", "redis.call('SET',KEYS[1],ARGV[1]) return redis.call('PEXPIRE',KEYS[1],70000000)", "1", k("script"), "v")
	add("FUNCTION", "LOAD", "#!lua name="+prefix+"\nredis.register_function('"+prefix+"_set', function(k, a) return redis.call('SET',k[1],a[1]) end)")
	add("FCALL", prefix+"_set", "1", k("function"), "v")

	// other databases
	add("SELECT", "3")
	add("SET", k("text"), "of database 3")
	add("RPUSH", k("list"), "of database 3")
	add("SELECT", "9")
	add("HSET", k("hash"), "of", "database 9")
	add("SELECT", "0")

	// what is gone, renamed and moved
	add("SET", k("deleted"), "v")
	add("DEL", k("deleted"))
	add("SET", k("renamed:from"), "v", "PX", "90000000")
	add("RENAME", k("renamed:from"), k("renamed:to"))
	add("SET", k("moved"), "v")
	add("MOVE", k("moved"), "5")
	add("SUNIONSTORE", k("union"), k("set"), k("set:integers"))
	add("ZUNIONSTORE", k("zunion"), "2", k("zset"), k("geo"))
	add("SORT", k("set:integers"), "STORE", k("sorted"))
	add("COPY", k("hash"), k("copied"))
	add("LMOVE", k("list:long"), k("list:moved"), "RIGHT", "LEFT")
	add("SPOP", k("set:large"), "5")
	add("PERSIST", k("geo"))
	return all
}

// WriteEvery writes, under a prefix, keys of every type, encoding and state that the server knows: strings as text, bytes,
// integers, bitmaps, HyperLogLogs, empty and large ones; lists, sets, hashes and sorted sets in their small and large
// encodings; streams with groups, pending and deleted entries; vector sets; deadlines of keys and fields; functions; several databases;
// names of bytes. What the server does not know is left out. It returns how many commands were carried out.
func (s *Server) WriteEvery(prefix string) (done int) {
	s.t.Helper()
	for _, command := range everyCommands(prefix) {
		args := make([]any, len(command))
		for i, a := range command {
			args[i] = a
		}
		err := s.Do(args...).Err()
		switch {
		case err == nil:
			done++
		case !strings.Contains(err.Error(), "unknown") && !strings.Contains(err.Error(), "wrong number"):
			s.t.Fatalf("redistest: %s on %s: %v", command[0], s.Version, err)
		}
	}
	return done
}

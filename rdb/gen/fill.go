package main

import (
	"fmt"
	"strings"
)

var (
	long   = strings.Repeat("x", 80) // too long for the compact encodings of small values
	longer = strings.Repeat("all work and no play ", 40)
	binary = func() string {
		b := make([]byte, 256)
		for i := range b {
			b[i] = byte(i)
		}
		return string(b)
	}()
)

// fillAll writes every type in every encoding that the server has.
func fillAll(s *server) {
	fillStrings(s)
	fillLists(s)
	fillSets(s)
	fillHashes(s)
	fillStreams(s)
	if s.Version.AtLeast(7, 0) {
		s.MustDo("FUNCTION", "LOAD", "#!lua name=small\nredis.register_function('f', function() return 1 end)")
		s.MustDo("FUNCTION", "LOAD", "#!lua name=large\n--"+longer+"\nredis.register_function('g', function() return 2 end)")
	}
	for _, db := range []int{1, 9, 15} {
		s.MustDo("SELECT", db)
		s.MustDo("SET", "same", db)
		s.MustDo("SET", fmt.Sprint("expires:", db), "x")
		s.MustDo("PEXPIREAT", fmt.Sprint("expires:", db), deadline)
	}
}

func fillStrings(s *server) {
	for name, value := range map[string]string{
		"empty": "", "0": "0", "int8": "-128", "int16": "32767", "int32": "-2147483648", "int64": "9223372036854775807",
		"int:no": "007", "embstr": "hello", "raw": binary, "lzf": strings.Repeat("a", 1000), "lzf:text": longer,
		"float": "3.14", "large": binary + strings.Repeat(binary, 80),
	} {
		s.MustDo("SET", "string:"+name, value)
	}
	s.MustDo("SET", "", "the empty name")
	s.MustDo("SET", "-7", "a number as name")
	s.MustDo("SET", "70000", "a larger number as name")
	s.MustDo("SET", binary, "all bytes as name")
	s.MustDo("SET", strings.Repeat("n", 500), "a name that is compressed")
	s.MustDo("SET", "expires:string", "x")
	s.MustDo("PEXPIREAT", "expires:string", deadline)
}

func fillLists(s *server) {
	s.do("RPUSH list:small a b -1 12345 3.5")
	s.MustDo("RPUSH", "list:long", longer, binary, "")
	for i := range 300 {
		s.MustDo("RPUSH", "list:many", fmt.Sprint("element ", i, long))
	}
	if s.Version.AtLeast(7, 0) {
		s.MustDo("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "100b")
		s.MustDo("RPUSH", "list:plain", "small", longer, "small", binary)
		s.MustDo("DEBUG", "QUICKLIST-PACKED-THRESHOLD", "0")
	}
}

func fillSets(s *server) {
	s.do("SADD set:int16 1 2 -3")
	s.do("SADD set:int32 1 100000")
	s.do("SADD set:int64 1 9223372036854775807")
	s.do("SADD set:small a b c")
	s.MustDo("SADD", "set:table", "a", long, "1", "")
	for i := range 600 {
		s.MustDo("SADD", "set:many", i)
	}
	s.do("ZADD zset:small 1 a -2.5 b +inf c -inf d")
	s.MustDo("ZADD", "zset:table", "1e300", long, "-0.1", "b", "+inf", "c", "-inf", "d", "3", "")
	s.do("GEOADD zset:geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania")
	s.do("PFADD string:hll a b c")
}

func fillHashes(s *server) {
	s.do("HSET hash:small f v 1 2")
	s.MustDo("HSET", "hash:table", "f", long, "", "", "n", "-5", "lzf", longer)
	s.MustDo("HSET", "expires:hash", "f", "v")
	s.MustDo("PEXPIREAT", "expires:hash", deadline)
	fieldTTLs := s.Version.Family == "redis" && s.Version.AtLeast(7, 4) ||
		s.Version.Family == "valkey" && s.Version.Major >= 9
	if !fieldTTLs {
		return
	}
	s.do("HSET hash:ttl:small a 1 b 2 c 3")
	s.MustDo("HPEXPIREAT", "hash:ttl:small", deadline, "FIELDS", 2, "a", "c")
	s.MustDo("HSET", "hash:ttl:table", "a", long, "b", "2", "c", longer)
	s.MustDo("HPEXPIREAT", "hash:ttl:table", deadline, "FIELDS", 1, "b")
	s.MustDo("HPEXPIREAT", "hash:ttl:table", deadline+5, "FIELDS", 1, "c")
	s.do("HSET expires:hash:ttl a 1")
	s.MustDo("HPEXPIREAT", "expires:hash:ttl", deadline, "FIELDS", 1, "a")
	s.MustDo("PEXPIREAT", "expires:hash:ttl", deadline)
}

func fillStreams(s *server) {
	s.do("XADD stream:small 1-1 f v g 2")
	s.do("XGROUP CREATE stream:empty g $ MKSTREAM")
	for i := range 250 {
		s.MustDo("XADD", "stream:groups", fmt.Sprint(i+1, "-0"), "sensor", i, "text", long[:i%40])
	}
	s.do("XDEL stream:groups 7-0 8-0")
	s.do("XGROUP CREATE stream:groups none $")
	s.do("XGROUP CREATE stream:groups some 0")
	s.do("XREADGROUP GROUP some alice COUNT 5 STREAMS stream:groups >")
	s.do("XREADGROUP GROUP some bob COUNT 3 STREAMS stream:groups >")
	s.do("XACK stream:groups some 2-0")
	s.do("XCLAIM stream:groups some bob 0 1-0")
	s.do("XREADGROUP GROUP some carol COUNT 1 STREAMS stream:groups 0")
	s.do("XADD expires:stream 5-5 f v")
	s.MustDo("PEXPIREAT", "expires:stream", deadline)
}

// fillIdle writes keys that were last used long ago, which a server with an LRU policy saves.
func fillIdle(s *server) { fillRestored(s, "IDLETIME", 0, 5, 70, 1000, 100000) }

// fillFreq writes keys that were used often, which a server with an LFU policy saves.
func fillFreq(s *server) { fillRestored(s, "FREQ", 0, 1, 100, 255) }

func fillRestored(s *server, option string, values ...int) {
	s.MustDo("SET", "template", "x")
	payload := s.MustDo("DUMP", "template").Text
	for _, n := range values {
		s.MustDo("RESTORE", fmt.Sprint(strings.ToLower(option), ":", n), 0, payload, option, n)
		s.MustDo("RESTORE", fmt.Sprint("expires:", n), deadline, payload, "ABSTTL", option, n)
	}
}

// fillCluster writes a few keys in each of some slots.
func fillCluster(s *server) {
	if s.Info("cluster")["cluster_enabled"] == "1" {
		s.do("CLUSTER ADDSLOTSRANGE 0 16383")
	}
	s.waitUntilWritable()
	for _, tag := range []string{"a", "b", "c"} {
		s.MustDo("SET", "{"+tag+"}string", longer)
		s.MustDo("HSET", "{"+tag+"}hash", "f", "v", "g", long)
		s.MustDo("SET", "expires{"+tag+"}", 1)
		s.MustDo("PEXPIREAT", "expires{"+tag+"}", deadline)
	}
}

package command

import "strconv"

// Results returns those of a command's keys, of which the indices are given as Keys has found them, that it may write:
// all of them, unless it is known that it only reads the others.
func (s *Spec) Results(keys []int) []int {
	if s == nil || len(keys) < 2 {
		return keys
	}
	switch s.Name {
	case "BITOP", "PFMERGE", "GEOSEARCHSTORE", "ZRANGESTORE", "SDIFFSTORE", "SINTERSTORE", "SUNIONSTORE", "ZDIFFSTORE",
		"ZINTERSTORE", "ZUNIONSTORE":
		return keys[:1]
	case "COPY", "SORT", "GEORADIUS", "GEORADIUSBYMEMBER":
		return keys[len(keys)-1:]
	}
	return keys
}

// ReadsUnnamed reports whether a command may read keys that are not among its keys: SORT with BY or GET, whose patterns
// only the values complete.
func (s *Spec) ReadsUnnamed(n int, arg func(i int) []byte) bool {
	if s == nil || s.Name != "SORT" {
		return false
	}
	for i := 2; i < n; i++ {
		switch a := arg(i); {
		case isWord(a, "LIMIT"):
			i += 2
		case isWord(a, "STORE"):
			i++
		case isWord(a, "BY"), isWord(a, "GET"):
			return true
		}
	}
	return false
}

// OtherDB returns the index of the argument that names the database to which a command writes a key, unless that is the
// selected one: that of MOVE, and of COPY with the option DB. It is 0 for any other command. The key is the only one of
// MOVE, and the last one of COPY.
func (s *Spec) OtherDB(n int, arg func(i int) []byte) int {
	if s == nil {
		return 0
	}
	switch s.Name {
	case "MOVE":
		if n == 3 {
			return 2
		}
	case "COPY":
		last := 0
		for i := 3; i+1 < n; i++ {
			if isWord(arg(i), "DB") {
				i++
				last = i
			}
		}
		return last
	}
	return 0
}

// ParseDB reads the number of a database.
func ParseDB(b []byte) (int32, bool) {
	n, err := strconv.ParseInt(string(b), 10, 32)
	return int32(n), err == nil && n >= 0
}

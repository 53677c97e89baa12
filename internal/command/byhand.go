package command

// keysByHand finds the keys of the commands whose specifications are of the kind keyword or unknown. They are read here
// as the servers execute them, for a keyword may also be the value of an option or the name of a key, and a keyword
// given twice counts once: db.c, sortGetKeys, migrateGetKeys, georadiusGetKeys and xreadGetKeys.
func keysByHand(name string, dst []int, n int, arg func(i int) []byte) ([]int, error) {
	switch name {
	case "SORT":
		return sortKeys(dst, n, arg), nil
	case "SORT_RO": // the unknown ones are those that BY and GET read, which only the values tell
		return append(dst, 1), nil
	case "GEORADIUS":
		return georadiusKeys(dst, n, 6, arg), nil
	case "GEORADIUSBYMEMBER":
		return georadiusKeys(dst, n, 5, arg), nil
	case "MIGRATE":
		return migrateKeys(dst, n, arg)
	case "XREAD", "XREADGROUP":
		return xreadKeys(dst, n, arg)
	}
	return dst, ErrNoSpec
}

// sortKeys: SORT key [BY pattern] [LIMIT offset count] [GET pattern …] [ASC|DESC] [ALPHA] [STORE destination], in any
// order. Of several destinations the last is written to.
func sortKeys(dst []int, n int, arg func(i int) []byte) []int {
	store := 0
	for i := 2; i < n; i++ {
		switch a := arg(i); {
		case isWord(a, "LIMIT"):
			i += 2
		case isWord(a, "BY"), isWord(a, "GET"):
			i++
		case isWord(a, "STORE") && i+1 < n:
			i++
			store = i
		}
	}
	dst = append(dst, 1)
	if store > 0 {
		dst = append(dst, store)
	}
	return dst
}

// georadiusKeys: GEORADIUS key longitude latitude radius unit and GEORADIUSBYMEMBER key member radius unit, then from
// argument `options` on WITHCOORD and its like, COUNT n, STORE key, STOREDIST key. Of several destinations the last is
// written to.
func georadiusKeys(dst []int, n, options int, arg func(i int) []byte) []int {
	store := 0
	for i := options; i+1 < n; i++ {
		switch a := arg(i); {
		case isWord(a, "COUNT"):
			i++
		case isWord(a, "STORE"), isWord(a, "STOREDIST"):
			i++
			store = i
		}
	}
	dst = append(dst, 1)
	if store > 0 {
		dst = append(dst, store)
	}
	return dst
}

// migrateKeys: MIGRATE host port key|"" db timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password]
// [KEYS key …]. The key before the options must be empty where KEYS follows.
func migrateKeys(dst []int, n int, arg func(i int) []byte) ([]int, error) {
	for i := 6; i < n; i++ {
		switch a := arg(i); {
		case isWord(a, "AUTH"):
			i++
		case isWord(a, "AUTH2"):
			i += 2
		case isWord(a, "KEYS"):
			if len(arg(3)) > 0 || i+1 == n {
				return dst, ErrBadArgs
			}
			for i++; i < n; i++ {
				dst = append(dst, i)
			}
			return dst, nil
		}
	}
	return append(dst, 3), nil
}

// xreadKeys: XREAD and XREADGROUP GROUP group consumer, then [COUNT n] [BLOCK ms] [CLAIM ms] [NOACK], then STREAMS with
// as many keys as ids. Options are skipped, for a group or a consumer may be named STREAMS.
func xreadKeys(dst []int, n int, arg func(i int) []byte) ([]int, error) {
	for i := 1; i < n; i++ {
		switch a := arg(i); {
		case isWord(a, "GROUP"):
			i += 2
		case isWord(a, "COUNT"), isWord(a, "BLOCK"), isWord(a, "CLAIM"):
			i++
		case isWord(a, "NOACK"):
		case isWord(a, "STREAMS"):
			rest := n - i - 1
			if rest == 0 || rest%2 != 0 {
				return dst, ErrBadArgs
			}
			for k := range rest / 2 {
				dst = append(dst, i+1+k)
			}
			return dst, nil
		default:
			return dst, ErrBadArgs
		}
	}
	return dst, ErrBadArgs
}

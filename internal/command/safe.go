package command

// ReplaySafe reports whether the command may be applied again, together with everything that follows it in the stream of
// its key, without a fence: after a crash the same state is reached whether or not it had been applied before. n is the
// number of arguments, name included, and arg returns one of them. It does not allocate, and nil is not safe.
//
// Safe are exactly: SET with no option but PXAT, EXAT and KEEPTTL; HSET; SADD; ZADD without options; SETBIT;
// SETRANGE; MSET; DEL; UNLINK; RESTORE with REPLACE and either ABSTTL or a time to live of 0. They either replace a key
// whatever it was, its deadline included (KEEPTTL keeps that of before, which no safe command changes without replacing
// it), or add to it what is there already when they are repeated. None takes a part away: a SREM, HDEL or ZREM that is
// repeated on a later state may empty the key and take its deadline along. None sets a deadline on a key that it did
// not write, for a repeated PEXPIREAT may meet the key that came after. None asks what was there (NX, XX, IFEQ), and
// none counts time from now: a repeated SET EX would move the deadline. Unknown options are unsafe.
//
// PFADD is not among them: repeated, it moves bytes of a sparse HyperLogLog that a SETBIT or SETRANGE behind it has
// addressed by position. safe_model_test.go shows both sides on a real server.
func (s *Spec) ReplaySafe(n int, arg func(i int) []byte) bool {
	if s == nil {
		return false
	}
	switch s.shape {
	case repeatable:
		return true
	case set:
		return safeSet(n, arg)
	case zadd: // options stand between key and score, and none is a number
		return n > 3 && !isZaddOption(arg(2))
	case restore:
		return safeRestore(n, arg)
	}
	return false
}

func safeSet(n int, arg func(i int) []byte) bool {
	for i := 3; i < n; i++ {
		switch a := arg(i); {
		case isWord(a, "KEEPTTL"):
		case (isWord(a, "PXAT") || isWord(a, "EXAT")) && i+1 < n:
			i++
		default:
			return false
		}
	}
	return n > 2
}

func isZaddOption(a []byte) bool {
	return isWord(a, "NX") || isWord(a, "XX") || isWord(a, "GT") || isWord(a, "LT") || isWord(a, "CH") || isWord(a, "INCR")
}

func safeRestore(n int, arg func(i int) []byte) bool {
	if n < 4 {
		return false
	}
	replace, fixed := false, isZero(arg(2))
	for i := 4; i < n; i++ {
		switch a := arg(i); {
		case isWord(a, "REPLACE"):
			replace = true
		case isWord(a, "ABSTTL"):
			fixed = true
		case (isWord(a, "IDLETIME") || isWord(a, "FREQ")) && i+1 < n:
			i++
		default:
			return false
		}
	}
	return replace && fixed
}

// isZero holds for the only form of zero that the servers' strict parser takes (util.c, string2ll).
func isZero(a []byte) bool { return len(a) == 1 && a[0] == '0' }

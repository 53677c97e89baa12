package command

// Keys appends to dst the index of each key among the command's n arguments, of which the name is argument 0 and arg(i)
// gives the others. Of a container it looks at the subcommand. Names that are routed by slot without being keys, such as
// the channel of SPUBLISH, count as keys. A key may be listed twice, and a command may have none.
//
// On ErrNoSpec (also of a nil Spec) and ErrBadArgs, dst is returned as it came. Source: the key specifications of
// COMMAND (protocol.md section 6) and, where they say nothing, byhand.go.
func (s *Spec) Keys(dst []int, n int, arg func(i int) []byte) ([]int, error) {
	if s != nil && len(s.subs) > 0 && n > 1 {
		s = s.Resolve(arg(1))
	}
	if s == nil {
		return dst, ErrNoSpec
	}
	if n < int(s.minArgs) {
		return dst, ErrBadArgs
	}
	keys := dst
	for _, k := range s.keys {
		var err error
		switch k.kind {
		case span:
			keys, err = k.appendSpan(keys, n)
		case counted, countedOrNone:
			keys, err = k.appendCounted(keys, n, arg)
		default:
			keys, err = keysByHand(s.Name, keys, n, arg)
		}
		if err != nil {
			return dst, err
		}
	}
	return keys, nil
}

// appendSpan appends the keys of a span. One that runs to the end may be empty (PFMERGE without sources).
func (k keySpec) appendSpan(dst []int, n int) ([]int, error) {
	first, last, step := int(k.first), int(k.first)+int(k.last), int(k.step)
	if k.last < 0 {
		last = n + int(k.last)
	}
	if last >= n || (last-first+1)%step != 0 && k.last < 0 {
		return dst, ErrBadArgs
	}
	for i := first; i <= last; i += step {
		dst = append(dst, i)
	}
	return dst, nil
}

// appendCounted appends as many keys as the argument before them says.
func (k keySpec) appendCounted(dst []int, n int, arg func(i int) []byte) ([]int, error) {
	num, first, step := int(k.first), int(k.first)+int(k.last), int(k.step)
	if num >= n {
		return dst, ErrBadArgs
	}
	count, ok := parseCount(arg(num), n)
	if !ok || count == 0 && k.kind != countedOrNone || first+count*step > n {
		return dst, ErrBadArgs
	}
	for i := range count {
		dst = append(dst, first+i*step)
	}
	return dst, nil
}

// parseCount reads a decimal number from 0 to limit. The servers' own parser also takes a sign, blanks before it and
// rubbish behind it; nothing that was ever replicated looks like that.
func parseCount(b []byte, limit int) (n int, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
		if n > limit {
			return 0, false
		}
	}
	return n, len(b) > 0
}

// isWord compares b in any letter case with a word in capitals.
func isWord(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

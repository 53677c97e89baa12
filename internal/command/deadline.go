package command

// A Deadline says where a command holds the deadline or the time to live of a key.
type Deadline struct {
	Arg      int  // index of the argument, name included
	Seconds  bool // in seconds, else in milliseconds
	Relative bool // counted from now, else Unix time
}

// HasDeadline reports whether any form of the command has an argument that Deadlines would return. It looks at no
// argument, and so is the short way past the many commands that have none.
func (s *Spec) HasDeadline() bool {
	if s == nil {
		return false
	}
	switch s.shape {
	case set, getex, msetex, restore, restoreAsking, ttlSeconds, ttlMillis, atSeconds, atMillis:
		return true
	}
	return false
}

// Deadlines appends to dst each argument of the command that is the deadline or the time to live of a key, so that a
// writer can hold keys back from expiring (design, "Expiry"): that of EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT, SETEX and
// PSETEX, the options EX, PX, EXAT and PXAT of SET, GETEX and MSETEX, and that of RESTORE and RESTORE-ASKING unless it is
// 0, which means none. n is the number of arguments, name included, and arg returns one of them. It does not allocate if
// dst has room.
//
// The deadlines of fields (HEXPIRE and its like, HSETEX, HGETEX) are left out: they are no keys', and the source itself
// deletes expired fields as it does keys. Arguments are not parsed as numbers. Of a command that a server would refuse
// anything may be returned, but always an argument that is there.
func (s *Spec) Deadlines(dst []Deadline, n int, arg func(i int) []byte) []Deadline {
	if s == nil {
		return dst
	}
	switch s.shape {
	case ttlSeconds, ttlMillis, atSeconds, atMillis:
		if n < 3 {
			return dst
		}
		seconds := s.shape == ttlSeconds || s.shape == atSeconds
		relative := s.shape == ttlSeconds || s.shape == ttlMillis
		return append(dst, Deadline{Arg: 2, Seconds: seconds, Relative: relative})
	case set:
		return optionDeadlines(dst, 3, n, arg)
	case getex:
		return optionDeadlines(dst, 2, n, arg)
	case msetex:
		if n < 2 {
			return dst
		}
		pairs, ok := parseCount(arg(1), n)
		if !ok {
			return dst
		}
		return optionDeadlines(dst, 2+2*pairs, n, arg)
	case restore, restoreAsking:
		return restoreDeadlines(dst, n, arg)
	}
	return dst
}

// optionDeadlines reads the options that stand from argument i on. The operand of an option is skipped, for it may be
// spelled like one. Source: t_string.c, parseExtendedStringArgumentsOrReply.
func optionDeadlines(dst []Deadline, i, n int, arg func(i int) []byte) []Deadline {
	for ; i+1 < n; i++ {
		d := Deadline{Arg: i + 1}
		switch a := arg(i); {
		case isWord(a, "EX"):
			d.Seconds, d.Relative = true, true
		case isWord(a, "PX"):
			d.Relative = true
		case isWord(a, "EXAT"):
			d.Seconds = true
		case isWord(a, "PXAT"):
		case isWord(a, "IFEQ"), isWord(a, "IFNE"), isWord(a, "IFDEQ"), isWord(a, "IFDNE"):
			i++
			continue
		default: // NX, XX, GET, KEEPTTL, PERSIST have no operand
			continue
		}
		dst = append(dst, d)
		i++
	}
	return dst
}

// restoreDeadlines: RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]. Operands are
// numbers, which are never spelled like an option.
func restoreDeadlines(dst []Deadline, n int, arg func(i int) []byte) []Deadline {
	if n < 4 || isZero(arg(2)) {
		return dst
	}
	d := Deadline{Arg: 2, Relative: true}
	for i := 4; i < n; i++ {
		if isWord(arg(i), "ABSTTL") {
			d.Relative = false
		}
	}
	return append(dst, d)
}

// Reach says which keys may have another deadline behind a command.
type Reach int

// What a command reaches.
const (
	ReachNone Reach = iota // none gets one that it did not have
	ReachKeys              // those that the command names
	ReachAny               // any: this cannot be told
)

// DeadlineReach says which keys may have got a deadline from the command, its own or another key's, as by RENAME.
// Deletion, and a deadline that is taken away, do not count. Those of fields neither.
func (s *Spec) DeadlineReach() Reach {
	switch {
	case s == nil, s.shape == moving:
		return ReachAny
	case s.HasDeadline():
		return ReachKeys
	case s.FirstKey() > 0, s.split.step > 0:
		return ReachNone
	case len(s.keys) == 0:
		if s.Name == "SWAPDB" {
			return ReachAny
		}
		return ReachNone // of the containers none has a subcommand that does
	}
	switch s.Name {
	case "EVAL", "EVALSHA", "FCALL", "COPY": // which may name another database
		return ReachAny
	}
	return ReachKeys
}

// Package command knows the commands of Redis and Valkey: which of their arguments are keys, which of them write, which
// may be split by key, and which cluster slot a key belongs to. Its functions are pure and may run at once; its tables
// are never changed.
//
// The table is generated from what real servers answer to COMMAND (scripts/gen-commands.sh, table.go). Commands that
// those servers do not have stand in extra.go, key positions that COMMAND cannot describe in byhand.go. What is in none
// of them, commands of modules for the most part, is unknown here: ask a server with COMMAND GETKEYS.
package command

import "errors"

var (
	// ErrNoSpec says that the command or its subcommand is unknown, so that nothing can be said of its keys.
	ErrNoSpec = errors.New("command: key positions are unknown")
	// ErrBadArgs says that the arguments do not fit the command: too few, a count that is no number or larger than what
	// follows, half a pair. A server would refuse it as well.
	ErrBadArgs = errors.New("command: malformed arguments")
)

// A Spec is what is known of one command or subcommand.
type Spec struct {
	// Name is in capitals; that of a subcommand holds its container's too, as in "XGROUP CREATE".
	Name string
	// Write is the server's `write` flag. Commands that reach a replication stream without it, because they may
	// replicate (EVAL, FCALL, PUBLISH, SPUBLISH, PFCOUNT), are not marked. A container is marked if any of its
	// subcommands is: Resolve first.
	Write bool
	// DenyOOM is the server's `denyoom` flag: the command is refused with -OOM above maxmemory. Of containers as above.
	DenyOOM bool

	id      uint16
	minArgs uint8 // name included: the server's arity without its sign
	shape   shape // see shapes
	keys    []keySpec
	split   splitting
	subs    []Spec
}

// keyKind says how a keySpec finds its keys.
type keyKind uint8

const (
	span          keyKind = iota // from argument `first` to `last`, every `step`
	counted                      // argument `first` holds their number, at least 1; they begin `last` behind it
	countedOrNone                // the same, but 0 is allowed (EVAL, FCALL)
	byHand                       // see byhand.go
)

// keySpec is a key specification of COMMAND, made compact: begin_search and find_keys in four bytes. The last argument
// of a span counts from `first` if it is not negative, else from the end of the command, -1 being the last argument.
type keySpec struct {
	kind  keyKind
	first uint8
	last  int8
	step  uint8
}

// splitting says how a command may be cut into one for each key: its groups of `step` arguments begin with a key, and
// argument `num`, unless 0, holds their number.
type splitting struct{ step, num uint8 }

// longestName is longer than any name in the table.
const longestName = 32

// byName is the index of all specs, made once and only read.
var byName = index(generated[:], extra[:])

func index(tables ...[]Spec) map[string]*Spec {
	m := make(map[string]*Spec)
	for _, t := range tables {
		for i := range t {
			t[i].shape = shapes[t[i].Name]
			t[i].id = uint16(len(m))
			m[t[i].Name] = &t[i]
		}
	}
	return m
}

// ID is the number of a command, less than Count, for tables of what is to be done with each. It is not that of a subcommand.
func (s *Spec) ID() int { return int(s.id) }

// Count is the number of commands that are known.
func Count() int { return len(byName) }

// Lookup finds a command by its name in any letter case; nil if it is unknown. It does not allocate.
func Lookup(name []byte) *Spec {
	var buf [longestName]byte
	if len(name) > len(buf) {
		return nil
	}
	for i, c := range name {
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		buf[i] = c
	}
	return byName[string(buf[:len(name)])]
}

// Resolve returns the spec of a subcommand, named in any letter case, when the command is a container such as XGROUP or
// FUNCTION, nil if it has none of that name; any other command is returned itself. It does not allocate.
func (s *Spec) Resolve(sub []byte) *Spec {
	if s == nil || len(s.subs) == 0 {
		return s
	}
	for i := range s.subs {
		if isWord(sub, s.subs[i].Name[len(s.Name)+1:]) {
			return &s.subs[i]
		}
	}
	return nil
}

// FirstKey returns the index of the command's only key when that is always the same, 0 for any other command. It is the
// short way for most commands of a stream; the caller checks that there are as many arguments.
func (s *Spec) FirstKey() int {
	if s == nil || len(s.keys) != 1 || s.keys[0].kind != span || s.keys[0].last != 0 {
		return 0
	}
	return int(s.keys[0].first)
}

// Keyless reports whether the command changes data, functions, scripts or subscribers' messages and has no key to route
// it by: FLUSHALL, FLUSHDB, SWAPDB, TRIMSLOTS, CLUSTER FLUSHSLOT, FUNCTION LOAD and its like by the server's `write`
// flag; PUBLISH, SCRIPT LOAD and SCRIPT FLUSH, which lack the flag, by name. A container is keyless if any of its
// subcommands is. CLUSTER SETSLOT and SYNCSLOTS, which Valkey replicates (protocol.md section 6), are not: they are
// about the nodes of the source's cluster.
func (s *Spec) Keyless() bool {
	switch {
	case s == nil || len(s.keys) > 0:
		return false
	case len(s.subs) > 0:
		for i := range s.subs {
			if s.subs[i].Keyless() {
				return true
			}
		}
		return false
	case s.Write:
		return true
	}
	switch s.Name {
	case "PUBLISH", "SCRIPT LOAD", "SCRIPT FLUSH":
		return true
	}
	return false
}

// Split says how the command may be cut into several, one for each slot or key, which together do the same. A step of 0
// means that it must stay whole. Otherwise each key and the step-1 arguments behind it make a group (1 for DEL, UNLINK,
// TOUCH, EXISTS and MGET, 2 for MSET and MSETEX), and if num is not 0, argument num holds the number of groups, to be
// rewritten. Arguments behind the last group, the options of MSETEX, belong to every part; its NX and XX then hold for
// each part instead of for the whole. Source: the servers' tip `request_policy:multi_shard` (protocol.md section 6).
func (s *Spec) Split() (step, num int) {
	if s == nil {
		return 0, 0
	}
	return int(s.split.step), int(s.split.num)
}

package redistest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// fact is what one side says about a key. Values and metadata are trees of string, []string, []any and
// map[string]any.
type fact struct {
	kind     string // of TYPE; "none" if there is no such key
	deadline int64  // Unix milliseconds; -1 is none
	digest   string
	value    any
	meta     any
}

// reading is what to read beside type and deadline.
type reading struct {
	digest       bool
	values       bool
	fieldTTLs    bool
	noReadCounts bool
}

// read returns a fact for each key.
func (s *session) read(ctx context.Context, db int, keys []string, want reading) ([]fact, error) {
	facts := make([]fact, len(keys))
	ttl := "PTTL"
	if s.deadlines {
		ttl = "PEXPIRETIME"
	}
	err := s.ask(ctx, db, keys,
		func(i int) [][]string { return [][]string{{"TYPE", keys[i]}, {ttl, keys[i]}} },
		func(i int, r []resp.Reply) error {
			facts[i].kind, facts[i].deadline = r[0].Text, r[1].Int
			if !s.deadlines && r[1].Int >= 0 {
				facts[i].deadline += time.Now().UnixMilli()
			}
			return nil
		})
	if err == nil && want.digest {
		err = s.readDigests(ctx, db, keys, facts)
	}
	if err == nil {
		err = s.readValues(ctx, db, keys, facts, want)
	}
	if err == nil && want.fieldTTLs {
		err = s.readFieldTTLs(ctx, db, keys, facts)
	}
	return facts, err
}

// readDigests has each node digest its keys at once.
func (s *session) readDigests(ctx context.Context, db int, keys []string, facts []fact) error {
	for addr, part := range s.split(keys) {
		p, err := s.node(ctx, addr, db)
		if err != nil {
			return err
		}
		command := []string{"DEBUG", "DIGEST-VALUE"}
		for _, i := range part {
			command = append(command, keys[i])
		}
		r, err := p.do(ctx, command...)
		if err != nil {
			return err
		}
		if len(r.Array) != len(part) {
			return fmt.Errorf("redistest: %s: DEBUG DIGEST-VALUE gave %d digests for %d keys", addr, len(r.Array), len(part))
		}
		for n, i := range part {
			facts[i].digest = r.Array[n].Text
		}
	}
	return nil
}

// readValues reads values in full if asked to, and streams in any case: no digest covers their consumer groups.
func (s *session) readValues(ctx context.Context, db int, keys []string, facts []fact, want reading) error {
	return s.ask(ctx, db, keys,
		func(i int) [][]string {
			key := keys[i]
			switch kind := facts[i].kind; {
			case kind == "stream":
				return [][]string{{"XINFO", "STREAM", key, "FULL", "COUNT", "0"}}
			case kind == "none" || !want.values:
				return nil
			default:
				return [][]string{readCommand(kind, key)}
			}
		},
		func(i int, r []resp.Reply) error {
			switch {
			case len(r) == 0:
			case r[0].Kind == resp.KindError:
				facts[i].kind = "none"
			case facts[i].kind == "stream":
				facts[i].meta = streamTree(r[0], want.noReadCounts)
			default:
				facts[i].value = valueTree(facts[i].kind, r[0])
			}
			return nil
		})
}

// readCommand reads a value in a form that does not depend on the release. A type of a module has none but DUMP.
func readCommand(kind, key string) []string {
	switch kind {
	case "string":
		return []string{"GET", key}
	case "list":
		return []string{"LRANGE", key, "0", "-1"}
	case "set":
		return []string{"SMEMBERS", key}
	case "hash":
		return []string{"HGETALL", key}
	case "zset":
		return []string{"ZRANGE", key, "0", "-1", "WITHSCORES"}
	case "vectorset": // of which the links are made by chance
		return []string{"VRANDMEMBER", key, "1000000"}
	}
	return []string{"DUMP", key}
}

// valueTree brings the reply of readCommand into an order and a form that do not depend on encodings.
func valueTree(kind string, r resp.Reply) any {
	switch kind {
	case "list":
		return textsOf(r.Array)
	case "set", "vectorset":
		members := textsOf(r.Array)
		slices.Sort(members)
		return members
	case "hash":
		return sortedFields(r.Array)
	case "zset":
		members := textsOf(r.Array)
		for i := 1; i < len(members); i += 2 {
			members[i] = canonicalScore(members[i])
		}
		return members
	}
	return tree(r)
}

// sortedFields returns the names and values of HGETALL in turn, by name.
func sortedFields(flat []resp.Reply) []string {
	fields := slices.Collect(slices.Chunk(flat, 2))
	slices.SortFunc(fields, func(a, b []resp.Reply) int { return strings.Compare(a[0].Text, b[0].Text) })
	out := make([]string, 0, len(flat))
	for _, field := range fields {
		out = append(out, textsOf(field)...)
	}
	return out
}

// canonicalScore prints a score the same way whatever release printed it.
func canonicalScore(text string) string {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return text
	}
	return strconv.FormatFloat(f, 'g', -1, 64)
}

// tree turns a reply into strings and lists.
func tree(r resp.Reply) any {
	switch {
	case r.Null:
		return "(nil)"
	case r.Kind == resp.KindArray:
		out := make([]any, len(r.Array))
		for i, element := range r.Array {
			out[i] = tree(element)
		}
		return out
	case r.Kind == resp.KindInteger:
		return strconv.FormatInt(r.Int, 10)
	}
	return r.Text
}

// streamTree turns XINFO STREAM FULL into a tree without what depends on memory layout or on reads: the radix tree's
// size, and when a consumer was last seen or active. It leaves out what groups have counted if told so.
func streamTree(r resp.Reply, noReadCounts bool) any {
	out := make(map[string]any)
	for i := 0; i+1 < len(r.Array); i += 2 {
		switch name, value := r.Array[i].Text, r.Array[i+1]; name {
		case "radix-tree-keys", "radix-tree-nodes", "seen-time", "active-time":
		case "groups", "consumers":
			members := make([]any, len(value.Array))
			for n, member := range value.Array {
				members[n] = streamTree(member, noReadCounts)
			}
			out[name] = members
		case "entries-read", "lag":
			if !noReadCounts {
				out[name] = tree(value)
			}
		default:
			out[name] = tree(value)
		}
	}
	return out
}

// treeDifference says where two trees differ, "" if nowhere. A name that only one map has is no difference: newer
// releases tell more.
func treeDifference(path string, a, b any) string {
	switch a := a.(type) {
	case []string:
		b, ok := b.([]string)
		if !ok {
			break
		}
		for i := range min(len(a), len(b)) {
			if a[i] != b[i] {
				return fmt.Sprintf("%s[%d]: source %s, target %s", path, i, quote(a[i]), quote(b[i]))
			}
		}
		return differentLength(path, len(a), len(b))
	case []any:
		b, ok := b.([]any)
		if !ok {
			break
		}
		for i := range min(len(a), len(b)) {
			if d := treeDifference(path+"["+strconv.Itoa(i)+"]", a[i], b[i]); d != "" {
				return d
			}
		}
		return differentLength(path, len(a), len(b))
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			break
		}
		var found []string
		for name := range a {
			if other, ok := b[name]; ok {
				if d := treeDifference(strings.TrimPrefix(path+"."+name, "."), a[name], other); d != "" {
					found = append(found, d)
				}
			}
		}
		return strings.Join(slices.Sorted(slices.Values(found)), "; ")
	case string:
		if text, ok := b.(string); ok {
			if a == text {
				return ""
			}
			return fmt.Sprintf("%ssource %s, target %s", prefix(path), quote(a), quote(text))
		}
	case nil:
		if b == nil {
			return ""
		}
	}
	return prefix(path) + "source and target differ in form"
}

func differentLength(path string, a, b int) string {
	if a == b {
		return ""
	}
	return fmt.Sprintf("%ssource has %d elements, target %d", prefix(path), a, b)
}

func prefix(path string) string {
	if path == "" {
		return ""
	}
	return path + ": "
}

// readFieldTTLs adds the deadlines of hash fields to the metadata of hashes.
func (s *session) readFieldTTLs(ctx context.Context, db int, keys []string, facts []fact) error {
	fields := make([][]string, len(keys))
	err := s.ask(ctx, db, keys,
		func(i int) [][]string {
			if facts[i].kind != "hash" {
				return nil
			}
			return [][]string{{"HKEYS", keys[i]}}
		},
		func(i int, r []resp.Reply) error {
			if len(r) > 0 {
				fields[i] = slices.Sorted(slices.Values(textsOf(r[0].Array)))
			}
			return nil
		})
	if err != nil {
		return err
	}
	return s.ask(ctx, db, keys,
		func(i int) [][]string {
			if len(fields[i]) == 0 {
				return nil
			}
			command := []string{"HPEXPIRETIME", keys[i], "FIELDS", strconv.Itoa(len(fields[i]))}
			return [][]string{append(command, fields[i]...)}
		},
		func(i int, r []resp.Reply) error {
			if len(r) == 0 {
				return nil
			}
			deadlines := make([]string, 0, len(fields[i]))
			for n, element := range r[0].Array {
				if element.Int >= 0 {
					deadlines = append(deadlines, fmt.Sprintf("field %s expires at %d ms", fields[i][n], element.Int))
				}
			}
			facts[i].meta = deadlines
			return nil
		})
}

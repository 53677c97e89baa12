package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// command is what the table holds of one command, and its arity.
type command struct {
	name           string
	arity          int64
	write, denyOOM bool
	keys           []string // as they are written in the table
	step, num      int64    // of a command that may be split
	subs           []command
}

func parseAll(replies []resp.Reply) ([]command, error) {
	var all []command
	for _, r := range replies {
		c, err := parse(r.Array)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// parse reads one element of COMMAND's reply: name, arity, flags, first, last, step, ACL categories, tips, key
// specifications, subcommands.
func parse(f []resp.Reply) (command, error) {
	if len(f) < 10 {
		return command{}, fmt.Errorf("a command of %d elements; 10 are told by servers from 7.0 on", len(f))
	}
	has := func(i int, word string) bool {
		return slices.ContainsFunc(f[i].Array, func(r resp.Reply) bool { return r.Text == word })
	}
	c := command{
		name:    strings.ToUpper(strings.ReplaceAll(f[0].Text, "|", " ")),
		arity:   f[1].Int,
		write:   has(2, "write"),
		denyOOM: has(2, "denyoom"),
	}
	for _, s := range f[8].Array {
		k, err := parseKeySpec(s, has(2, "no_mandatory_keys"))
		if err != nil {
			return c, fmt.Errorf("%s: %w", c.name, err)
		}
		c.keys = append(c.keys, k.text)
		if has(7, "request_policy:multi_shard") && len(f[8].Array) == 1 {
			c.step, c.num = k.step, k.num
		}
	}
	if slices.Contains(c.keys, byHand) {
		c.keys = []string{byHand}
	}
	var err error
	c.subs, err = parseAll(f[9].Array)
	return c, err
}

const byHand = "{kind: byHand}"

type keySpec struct {
	text      string
	step, num int64
}

// parseKeySpec writes one key specification in the table's form. What that cannot hold is left to byhand.go.
func parseKeySpec(r resp.Reply, noneAllowed bool) (keySpec, error) {
	begin, find := field(r, "begin_search"), field(r, "find_keys")
	if field(begin, "type").Text != "index" {
		return keySpec{text: byHand}, nil
	}
	first, spec := field(field(begin, "spec"), "index").Int, field(find, "spec")
	step := field(spec, "keystep").Int
	if first < 1 || step < 1 {
		return keySpec{}, fmt.Errorf("keys from argument %d in steps of %d", first, step)
	}
	switch kind := field(find, "type").Text; kind {
	case "range":
		if field(spec, "limit").Int > 1 {
			return keySpec{text: byHand}, nil
		}
		last := field(spec, "lastkey").Int
		return keySpec{text: fmt.Sprintf("{span, %d, %d, %d}", first, last, step), step: step}, nil
	case "keynum":
		kind := "counted"
		if noneAllowed {
			kind = "countedOrNone"
		}
		num := field(spec, "keynumidx").Int
		ahead := field(spec, "firstkey").Int - num
		return keySpec{
			text: fmt.Sprintf("{%s, %d, %d, %d}", kind, first+num, ahead, step),
			step: step, num: first + num,
		}, nil
	case "unknown":
		return keySpec{text: byHand}, nil
	default:
		return keySpec{}, fmt.Errorf("key specification of kind %q", kind)
	}
}

// field finds a value by its name in a map, which RESP2 sends as an array of names and values.
func field(r resp.Reply, name string) resp.Reply {
	for i := 0; i+1 < len(r.Array); i += 2 {
		if r.Array[i].Text == name {
			return r.Array[i+1]
		}
	}
	return resp.Reply{}
}

// facts says in one line all that merge compares.
func (c *command) facts() string {
	return fmt.Sprintf("arity %d write %t denyoom %t keys %v split %d", c.arity, c.write, c.denyOOM, c.keys, c.step)
}

func (c *command) minArgs() int64 { return max(c.arity, -c.arity) }

// widen takes the wider of what two servers say of one command.
func (c *command) widen(o command) error {
	if o.minArgs() < c.minArgs() {
		c.arity = o.arity
	}
	c.write = c.write || o.write
	c.denyOOM = c.denyOOM || o.denyOOM
	if c.step == 0 {
		c.step, c.num = o.step, o.num
	}
	switch {
	case includes(c.keys, o.keys):
	case includes(o.keys, c.keys):
		c.keys = o.keys
	default:
		return fmt.Errorf("%s: keys %v and %v: decide by hand", c.name, c.keys, o.keys)
	}
	return nil
}

func includes(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// any tells whether a flag is set on the command or, if it is a container, on any of its subcommands.
func (c *command) any(flag func(*command) bool) bool {
	return flag(c) || slices.ContainsFunc(c.subs, func(sub command) bool { return flag(&sub) })
}

func (c *command) render(w io.Writer) {
	fmt.Fprintf(w, "{Name: %q", c.name)
	if c.any(func(c *command) bool { return c.write }) {
		fmt.Fprint(w, ", Write: true")
	}
	if c.any(func(c *command) bool { return c.denyOOM }) {
		fmt.Fprint(w, ", DenyOOM: true")
	}
	fmt.Fprintf(w, ", minArgs: %d", c.minArgs())
	if len(c.keys) > 0 {
		fmt.Fprintf(w, ", keys: []keySpec{%s}", strings.Join(c.keys, ", "))
	}
	if c.step > 0 {
		fmt.Fprintf(w, ", split: splitting{%d, %d}", c.step, c.num)
	}
	if len(c.subs) > 0 {
		fmt.Fprint(w, ", subs: []Spec{\n")
		for i := range c.subs {
			c.subs[i].render(w)
		}
		fmt.Fprint(w, "}")
	}
	fmt.Fprint(w, "},\n")
}

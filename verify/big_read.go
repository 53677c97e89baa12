package verify

import (
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// same compares what both ends answer to one question.
func (b *big) same(args ...string) (equal bool, reply []byte, err error) {
	s, t, err := b.both(args...)
	if err != nil {
		return false, nil, err
	}
	if equal = string(s) == string(t); !equal {
		b.differ = Value
	}
	return equal, s, nil
}

func (b *big) text() error {
	for from := 0; ; from += pieceBytes {
		equal, raw, err := b.same("GETRANGE", b.it.key.Name, strconv.Itoa(from), strconv.Itoa(from+pieceBytes-1))
		if text, _ := bulk2(raw, err); err != nil || !equal || len(text) < pieceBytes {
			return err
		}
	}
}

// bulk2 is bulk of a reply that there may not be.
func bulk2(raw []byte, err error) ([]byte, bool) {
	if err != nil {
		return nil, false
	}
	return bulk(raw)
}

func (b *big) list() error {
	for from := 0; ; from += b.page {
		equal, raw, err := b.same("LRANGE", b.it.key.Name, strconv.Itoa(from), strconv.Itoa(from+b.page-1))
		if err != nil || !equal {
			return err
		}
		if n, _, err := resp.ArrayHeader(raw); err != nil || n < b.page {
			return err
		}
	}
}

// stream compares the entries, what the stream knows beside them, and its groups.
func (b *big) stream() error {
	for from := "-"; ; {
		equal, raw, err := b.same("XRANGE", b.it.key.Name, from, "+", "COUNT", strconv.Itoa(b.page))
		if err != nil || !equal {
			return err
		}
		entries, err := arrayOf(raw)
		if err != nil {
			return err
		}
		n := entries.left
		var last []byte
		for entries.left > 0 {
			last = entries.next()
		}
		if n < b.page {
			break
		}
		entry, err := arrayOf(last)
		if err != nil {
			return err
		}
		id, _ := bulk(entry.next())
		from = after(string(id))
	}
	if err := b.streamInfo(); err != nil || b.differ != "" {
		return err
	}
	target, err := b.groupsOf(b.dst)
	if err != nil {
		return err
	}
	now, err := b.groupsOf(b.src)
	if b.changed = now != b.groups; target != b.groups {
		b.differ = Group
	}
	return err
}

// after is the smallest id behind an id; servers before 6.2 have no other way to say so.
func after(id string) string {
	ms, seq, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(seq, 10, 64)
	if err != nil {
		return id
	}
	return ms + "-" + strconv.FormatUint(n+1, 10)
}

// streamInfo compares what both ends tell of a stream. Older releases tell less.
func (b *big) streamInfo() error {
	s, t, err := b.tables("XINFO", "STREAM", b.it.key.Name)
	if err != nil {
		return err
	}
	for _, name := range []string{"last-generated-id", "max-deleted-entry-id", "entries-added"} {
		x, there := s[0][name]
		if y, also := t[0][name]; there && also && x != y {
			b.differ = Value
		}
	}
	return nil
}

// tables asks both ends for lists of names and values: one, or one for each line of the reply.
func (b *big) tables(args ...string) (s, t []map[string]string, err error) {
	rawS, rawT, err := b.both(args...)
	if err != nil {
		return nil, nil, err
	}
	if s, err = tablesOf(rawS); err == nil {
		t, err = tablesOf(rawT)
	}
	return s, t, err
}

func tablesOf(raw []byte) ([]map[string]string, error) {
	r, _, err := resp.Decode(raw)
	if err != nil {
		return nil, err
	}
	lines := []resp.Reply{r}
	if len(r.Array) == 0 || len(r.Array[0].Array) > 0 {
		lines = r.Array
	}
	tables := make([]map[string]string, len(lines))
	for i, line := range lines {
		tables[i] = map[string]string{}
		for k := 0; k+1 < len(line.Array); k += 2 {
			text := line.Array[k+1].Text
			if line.Array[k+1].Kind == resp.KindInteger {
				text = strconv.FormatInt(line.Array[k+1].Int, 10)
			}
			tables[i][line.Array[k].Text] = text
		}
	}
	return tables, nil
}

// groupsOf digests consumer groups and what they have pending.
func (b *big) groupsOf(c *conn) (all sum, err error) {
	c.add("XINFO", "GROUPS", b.it.key.Name)
	if err := c.flush(); err != nil {
		return all, err
	}
	raw, err := c.next()
	if err != nil {
		return all, err
	}
	if e := refused(raw); e != nil {
		return all, op(c, "XINFO", e)
	}
	groups, err := tablesOf(raw)
	if err != nil {
		return all, err
	}
	for _, group := range groups {
		all.add(b.hasher.of([]byte(group["name"]), []byte(group["last-delivered-id"])))
		if err := b.pendingOf(c, group["name"], &all); err != nil {
			return all, err
		}
	}
	return all, nil
}

// pendingOf adds which entries of a group which consumer has.
func (b *big) pendingOf(c *conn, group string, all *sum) error {
	for from := "-"; ; {
		c.add("XPENDING", b.it.key.Name, group, from, "+", strconv.Itoa(pieceMost))
		r, err := c.ask()
		if err != nil {
			return err
		}
		for _, entry := range r.Array {
			if len(entry.Array) > 1 {
				all.add(b.hasher.of([]byte(group), []byte(entry.Array[0].Text), []byte(entry.Array[1].Text)))
			}
		}
		if len(r.Array) < pieceMost {
			return nil
		}
		from = after(r.Array[pieceMost-1].Array[0].Text)
	}
}

package verify

import (
	"strconv"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// scan walks a collection of the source and has look compare each page of elements with the target's. perElement is how
// many texts there are of each.
func (b *big) scan(command string, perElement int, look func(texts [][]byte) error) error {
	var buf []byte
	var texts [][]byte
	for cursor := "0"; ; {
		b.src.add(command, b.it.key.Name, cursor, "COUNT", strconv.Itoa(b.page))
		if err := b.src.flush(); err != nil {
			return err
		}
		raw, err := b.src.next()
		if err != nil {
			return err
		}
		if e := refused(raw); e != nil {
			return op(b.src, command, e)
		}
		buf = append(buf[:0], raw...) // the source is asked more about the page
		reply, err := arrayOf(buf)
		if err != nil {
			return err
		}
		next, _ := bulk(reply.next())
		cursor = string(next)
		page, err := arrayOf(reply.next())
		if err != nil {
			return err
		}
		texts = texts[:0]
		for page.left > 0 {
			text, _ := bulk(page.next())
			texts = append(texts, text)
		}
		for most := b.page * perElement; len(texts) > 0; {
			some := texts[:min(most, len(texts))] // a packed collection is returned as one page
			if err := look(some); err != nil {
				return err
			}
			texts = texts[len(some):]
		}
		if cursor == "0" {
			return nil
		}
	}
}

// names returns every other text.
func names(texts [][]byte) [][]byte {
	out := make([][]byte, 0, len(texts)/2)
	for i := 0; i < len(texts); i += 2 {
		out = append(out, texts[i])
	}
	return out
}

// ask asks one end about elements, in one question with one answer for each.
func (b *big) ask(c *conn, elements [][]byte, words ...string) (array, error) {
	c.addKeys(elements, words...)
	if err := c.flush(); err != nil {
		return array{}, err
	}
	raw, err := c.next()
	if err != nil {
		return array{}, err
	}
	if e := refused(raw); e != nil {
		return array{}, op(c, words[0], e)
	}
	return arrayOf(raw)
}

func (b *big) hash() error {
	return b.scan("HSCAN", 2, func(texts [][]byte) error {
		fields := names(texts)
		values, err := b.ask(b.dst, fields, "HMGET", b.it.key.Name)
		if err != nil {
			return err
		}
		var wrong [][]byte
		for i, field := range fields {
			if value, there := bulk(values.next()); !there || string(value) != string(texts[2*i+1]) {
				wrong = append(wrong, field)
			}
		}
		for _, field := range wrong {
			b.suspect(field, Value)
		}
		return b.deadlines(fields)
	})
}

// fields compares some fields of a hash.
func (b *big) fields(list []string) error {
	fields := bytesOf(list)
	b.src.addKeys(fields, "HMGET", b.it.key.Name)
	b.dst.addKeys(fields, "HMGET", b.it.key.Name)
	s, t, err := b.replies("HMGET")
	if err != nil {
		return err
	}
	for _, field := range fields {
		if string(s.next()) != string(t.next()) {
			b.suspect(field, Value)
		}
	}
	return b.deadlines(fields)
}

// replies sends what was added on both ends, one question each.
func (b *big) replies(name string) (s, t array, err error) {
	if err := b.src.flush(); err != nil {
		return s, t, err
	}
	if err := b.dst.flush(); err != nil {
		return s, t, err
	}
	read := func(c *conn) (array, error) {
		raw, err := c.next()
		if err != nil {
			return array{}, err
		}
		if e := refused(raw); e != nil {
			return array{}, op(c, name, e)
		}
		return arrayOf(raw)
	}
	if s, err = read(b.src); err == nil {
		t, err = read(b.dst)
	}
	return s, t, err
}

// deadlines compares deadlines of fields, where both ends can have them.
func (b *big) deadlines(fields [][]byte) error {
	if !b.j.v.source.release().FieldTTLs() || !b.rules.fieldTTLs || len(fields) == 0 {
		return nil
	}
	words := []string{"HPEXPIRETIME", b.it.key.Name, "FIELDS", strconv.Itoa(len(fields))}
	b.src.addKeys(fields, words...)
	b.dst.addKeys(fields, words...)
	s, t, err := b.replies(words[0])
	if err != nil {
		return err
	}
	for _, field := range fields {
		x, y := integer(s.next()), integer(t.next())
		same := x == y || x > 0 && y > 0 && b.rules.sameDeadline(x, y)
		if x != -2 && y != -2 && (x <= 0 || x > b.cut) && !same {
			b.suspect(field, FieldTTL)
		}
	}
	return nil
}

func bytesOf(list []string) [][]byte {
	out := make([][]byte, len(list))
	for i, text := range list {
		out[i] = []byte(text)
	}
	return out
}

func (b *big) set() error {
	return b.scan("SSCAN", 1, func(members [][]byte) error {
		return b.each(b.dst, members, "SMISMEMBER", "SISMEMBER", func(member, raw []byte) {
			if integer(raw) != 1 {
				b.suspect(member, Value)
			}
		})
	})
}

// members compares some members of a set.
func (b *big) members(list []string) error { return b.pairs(list, "SMISMEMBER", "SISMEMBER") }

// scores compares some members of a sorted set.
func (b *big) scores(list []string) error { return b.pairs(list, "ZMSCORE", "ZSCORE") }

// pairs compares what both ends answer about some elements.
func (b *big) pairs(list []string, many, one string) error {
	told := make([]string, 0, len(list))
	err := b.each(b.src, bytesOf(list), many, one, func(_, raw []byte) { told = append(told, canonical(raw)) })
	if err != nil {
		return err
	}
	i := 0
	return b.each(b.dst, bytesOf(list), many, one, func(element, raw []byte) {
		if canonical(raw) != told[i] {
			b.suspect(element, Value)
		}
		i++
	})
}

// canonical is an answer in a form that does not depend on how a release prints numbers.
func canonical(raw []byte) string {
	text, there := bulk(raw)
	if !there {
		return string(raw)
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return string(text)
	}
	return strconv.FormatFloat(f+0, 'g', -1, 64)
}

func (b *big) zset() error {
	return b.scan("ZSCAN", 2, func(texts [][]byte) error {
		i := 1
		return b.each(b.dst, names(texts), "ZMSCORE", "ZSCORE", func(member, raw []byte) {
			if text, _ := bulk(raw); text == nil || canonical(raw) != canonical(resp.AppendBulk(nil, texts[i])) {
				b.suspect(member, Value)
			}
			i += 2
		})
	})
}

// each asks about elements: by one command for all, or one by one before Redis 6.2.
func (b *big) each(c *conn, elements [][]byte, many, one string, tell func(element, raw []byte)) error {
	if len(elements) == 0 {
		return nil
	}
	if c.whole() || c.node.AtLeast(6, 2) {
		answers, err := b.ask(c, elements, many, b.it.key.Name)
		for _, element := range elements {
			if err == nil {
				tell(element, answers.next())
			}
		}
		return err
	}
	for _, element := range elements {
		c.addKey(one, []byte(b.it.key.Name), string(element))
	}
	if err := c.flush(); err != nil {
		return err
	}
	for _, element := range elements {
		raw, err := c.next()
		if err != nil {
			return err
		}
		if e := refused(raw); e != nil {
			return op(c, one, e)
		}
		tell(element, raw)
	}
	return nil
}

package writer

import (
	"io"
	"sort"
	"strconv"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// draft gathers the commands that take the place of one, in parts: its arguments, and what is written anew.
type draft struct {
	text     []byte
	parts    []stretch
	bulks    []int // where the parts of each argument end
	commands []int // where the arguments of each command begin, in bulks
}

// stretch is a part of an argument of the old command, or of text.
type stretch struct {
	arg      int // -1: of text
	from, to int64
}

const toEnd = -1 // of an argument, whatever its size is

func (m *draft) reset() {
	m.text, m.parts, m.bulks, m.commands = m.text[:0], m.parts[:0], m.bulks[:0], m.commands[:0]
}

// command begins another command.
func (m *draft) command(name string) {
	m.commands = append(m.commands, len(m.bulks))
	m.word(name)
}

// word appends an argument.
func (m *draft) word(s string) {
	m.text = append(m.text, s...)
	m.close(len(m.text) - len(s))
}

// number appends an argument.
func (m *draft) number(n int64) {
	from := len(m.text)
	m.text = strconv.AppendInt(m.text, n, 10)
	m.close(from)
}

// close makes an argument of what text holds from there on.
func (m *draft) close(from int) {
	m.parts = append(m.parts, stretch{-1, int64(from), int64(len(m.text))})
	m.bulks = append(m.bulks, len(m.parts))
}

// args appends arguments of the old command, from one up to but without another.
func (m *draft) args(from, to int) {
	for i := from; i < to; i++ {
		m.parts = append(m.parts, stretch{i, 0, toEnd})
		m.bulks = append(m.bulks, len(m.parts))
	}
}

// ending appends the first n bytes of an argument of the old command, with another end.
func (m *draft) ending(i int, n int64, end []byte) {
	m.parts = append(m.parts, stretch{i, 0, n})
	m.text = append(m.text, end...)
	m.close(len(m.text) - len(end))
}

// keptInMemory is the size up to which a command made of one that is read from the spool is kept in its batch.
const keptInMemory = 64 << 10

// place adds the commands that were made to those that take the place of the entry.
func (r *rewriter) place() error {
	m := &r.made
	for k, first := range m.commands {
		last := len(m.bulks)
		if k+1 < len(m.commands) {
			last = m.commands[k+1]
		}
		size := int64(0)
		for i := first; i < last; i++ {
			size += r.bulkSize(i)
		}
		if r.big == nil || size <= keptInMemory {
			r.list = append(r.list, madeCommand{Command: r.inBatch(first, last)})
		} else {
			r.list = append(r.list, r.inSpool(first, last))
		}
		if r.err != nil {
			return &spoolError{r.err}
		}
	}
	return nil
}

// stretches are the parts of an argument that was made.
func (r *rewriter) stretches(i int) []stretch {
	from := 0
	if i > 0 {
		from = r.made.bulks[i-1]
	}
	return r.made.parts[from:r.made.bulks[i]]
}

func (r *rewriter) length(s stretch) int64 {
	if s.to == toEnd {
		return r.size(s.arg) - s.from
	}
	return s.to - s.from
}

func (r *rewriter) bulkSize(i int) (n int64) {
	for _, s := range r.stretches(i) {
		n += r.length(s)
	}
	return n
}

// inBatch writes a command behind what the batch's buffer holds.
func (r *rewriter) inBatch(first, last int) haul.Command {
	b := r.batch
	r.open()
	c := haul.Command{Spec: r.spec(first), DB: r.cmd.DB, Arg: uint32(len(b.Args)), NArg: uint32(last - first)}
	c.Raw.Off = uint32(len(b.Buf))
	b.Buf = resp.AppendArray(b.Buf, last-first)
	for i := first; i < last; i++ {
		size := r.bulkSize(i)
		b.Buf = resp.AppendBulkHeader(b.Buf, int(size))
		b.Args = append(b.Args, haul.Span{Off: uint32(len(b.Buf)), Len: uint32(size)})
		for _, s := range r.stretches(i) {
			if s.arg < 0 {
				b.Buf = append(b.Buf, r.made.text[s.from:s.to]...)
			} else {
				b.Buf = append(b.Buf, r.get(s.arg)[s.from:s.from+r.length(s)]...)
			}
		}
		b.Buf = append(b.Buf, "\r\n"...)
	}
	c.Raw.Len = uint32(len(b.Buf)) - c.Raw.Off
	return c
}

// open moves what the batch's commands are made of to where there is room for more.
func (r *rewriter) open() {
	if r.opened {
		return
	}
	r.opened, r.old = true, r.batch.Buf
	end := uint32(0)
	for i := range r.batch.Commands {
		raw := r.batch.Commands[i].Raw
		end = max(end, raw.Off+raw.Len)
	}
	r.batch.Buf = append(r.room[:0], r.old[:end]...) // behind it may be what the reader has left there
}

// close leaves the batch with a buffer that has only what is to be written: its own if that is large enough.
func (r *rewriter) close() {
	if !r.opened {
		return
	}
	b := r.batch
	r.opened, r.room, b.Buf = false, b.Buf, r.old
	if cap(r.room) > mostRoom {
		defer func() { r.room = nil }()
	}
	size := 0
	r.each(func(c *haul.Command) { size += int(c.Raw.Len) })
	if size > cap(b.Buf) {
		b.Rewrite(make([]byte, 0, size))
	}
	b.Buf = b.Buf[:0]
	r.each(func(c *haul.Command) {
		by := uint32(len(b.Buf)) - c.Raw.Off // modulo 2^32, as all of it
		b.Buf = append(b.Buf, r.room[c.Raw.Off:c.Raw.Off+c.Raw.Len]...)
		c.Raw.Off += by
		for i := c.Arg; i < c.Arg+c.NArg; i++ {
			b.Args[i].Off += by
		}
	})
}

// each calls f for each command of the batch that is in its buffer and may be written.
func (r *rewriter) each(f func(c *haul.Command)) {
	for i := range r.batch.Entries {
		e := &r.batch.Entries[i]
		if e.Kind != haul.KindCommand && e.Kind != haul.KindTransaction || e.Big != nil {
			continue
		}
		cmds := r.batch.CommandsOf(e)
		for j := range cmds {
			f(&cmds[j])
		}
	}
}

// mostRoom is how much memory is kept for the next batch.
const mostRoom = 1 << 20

// spec is that of a command that was made: its name is always written anew.
func (r *rewriter) spec(first int) *command.Spec {
	name := r.stretches(first)[0]
	return command.Lookup(r.made.text[name.from:name.to])
}

// inSpool makes a command of which large parts stay in the spool.
func (r *rewriter) inSpool(first, last int) madeCommand {
	old := r.big
	big := &haul.Big{Args: make([]haul.BigSpan, 0, last-first)}
	s := &spliced{from: old.Bytes}
	s.text(resp.AppendArray(nil, last-first))
	for i := first; i < last; i++ {
		size := r.bulkSize(i)
		s.text(resp.AppendBulkHeader(nil, int(size)))
		big.Args = append(big.Args, haul.BigSpan{Off: s.size, Len: size})
		for _, x := range r.stretches(i) {
			if x.arg < 0 {
				s.text(append([]byte(nil), r.made.text[x.from:x.to]...))
			} else {
				s.section(old.Off+old.Args[x.arg].Off+x.from, r.length(x))
			}
		}
		s.text([]byte("\r\n"))
	}
	big.Bytes, big.Len = s, s.size
	return madeCommand{haul.Command{Spec: r.spec(first), DB: r.cmd.DB}, big}
}

// spliced is a command of which some parts are in memory and the others where they were read from.
type spliced struct {
	from  io.ReaderAt
	parts []splice
	size  int64
}

// splice is one part: bytes, or n of them from an offset on.
type splice struct {
	end   int64 // in the command
	bytes []byte
	at, n int64
}

func (s *spliced) text(p []byte) {
	s.size += int64(len(p))
	s.parts = append(s.parts, splice{end: s.size, bytes: p, n: int64(len(p))})
}

func (s *spliced) section(at, n int64) {
	s.size += n
	s.parts = append(s.parts, splice{end: s.size, at: at, n: n})
}

// ReadAt implements io.ReaderAt.
func (s *spliced) ReadAt(p []byte, off int64) (done int, err error) {
	i := sort.Search(len(s.parts), func(i int) bool { return s.parts[i].end > off })
	for ; i < len(s.parts) && done < len(p); i++ {
		x := &s.parts[i]
		skip := off + int64(done) - (x.end - x.n)
		n := int(min(int64(len(p)-done), x.n-skip))
		if x.bytes != nil {
			copy(p[done:], x.bytes[skip:])
		} else if _, err := s.from.ReadAt(p[done:done+n], x.at+skip); err != nil {
			return done, err
		}
		done += n
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

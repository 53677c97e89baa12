package inventory

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/keyhaul/keyhaul/internal/feed"
	"github.com/keyhaul/keyhaul/rdb"
)

const (
	bufferBytes = 1 << 20
	keptBytes   = 4 << 20 // a value up to this is looked at, where that is needed
	nameBytes   = 1 << 10 // of a name that is listed
)

// scan walks a snapshot and adds up what it sees.
type scan struct {
	opts    Options
	decoder *rdb.Decoder
	measure rdb.Measure

	aux       []Aux
	made      time.Time
	functions []Function
	dbs       []*dbTotals
	last      *dbTotals // the database of the last key
	modules   map[string]*Totals
	biggest   heapOfKeys
	expiry    histogram
	idle      histogram
	freq      histogram
	tree      *tree
	name      []byte // decoded name of the key in hand
}

// dbTotals are those of a database, by type of value.
type dbTotals struct {
	db    int
	types [256]Totals
}

func newScan(opts Options) *scan {
	s := &scan{
		opts: opts, modules: map[string]*Totals{}, biggest: heapOfKeys{most: opts.Top}, tree: newTree(opts.Separator),
		expiry: newHistogram(expiryLimits), idle: newHistogram(idleLimits), freq: newHistogram(freqLimits),
	}
	s.made = opts.Now
	return s
}

// file feeds a reader to a window.
type file struct{ io.Reader }

// Ready implements feed.Source: nothing is handed on while the file is waited for.
func (file) Ready() bool { return true }

func (f file) Read(ctx context.Context, p []byte) (int, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	for {
		n, err := f.Reader.Read(p)
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// buffer is the keeper of a window that keeps nothing but the entry in hand.
type buffer []byte

// Roll implements feed.Keeper.
func (b *buffer) Roll(_ context.Context, tail []byte, want int) ([]byte, error) {
	if want > cap(*b) {
		bigger := make([]byte, 0, max(want, 2*cap(*b), bufferBytes))
		*b = append(bigger, tail...)
		return *b, nil
	}
	n := copy((*b)[:cap(*b)], tail)
	return (*b)[:n], nil
}

// Idle implements feed.Keeper.
func (b *buffer) Idle(ctx context.Context, tail []byte) ([]byte, error) {
	return b.Roll(ctx, tail, len(tail))
}

func (s *scan) run(ctx context.Context, r io.Reader) error {
	kept := bufferBytes / 2
	if s.opts.For != nil {
		kept = keptBytes
	}
	s.decoder = rdb.NewDecoder(func(sum func([]byte)) *feed.Window {
		return feed.New(ctx, file{r}, new(buffer), 0, kept, sum)
	})
	s.decoder.Measure, s.decoder.Aux = &s.measure, s.seeAux
	if err := s.decoder.Header(); err != nil {
		return err
	}
	for {
		var r rdb.Record
		if err := s.decoder.Next(&r); err != nil {
			return err
		}
		var err error
		switch r.Kind {
		case rdb.KindEnd:
			return s.decoder.Last()
		case rdb.KindFunction:
			err = s.function(&r)
		case rdb.KindKey:
			err = s.key(&r)
		}
		if err != nil {
			return &rdb.PositionError{Offset: s.decoder.Window().Offset(), DB: r.DB, Err: err}
		}
	}
}

// seeAux is told what the server says of itself. Scripts of old servers are no matter of a report.
func (s *scan) seeAux(name, value []byte) {
	if string(name) == "ctime" {
		if sec, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			s.made = time.Unix(sec, 0).UTC()
		}
	}
	const most = 64 // some servers write one for each slot
	if len(s.aux) < most {
		s.aux = append(s.aux, Aux{Name: shown(name), Value: shown(value)})
	}
}

func (s *scan) function(r *rdb.Record) error {
	kept := s.decoder.Window().Kept()
	code, err := rdb.AppendString(nil, kept[r.Value.Off:r.Value.Off+r.Value.Len])
	if err != nil {
		return err
	}
	f := Function{Bytes: int64(len(code))}
	first, _, _ := bytes.Cut(code, []byte("\n"))
	for i, word := range bytes.Fields(bytes.TrimPrefix(first, []byte("#!"))) {
		if i == 0 {
			f.Engine = shown(word)
		} else if name, ok := bytes.CutPrefix(word, []byte("name=")); ok {
			f.Name = shown(name)
		}
	}
	s.functions = append(s.functions, f)
	s.opts.For.function(f.Name)
	return nil
}

func (s *scan) key(r *rdb.Record) error {
	kept := s.decoder.Window().Kept()
	name, err := s.decodeName(kept[r.Name.Off : r.Name.Off+r.Name.Len])
	if err != nil {
		return err
	}
	t := Totals{Keys: 1, Bytes: r.Name.Len + 1 + r.Value.Len, Elements: s.measure.Elements, Memory: memoryOf(r, len(name), &s.measure)}
	if r.Type == rdb.TypeString || r.Type == rdb.TypeModule2 {
		t.Elements = 1
	}
	if r.HasExpire {
		t.Expires = 1
	}
	if s.last == nil || s.last.db != r.DB {
		s.last = s.database(r.DB)
	}
	s.last.types[r.Type].add(t)
	s.tree.add(r.DB, name, t)
	if t.Memory > s.biggest.least() {
		s.biggest.add(Key{
			DB: r.DB, Name: shown(name), Type: rdb.TypeName(r.Type), Bytes: t.Bytes, Elements: t.Elements, Memory: t.Memory, ExpireAt: r.ExpireAt,
		})
	}
	s.ages(r, t)
	if r.Type == rdb.TypeModule2 {
		s.module(rdb.ModuleName(kept[min(r.Value.Off, int64(len(kept))):]), t)
	}
	s.check(r, name, kept)
	return nil
}

// decodeName returns the name of a key; it is valid until the next one.
func (s *scan) decodeName(enc []byte) ([]byte, error) {
	plain, _, err := rdb.StringForm(enc)
	if err == nil && plain == nil {
		s.name, err = rdb.AppendString(s.name[:0], enc)
		plain = s.name
	}
	if err != nil {
		return nil, errors.Join(rdb.ErrCorrupt, err)
	}
	return plain, nil
}

func (s *scan) database(db int) *dbTotals {
	for _, d := range s.dbs {
		if d.db == db {
			return d
		}
	}
	d := &dbTotals{db: db}
	s.dbs = append(s.dbs, d)
	return d
}

func (s *scan) ages(r *rdb.Record, t Totals) {
	if r.HasExpire {
		s.expiry.add(float64(r.ExpireAt-s.made.UnixMilli())/1000, t)
	} else {
		s.expiry.never.add(t)
	}
	if r.HasIdle {
		s.idle.add(float64(r.Idle), t)
	}
	if r.HasFreq {
		s.freq.add(float64(r.Freq), t)
	}
}

func (s *scan) module(name string, t Totals) {
	const most = 256 // names come from the file
	if s.modules[name] == nil {
		if len(s.modules) >= most {
			name = "(others)"
		}
		if s.modules[name] == nil {
			s.modules[name] = new(Totals)
		}
	}
	s.modules[name].add(t)
}

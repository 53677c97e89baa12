package writer

import (
	"bytes"
	"fmt"
	"io"
	"strconv"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/rdb"
)

// plainFile writes keys of the snapshot as commands that build their values from nothing, in terms that a release and all
// later ones understand. How long a key was not used, and how often it was, has no command.
type plainFile struct {
	to   rdb.Release
	dbs  haul.DBMap
	out  outbox
	lost func(it item, what string, rest bool) (treatment, error)
	text []byte // scratch: a string
}

func newPlainFile(f *File) *plainFile {
	return &plainFile{to: f.cfg.Release, dbs: f.cfg.DBs, out: fileOutbox(f.out), lost: f.lacks}
}

// write implements fileForm.
func (f *plainFile) write(b *haul.Batch, first, n uint32) error {
	for i := first; i < first+n; i++ {
		it := item{batch: b, first: i, n: 1}
		var err error
		switch e := it.entry(); e.Kind {
		case haul.KindFunction:
			err = f.function(it, b.KeyOf(e).Name)
		case haul.KindKey:
			err = f.key(it, e, b.KeyOf(e))
		default:
			err = fmt.Errorf("a command of the stream (position %d) is not rewritten for another release", e.Start)
		}
		if err != nil {
			return err
		}
	}
	return f.out.flush()
}

// finish implements fileForm.
func (f *plainFile) finish() error { return nil }

func (f *plainFile) function(it item, code []byte) error {
	if !f.to.Valkey && f.to.Major < 7 {
		_, err := f.lost(it, "functions", false)
		return err
	}
	return f.command([]byte("FUNCTION"), []byte("LOAD"), []byte("REPLACE"), code)
}

// key appends what makes a key what it is. A deadline is set behind the value.
func (f *plainFile) key(it item, e *haul.Entry, k *haul.Key) error {
	if leave, err := f.leaves(it, k); leave || err != nil {
		return err
	}
	f.out.selectDB(f.dbs.Of(e.DB))
	if err := f.value(it, e, k); err != nil || k.Has&haul.HasExpire == 0 {
		return err
	}
	return f.command([]byte("PEXPIREAT"), k.Name, strconv.AppendInt(nil, k.ExpireAt, 10))
}

// value appends what builds the value of a key from nothing.
func (f *plainFile) value(it item, e *haul.Entry, k *haul.Key) (err error) {
	body := it.batch.Bytes(k.Value)
	from := func() io.Reader { return bytes.NewReader(body) }
	switch {
	case e.Big != nil:
		from = func() io.Reader { return bigReader(e) }
	case k.Type == rdb.TypeString:
		if f.text, err = rdb.AppendString(f.text[:0], body); err == nil {
			err = f.command([]byte("SET"), k.Name, f.text)
		}
		return err
	}
	if k.Type != rdb.TypeString { // of which the first command is SET
		if err := f.command([]byte("UNLINK"), k.Name); err != nil {
			return err
		}
	}
	lost, err := f.to.Commands(rdb.Value{Type: k.Type, Valkey: fromValkey(k)}, k.Name, from, buildBytes, f.command)
	if err != nil {
		return fmt.Errorf("key %q of database %d: %w", k.Name, e.DB, err)
	}
	if lost == "" {
		return nil
	}
	how, err := f.lost(it, lost, true)
	if err == nil && how == leaveOut { // only its value has told
		err = f.command([]byte("UNLINK"), k.Name)
	}
	return err
}

// leaves decides on a key of which the release cannot hold all, before any of it is written.
func (f *plainFile) leaves(it item, k *haul.Key) (leave bool, err error) {
	form, lacks := f.to.Form(k.Type, fromValkey(k), k.Prefix.Len > 0)
	if k.Type == rdb.TypeModule2 {
		form, lacks = rdb.FormMissing, "commands for a value of a module"
	}
	if form == rdb.FormAsItIs || form == rdb.FormRewritten {
		return false, nil
	}
	how, err := f.lost(it, lacks, form == rdb.FormDegraded)
	return how == leaveOut, err
}

// command appends one command.
func (f *plainFile) command(args ...[]byte) error {
	o := &f.out
	n := len(o.arena)
	o.arena = resp.AppendArray(o.arena, len(args))
	for _, a := range args {
		o.arena = resp.AppendBulk(o.arena, a)
	}
	o.grown(n)
	if o.size < flushBytes {
		return nil
	}
	return o.flush()
}

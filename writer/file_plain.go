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

// plainKeys writes keys of the snapshot as commands that build their values from nothing, in terms that a release and all
// later ones understand. How long a key was not used, and how often it was, has no command.
type plainKeys struct {
	to   rdb.Release
	lost func(lacking) (treatment, error)
	out  *outbox
	text []byte // scratch: a string
}

// key appends what makes a key what it is. A deadline is set behind the value.
func (f *plainKeys) key(it item) error {
	e := it.entry()
	k := it.batch.KeyOf(e)
	if leave, err := f.leaves(it, k); leave || err != nil {
		return err
	}
	if err := f.value(it, e, k); err != nil || k.Has&haul.HasExpire == 0 {
		return err
	}
	return f.command([]byte("PEXPIREAT"), k.Name, strconv.AppendInt(nil, k.ExpireAt, 10))
}

// value appends what builds the value of a key from nothing.
func (f *plainKeys) value(it item, e *haul.Entry, k *haul.Key) (err error) {
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
	how, err := f.lacks(it, lost, true)
	if err == nil && how == leaveOut { // only its value has told
		err = f.command([]byte("UNLINK"), k.Name)
	}
	return err
}

// leaves decides on a key of which the release cannot hold all, before any of it is written.
func (f *plainKeys) leaves(it item, k *haul.Key) (leave bool, err error) {
	form, lacks := f.to.Form(k.Type, fromValkey(k), k.Prefix.Len > 0)
	if k.Type == rdb.TypeModule2 {
		form, lacks = rdb.FormMissing, "commands for a value of a module"
	}
	if form == rdb.FormAsItIs || form == rdb.FormRewritten {
		return false, nil
	}
	how, err := f.lacks(it, lacks, form == rdb.FormDegraded)
	return how == leaveOut, err
}

// lacks decides on a key of which the release cannot hold everything.
func (f *plainKeys) lacks(it item, what string, rest bool) (treatment, error) {
	name, keys := keysOf(it)
	return f.lost(lacking{item: it, command: name, keys: keys, what: what, rest: rest})
}

// command appends one command.
func (f *plainKeys) command(args ...[]byte) error {
	o := f.out
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

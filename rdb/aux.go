package rdb

import (
	"fmt"
	"strconv"
)

// aux passes a pair of strings, of which few matter.
func (d *Decoder) aux() error {
	var err error
	if d.scratch, err = d.decoded(d.scratch[:0]); err != nil {
		return err
	}
	ours := string(d.scratch) == "repl-stream-db"
	if !ours && d.Aux == nil {
		return d.str()
	}
	n := len(d.scratch)
	if d.scratch, err = d.decoded(d.scratch); err != nil {
		return err
	}
	name, value := d.scratch[:n], d.scratch[n:]
	if d.Aux != nil {
		d.Aux(name, value)
	}
	if !ours {
		return nil
	}
	if d.StreamDB, err = strconv.Atoi(string(value)); err != nil {
		return fmt.Errorf("%w: repl-stream-db is %q", ErrCorrupt, value)
	}
	return nil
}

// decoded passes a string and appends what it says to dst.
func (d *Decoder) decoded(dst []byte) ([]byte, error) {
	from := d.w.Rel()
	if err := d.name(); err != nil {
		return dst, err
	}
	enc, err := d.kept(Span{from, d.w.Rel() - from})
	if err != nil {
		return dst, err
	}
	if dst, err = AppendString(dst, enc); err != nil {
		return dst, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return dst, nil
}

package writer

import (
	"io"

	"github.com/keyhaul/keyhaul/haul"
)

// respFile writes commands as they would be sent to a server: keys of the snapshot as SET and RESTORE … REPLACE, or in
// plain commands, and the stream.
type respFile struct {
	enc   *encoder
	out   outbox
	plain *plainKeys // nil for RESTORE
}

func newRESPFile(out io.Writer, d *dispatcher, plain bool) *respFile {
	f := &respFile{enc: &d.enc, out: outbox{conn: out, push: func([]op) {}, db: unknownDB}}
	if plain {
		f.plain = &plainKeys{to: d.cfg.Node.Release(), lost: d.lacks, out: &f.out}
	}
	return f
}

// write implements fileForm.
func (f *respFile) write(b *haul.Batch, first, n uint32) error {
	if f.plain == nil || !b.Snapshot {
		if err := f.enc.encode(&f.out, item{batch: b, first: first, n: n}); err != nil {
			return err
		}
		return f.out.flush()
	}
	for i := first; i < first+n; i++ {
		it := item{batch: b, first: i, n: 1}
		f.out.selectDB(f.enc.db(it.entry().DB))
		var err error
		if it.entry().Kind == haul.KindKey {
			err = f.plain.key(it)
		} else {
			err = f.enc.encode(&f.out, it)
		}
		if err != nil {
			return err
		}
	}
	return f.out.flush()
}

// finish implements fileForm.
func (f *respFile) finish() error { return nil }

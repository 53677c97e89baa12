package writer

import (
	"io"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/rdb"
)

// respFile writes commands as they would be sent to a server of the source's release: keys of the snapshot as SET and
// RESTORE … REPLACE, the stream as it came.
type respFile struct {
	enc encoder
	out outbox
}

func newRESPFile(out io.Writer, cfg FileConfig) *respFile {
	return &respFile{
		enc: encoder{
			existing: ExistingReplace, pxat: knowsPXAT(cfg.Source), function: command.Lookup([]byte("FUNCTION")), dbs: cfg.DBs,
			values: newValues(rdb.Release{}, nil),
		},
		out: fileOutbox(out),
	}
}

// fileOutbox returns an outbox to which nobody answers.
func fileOutbox(out io.Writer) outbox { return outbox{conn: out, push: func([]op) {}, db: unknownDB} }

// write implements fileForm.
func (f *respFile) write(b *haul.Batch, first, n uint32) error {
	if err := f.enc.encode(&f.out, item{batch: b, first: first, n: n}); err != nil {
		return err
	}
	return f.out.flush()
}

// finish implements fileForm.
func (f *respFile) finish() error { return nil }

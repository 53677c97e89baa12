package writer

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// A value that is too large for memory is kept in a file without a name while it is on its way, and is read from there in
// pieces when it is written, as large entries are read from the spool.

// largeValue is such a value: a payload of RESTORE.
type largeValue struct {
	file *os.File
	size int64
}

// repairLargeOne repairs a key whose value is too large for memory.
func (d *dispatcher) repairLargeOne(ctx context.Context, key wanted, size int64, prune bool, all *Repaired) error {
	refuse := func(format string, args ...any) error {
		all.Refused = append(all.Refused, Refusal{key.index, fmt.Errorf(format, args...)})
		return nil
	}
	if size > repairLarge {
		return refuse("its value takes %d bytes on the source, and no more than %d are read at once", size, repairLarge)
	}
	if d.cfg.Dir == "" {
		return refuse("its value takes %d bytes on the source, and there is no state directory to keep it in meanwhile (--state-dir none)", size)
	}
	file, err := os.CreateTemp(d.cfg.Dir, "repair-*")
	if err != nil {
		return refuse("state directory: %w", err)
	}
	if err := os.Remove(file.Name()); err != nil {
		_ = file.Close()
		return refuse("state directory: %w", err)
	}
	x := &repair{keys: []wanted{key}, values: make([]haul.Value, 1), prune: prune, over: make(chan struct{})}
	err = d.whileHeld(ctx, x, repairLargeReply, func(ctx context.Context, from int64) (err error) {
		size, x.values[0], x.at, err = d.cfg.Values.Large(ctx, from, key.KeyName, file)
		if size > 0 && err == nil {
			x.large = &largeValue{file, size} // it is closed when the value is written
		} else {
			_ = file.Close()
		}
		return err
	})
	return d.decided(ctx, x, err, all)
}

// setLarge appends the entry that makes a key what the source has, to be read from the value's file.
func (b *ownBatch) setLarge(e haul.Entry, k haul.KeyName, v haul.Value, large *largeValue) {
	from := io.NewSectionReader(large.file, 0, large.size)
	big, s := &haul.Big{}, &spliced{from: from}
	words := []string{"RESTORE", k.Name, strconv.FormatInt(v.ExpireAt, 10), "", "REPLACE"}
	if v.ExpireAt > 0 {
		words = append(words, "ABSTTL")
	}
	s.text(resp.AppendArray(nil, len(words)))
	for i, w := range words {
		size := int64(len(w))
		if i == 3 {
			size = large.size
		}
		s.text(resp.AppendBulkHeader(nil, int(size)))
		big.Args = append(big.Args, haul.BigSpan{Off: s.size, Len: size})
		if i == 3 {
			s.section(0, size)
		} else {
			s.text([]byte(w))
		}
		s.text([]byte("\r\n"))
	}
	big.Bytes, big.Len = s, s.size
	e.Kind, e.DB, e.First, e.Big = haul.KindCommand, k.DB, uint32(len(b.Commands)), big
	b.Commands = append(b.Commands, haul.Command{Spec: command.Lookup([]byte("RESTORE")), DB: k.DB})
	b.Entries = append(b.Entries, e)
}

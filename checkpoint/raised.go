package checkpoint

import (
	"context"
	"encoding/binary"
	"strconv"
	"sync"
)

// raised are the keys whose deadlines the first step of Finish has put far away, with the true ones: so that the second
// step need not look for them. They are kept in chunks, as long as they are not too many.
type raised struct {
	mu    sync.Mutex
	room  int // bytes that may still be taken
	whole bool
	at    map[place][][]byte
	flags bool // of PEXPIREAT may be used
}

// place is a database of a node.
type place struct {
	addr string
	db   int32
}

const (
	raisedBytes = 24 << 20
	raisedChunk = 32 << 10
)

func newRaised() *raised {
	return &raised{room: raisedBytes, whole: true, at: map[place][][]byte{}, flags: true}
}

// forget says that the keys are not all of those that were raised.
func (r *raised) forget() { r.whole, r.at = false, nil }

// add keeps a key with its true deadline.
func (r *raised) add(at place, key string, deadline int64, flags bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	size := 2*binary.MaxVarintLen64 + len(key)
	if r.room -= size; r.room < 0 {
		r.forget()
	}
	if !r.whole {
		return
	}
	r.flags = r.flags && flags
	chunks := r.at[at]
	if n := len(chunks); n == 0 || cap(chunks[n-1])-len(chunks[n-1]) < size {
		chunks = append(chunks, make([]byte, 0, max(raisedChunk, size)))
	}
	last := &chunks[len(chunks)-1]
	*last = binary.AppendVarint(binary.AppendUvarint(*last, uint64(len(key))), deadline)
	*last = append(*last, key...)
	r.at[at] = chunks
}

// lowerKnown carries out the second step of Finish for the keys that the first one has raised. Where it cannot be done
// to all of them they must be looked for, which it leaves to the caller.
func (s *Store) lowerKnown(ctx context.Context, known *raised, tick func(seen, changed int64)) (done bool, err error) {
	if !known.whole {
		return false, nil
	}
	defer known.forget()
	var seen, changed int64
	for at, chunks := range known.at {
		err := s.fresh(ctx, at.addr, true, func(c *conn) error {
			if at.db != 0 {
				if _, err := c.do(ctx, "SELECT", strconv.Itoa(int(at.db))); err != nil {
					return err
				}
			}
			for _, chunk := range chunks {
				var b batch
				for len(chunk) > 0 {
					size, n := binary.Uvarint(chunk)
					deadline, m := binary.Varint(chunk[n:])
					key := chunk[n+m : n+m+int(size)]
					chunk = chunk[n+m+int(size):]
					b.add(expireAt(string(key), deadline, known.flags)...)
				}
				replies, err := c.ask(ctx, &b)
				if err != nil {
					return err
				}
				for _, r := range replies {
					changed += r.Int
				}
				if seen += int64(len(replies)); tick != nil {
					tick(seen, changed)
				}
			}
			return nil
		})
		if err != nil {
			s.cfg.Log.Info().Err(err).Msg("true deadlines are looked for once more")
			return false, err
		}
	}
	return true, nil
}

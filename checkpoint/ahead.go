package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// aheadVersion is the format of the fields of an Ahead hash that this program writes.
const aheadVersion = 1

// Ahead says that a key of a cluster has what the source had of it at an offset, whatever the fence of its slot says: it
// was read from the source. Commands up to there that write the key are not applied to it any more. It is a field of the
// hash of its slot, whose name is that of the key behind the source's database, as in 0:name, with a value of the form
//
//	1 <generation> <offset>
//
// and is written in one transaction with the key.
type Ahead struct {
	Key        haul.KeyName
	Slot       uint16
	Generation uint64
	Offset     int64
}

// Field returns the name and the value of a's field.
func (a Ahead) Field() (name, value string) {
	return AheadField(a.Key), fmt.Sprintf("%d %d %d", aheadVersion, a.Generation, a.Offset)
}

// AheadField returns the name of the field of a key.
func AheadField(k haul.KeyName) string { return strconv.Itoa(int(k.DB)) + ":" + k.Name }

func parseAhead(slot uint16, name, value string) (Ahead, error) {
	db, key, ok := strings.Cut(name, ":")
	version, rest, _ := strings.Cut(value, " ")
	switch v, err := strconv.ParseUint(version, 10, 31); {
	case err != nil || v == 0 || !ok:
		return Ahead{}, errors.New("ahead: has no format version, or no database")
	case v > aheadVersion:
		return Ahead{}, fmt.Errorf("ahead of format %d: %w", v, ErrNewer)
	}
	first, second, _ := strings.Cut(rest, " ")
	n, err1 := strconv.ParseInt(db, 10, 32)
	generation, err2 := strconv.ParseUint(first, 10, 64)
	offset, err3 := strconv.ParseInt(second, 10, 64)
	a := Ahead{Key: haul.KeyName{DB: int32(n), Name: key}, Slot: slot, Generation: generation, Offset: offset}
	return a, errors.Join(err1, err2, err3)
}

// readAhead reads which keys of a cluster's node are ahead.
func (s *Store) readAhead(ctx context.Context, c *conn, n node) (all []Ahead, hashes int64, err error) {
	if n.slots == nil {
		return nil, 0, nil
	}
	dbs, err := databases(ctx, c)
	if err != nil {
		return nil, 0, err
	}
	for _, db := range dbs {
		err := s.eachSlot(ctx, c, n, db, "HGETALL", s.Keys().Ahead, func(slot uint16, r resp.Reply) error {
			for i := 0; i+1 < len(r.Array); i += 2 {
				a, err := parseAhead(slot, r.Array[i].Text, r.Array[i+1].Text)
				switch {
				case errors.Is(err, ErrNewer):
					return err
				case err != nil:
					return fmt.Errorf("%w: what is ahead in slot %d cannot be read", ErrLost, slot)
				}
				all = append(all, a)
			}
			hashes += min(int64(len(r.Array)), 1)
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return all, hashes, nil
}

// eachSlot does a command to a key of each slot of a node in one database.
func (s *Store) eachSlot(ctx context.Context, c *conn, n node, db int32, command string, key func(slot uint16) string,
	each func(slot uint16, r resp.Reply) error,
) error {
	var b batch
	if db > 0 {
		if _, err := c.do(ctx, "SELECT", strconv.Itoa(int(db))); err != nil {
			return err
		}
	}
	for _, slot := range n.slots {
		b.add(command, key(slot))
	}
	var opened []uint16
	err := c.exchange(ctx, &b, func(i int, r resp.Reply) error {
		switch err := r.Err(); {
		case open(err):
			opened = append(opened, n.slots[i])
			return nil
		case err != nil:
			return err
		}
		return each(n.slots[i], r)
	})
	from := reader{s: s, from: c, db: db, evict: true}
	defer from.close()
	for _, slot := range opened {
		var r resp.Reply
		if err == nil {
			r, err = from.do(ctx, command, key(slot))
		}
		if err == nil {
			err = each(slot, r)
		}
	}
	if db > 0 && err == nil {
		_, err = c.do(ctx, "SELECT", "0")
	}
	return c.fail(command, err)
}

// databases returns database 0 and the others of a node that hold keys. Most clusters have no others.
func databases(ctx context.Context, c *conn) ([]int32, error) {
	r, err := c.do(ctx, "INFO", "keyspace")
	if err != nil && !refused(err) {
		return nil, err
	}
	dbs := []int32{0}
	for _, db := range slices.Sorted(maps.Keys(topology.ParseInfo(r.Text).Keyspace)) {
		if db > 0 {
			dbs = append(dbs, int32(db))
		}
	}
	return dbs, nil
}

// judgeAhead takes over what of the keys that are ahead is of this generation. The others are listed with offset 0, for
// whoever removes them.
func (st *State) judgeAhead(r reading) {
	st.Own += r.hashes
	if r.lost != nil && st.Lost == nil {
		st.Lost = r.lost
	}
	for _, a := range r.ahead {
		if a.Generation != st.Record.Generation {
			a.Offset = 0
		}
		st.Highest = max(st.Highest, a.Offset)
		st.Ahead = append(st.Ahead, a)
	}
}

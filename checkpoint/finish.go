package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// Deadlines in ms of unix time. The first step of Finish puts them so far away that no application has put any there,
// and that none is there which it has still to put there: so both steps see which keys they have done.
const (
	year      = 31_556_952_000
	late      = 8030 * year    // the year 10000: what expires later is left alone
	far       = 100_000 * year // added by the first step, subtracted by the second; later than ms taken for seconds
	farLowest = far - late     // grace is less than late, or far
)

// GraceFar is a grace in ms by which no deadline of any time has passed. What it puts off is where the first step of Finish
// would put it, so that there is only the second, and deadlines that others have set stay as they are.
const GraceFar = far

// Finish sets true deadlines where the record says that they were put off, and notes in the record that it did. A
// deadline that has passed meanwhile deletes its key. tick is told how many keys were seen and changed so far in this
// step. It tries until ctx ends, and may be broken off anywhere and called again, with the record loaded: each step
// leaves alone what it has done already, and the record says which step was begun.
//
// putOff may list the keys to change, and may be nil. Nothing else may set deadlines on the target meanwhile.
func (s *Store) Finish(ctx context.Context, putOff *PutOff, tick func(seen, changed int64)) error {
	r := s.Record()
	begun := r.Finishing != ""
	if begun { // who lists what it finds may have been broken off
		putOff.Forget()
	}
	if r.Grace > 0 && r.Grace != GraceFar && r.Finishing != finishingLower {
		r.Finishing = finishingRaise
		if err := s.step(ctx, r, putOff, !begun, raise(r.Grace), tick); err != nil {
			return err
		}
	}
	if r.Grace > 0 {
		r.Finishing = finishingLower
		if err := s.step(ctx, r, putOff, false, lower, tick); err != nil {
			return err
		}
	}
	putOff.Forget()
	if r.Import {
		if err := s.importOff(ctx); err != nil {
			return err
		}
	}
	err := s.retry(ctx, "remove what is left of large values", func(ctx context.Context, l *layout) error {
		return l.each(ctx, func(ctx context.Context, n node) error {
			return s.fresh(ctx, n.addr, true, func(c *conn) error {
				return s.removeParts(ctx, c, n, func(_ int, r resp.Reply) error { return r.Err() })
			})
		})
	})
	if err != nil {
		return err
	}
	r.Grace, r.Finishing, r.Import, r.Finished = 0, "", false, time.Now().Unix()
	return s.Save(ctx, r)
}

// step saves that it was begun, and carries it out: for the keys that are listed, else for those that are found. What it
// finds it lists, if it is the first to change any.
func (s *Store) step(ctx context.Context, r Record, putOff *PutOff, first bool, by shift, tick func(seen, changed int64)) error {
	if err := s.Save(ctx, r); err != nil {
		return err
	}
	if putOff.Known() {
		err := s.shiftListed(ctx, putOff, by, tick)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.cfg.Log.Info().Err(err).Msg("true deadlines are set once more, for all keys that are found")
		putOff.Forget()
	} else if first {
		putOff.Begin()
	}
	s.cfg.Log.Info().Str("step", r.Finishing).Msg("looking through all keys of the target for deadlines to set")
	w := &sweep{
		store: s, what: settingDeadlines, tick: tick,
		begin: func(ctx context.Context, c *conn, about topology.Node) (visitor, error) {
			return by.on(ctx, c, about, putOff)
		},
	}
	return w.run(ctx)
}

const settingDeadlines = "set true deadlines"

// shift moves deadlines.
type shift struct {
	offset int64                              // what is to be moved is later than the true deadline by this
	to     func(deadline int64) (int64, bool) // the new one for an old one, or false to leave it alone
}

func raise(grace int64) shift {
	return shift{grace, func(deadline int64) (int64, bool) { return deadline + far - grace, deadline < late }}
}

var lower = shift{far, func(deadline int64) (int64, bool) {
	return deadline - far, deadline >= farLowest && deadline < far+late
}}

// shifter moves deadlines on one node.
type shifter struct {
	shift
	list     *PutOff // of what was moved
	absolute bool    // the server has PEXPIRETIME; otherwise its deadlines are computed by its own clock, to a few ms
	flags    bool    // and PEXPIREAT has XX, so that a key which lost its deadline meanwhile gets none
}

func (s shift) on(ctx context.Context, c *conn, about topology.Node, list *PutOff) (shifter, error) {
	_, err := c.do(ctx, "PEXPIRETIME", namesKey)
	if err != nil && !refused(err) {
		return shifter{}, err
	}
	absolute := err == nil || code(err) == "MOVED" || code(err) == "ASK"
	known := about.Product == "redis" || about.Product == "valkey" || about.Product == "redict"
	return shifter{shift: s, list: list, absolute: absolute, flags: absolute && known}, nil
}

func (s shifter) ask(b *batch, key string) {
	if s.absolute {
		b.add("PEXPIRETIME", key)
		return
	}
	b.add("TIME")
	b.add("PTTL", key)
}

func (s shifter) decide(db int32, key string, replies []resp.Reply) ([]string, error) {
	deadline := replies[len(replies)-1].Int
	if deadline < 0 { // there is none, or no such key any more
		return nil, nil
	}
	if !s.absolute {
		now, err := serverTime(replies[0])
		if err != nil {
			return nil, err
		}
		deadline += now
	}
	to, ok := s.to(deadline)
	if !ok {
		return nil, nil
	}
	s.list.Add(db, []byte(key), deadline-s.offset)
	return s.expireAt(key, to), nil
}

func (s shifter) expireAt(key string, at int64) []string {
	args := []string{"PEXPIREAT", key, strconv.FormatInt(at, 10)}
	if s.flags {
		args = append(args, "XX")
	}
	return args
}

// serverTime reads the reply to TIME as ms of unix time.
func serverTime(r resp.Reply) (int64, error) {
	if len(r.Array) != 2 {
		return 0, errors.New("TIME has other than two elements")
	}
	seconds, err := strconv.ParseInt(r.Array[0].Text, 10, 64)
	micros, err2 := strconv.ParseInt(r.Array[1].Text, 10, 64)
	if errors.Join(err, err2) != nil {
		return 0, errors.New("TIME has no numbers")
	}
	return seconds*1000 + micros/1000, nil
}

// importOff ends the import mode. Nodes that do not know it are not in it, unless someone has forbidden it since.
func (s *Store) importOff(ctx context.Context) error {
	return s.retry(ctx, "end the import mode", func(ctx context.Context, _ *layout) error {
		off, err := s.ImportMode(ctx, false)
		if err == nil && !off {
			err = haul.Errorf(haul.ExitFailed, "run CONFIG SET import-mode no on every node of the target, or grant it to keyhaul's user, and finish again",
				"the target does not let its import mode be ended")
		}
		return err
	})
}

// ImportMode switches the import mode of Valkey, in which a server does not expire keys by its own clock, on every
// primary and replica. It returns false where a server does not know it, does not allow it, or would forget it when it
// is restarted: while it loads its data it would drop what has expired by its clock. Nodes that it had switched on by
// then are switched off again. It tries once.
func (s *Store) ImportMode(ctx context.Context, on bool) (bool, error) {
	l, err := s.look(ctx, true)
	if err != nil {
		return false, err
	}
	var done []string
	for _, addr := range l.all() {
		err = s.setImport(ctx, addr, on)
		if err != nil {
			break
		}
		done = append(done, addr)
	}
	if err == nil {
		return true, nil
	}
	if on {
		for _, addr := range done {
			if undo := s.setImport(ctx, addr, false); undo != nil && !refused(undo) {
				return false, undo
			}
		}
	}
	if errors.Is(err, errForgets) {
		s.cfg.Log.Info().Err(err).Msg("import mode is not used: it needs CONFIG REWRITE, to outlast a restart of the target, and CLIENT IMPORT-SOURCE")
		return false, nil
	}
	if e := (*resp.Error)(nil); errors.As(err, &e) {
		text := strings.ToLower(e.Text)
		if e.Code == "NOPERM" || strings.Contains(text, "unknown") || strings.Contains(text, "unsupported") {
			return false, nil
		}
	}
	return false, err
}

// errForgets says that a server cannot write its configuration file, or does not let keyhaul see what has expired.
var errForgets = errors.New("not all that import mode needs is allowed")

func (s *Store) setImport(ctx context.Context, addr string, on bool) error {
	value := "no"
	if on {
		value = "yes"
	}
	return s.fresh(ctx, addr, true, func(c *conn) error {
		if _, err := c.do(ctx, "CONFIG", "SET", "import-mode", value); err != nil {
			return err
		}
		var err error
		if on { // for other clients expired keys are gone
			_, err = c.do(ctx, "CLIENT", "IMPORT-SOURCE", "ON")
		}
		if err == nil {
			_, err = c.do(ctx, "CONFIG", "REWRITE")
		}
		if !refused(err) {
			return err
		}
		if !on {
			return nil
		}
		if _, undo := c.do(ctx, "CONFIG", "SET", "import-mode", "no"); undo != nil {
			return undo
		}
		return fmt.Errorf("%w: %s: %w", errForgets, addr, err)
	})
}

package writer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// refusal is the error that ends a run because of one entry.
func (d *dispatcher) refusal(it item, e *resp.Error) error {
	name, keys := keysOf(it)
	return haul.Errorf(haul.ExitFailed,
		"mend the key on the target and start again, or use --on-error skip (counted, and listed in errors.log) or hold",
		"the target refuses %s of %s in database %d %s: %s", name, quoted(keys), it.entry().DB, where(it), e.Text)
}

// where says where an entry stands.
func where(it item) string {
	if it.batch.Snapshot {
		return fmt.Sprintf("at byte %d of the snapshot", it.entry().Start)
	}
	return fmt.Sprintf("at offset %d of the stream", it.entry().Start)
}

func quoted(keys []string) string {
	if len(keys) == 0 {
		return "no key"
	}
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = fmt.Sprintf("%.200q", k)
	}
	return strings.Join(all, ", ")
}

// refusedDrop is how an entry is refused that a filter has left to that; nil for any other.
func refusedDrop(why haul.Drop) *resp.Error {
	switch why {
	case haul.DropMixed:
		return &resp.Error{Code: "ERR", Text: "ERR some of its keys are under " + checkpoint.Prefix + ", which keyhaul keeps for itself"}
	case haul.DropUnmapped:
		return &resp.Error{Code: "ERR", Text: "ERR it concerns databases that --db-map puts together, leaves out or does not name, so that it cannot be carried out on the target"}
	}
	return nil
}

// existing reports whether an entry was refused because the target holds its key, which is to be left as it is.
func (d *dispatcher) existing(it item, e *resp.Error) bool {
	if e.Code != "BUSYKEY" || !it.batch.Snapshot || d.cfg.Existing != ExistingSkip {
		return false
	}
	d.count("existing_skipped", 1)
	return true
}

// told reports whether an entry that the target refuses for what it is is a key that is repaired: whoever has asked for
// that hears of it, and nothing else comes of it.
func told(it item, e *resp.Error) bool {
	if it.batch.Refused == nil {
		return false
	}
	it.batch.Refused(it.first, e.Text)
	return true
}

// torn decides on a transaction in which a command has failed. The others are applied, and would be applied twice if it
// were repeated: there is nothing to hold. It reports whether the entry is done with.
func (d *dispatcher) torn(it item, e *resp.Error) bool {
	if told(it, e) {
		return true
	}
	if d.cfg.OnError == OnErrorSkip {
		return d.skip(it, e)
	}
	if d.exact() && !it.batch.Snapshot {
		d.note(it, e)
	}
	d.fatal(d.refusal(it, e))
	return false
}

// note writes down on the target that a command is missing there, before anything else of its slot goes on: the fence
// claims it.
func (d *dispatcher) note(it item, e *resp.Error) {
	name, keys := keysOf(it)
	err := d.cfg.Store.Note(d.runCtx, checkpoint.Refusal{
		Offset: it.entry().Start, DB: it.entry().DB, Command: name, Keys: keys, Error: e.Text, Time: time.Now().UTC(),
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		d.cfg.Log.Error().Err(err).Msg("a refused command could not be noted on the target")
	}
}

// skip counts an entry that the target refuses and lists it. It reports whether the entry is done with: beyond the
// limit it is not skipped, and the run ends.
func (d *dispatcher) skip(it item, e *resp.Error) bool {
	name, keys := keysOf(it)
	d.mu.Lock()
	within := d.counts["skipped"] < d.cfg.MaxSkipped
	if within {
		d.counts["skipped"]++
	}
	d.mu.Unlock()
	if !within {
		d.fatal(haul.Errorf(haul.ExitFailed, "look at errors.log; raise --max-skipped if all of it may be left out",
			"more than %d entries would be skipped: %w", d.cfg.MaxSkipped, d.refusal(it, e)))
		return false
	}
	err := d.errlog.add(skipped{
		Time: time.Now().UTC(), Snapshot: it.batch.Snapshot, Position: it.entry().Start, DB: it.entry().DB,
		Command: name, Keys: keys, Error: e.Text,
	})
	d.cfg.Log.Warn().Str("command", name).Strs("keys", keys).Str("error", e.Text).Int64("position", it.entry().Start).
		Msg("an entry was skipped")
	if err != nil {
		d.fatal(fmt.Errorf("a skipped entry could not be listed: %w", err))
	}
	return err == nil
}

// skipped is a line of errors.log. It holds no values.
type skipped struct {
	Time     time.Time `json:"time"`
	Snapshot bool      `json:"snapshot"`
	Position int64     `json:"position"`
	DB       int32     `json:"db"`
	Command  string    `json:"command"`
	Keys     []string  `json:"keys"`
	Error    string    `json:"error"`
}

// ListSkipped adds a line to the file that lists skipped entries, if there is one: of a command that an earlier run has
// noted on the target.
func ListSkipped(path string, at time.Time, position int64, db int32, name string, keys []string, refusal string) error {
	l := listFile{path: path}
	defer l.close()
	return l.add(skipped{Time: at, Position: position, DB: db, Command: name, Keys: keys, Error: refusal})
}

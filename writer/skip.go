package writer

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// refusal is the error that ends a run because of one entry.
func (d *dispatcher) refusal(it item, e *resp.Error) error {
	name, keys := keysOf(it)
	where := fmt.Sprintf("at offset %d of the stream", it.entry().Start)
	if it.batch.Snapshot {
		where = fmt.Sprintf("at byte %d of the snapshot", it.entry().Start)
	}
	return haul.Errorf(haul.ExitFailed,
		"mend the key on the target and start again, or use --on-error skip (counted, and listed in errors.log) or hold",
		"the target refuses %s of %s in database %d %s: %s", name, quoted(keys), it.entry().DB, where, e.Text)
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

// skip counts an entry that the target refuses and lists it.
func (d *dispatcher) skip(it item, e *resp.Error) {
	name, keys := keysOf(it)
	d.count("skipped", 1)
	d.mu.Lock()
	n := d.counts["skipped"]
	d.mu.Unlock()
	err := d.errlog.add(skipped{
		Time: time.Now().UTC(), Snapshot: it.batch.Snapshot, Position: it.entry().Start, DB: it.entry().DB,
		Command: name, Keys: keys, Error: e.Text,
	})
	d.cfg.Log.Warn().Str("command", name).Strs("keys", keys).Str("error", e.Text).Int64("position", it.entry().Start).
		Msg("an entry was skipped")
	if err != nil {
		d.fatal(fmt.Errorf("a skipped entry could not be listed: %w", err))
	}
	if n > d.cfg.MaxSkipped {
		d.fatal(haul.Errorf(haul.ExitFailed, "look at errors.log; raise --max-skipped if all of it may be left out",
			"more than %d entries were skipped: %w", d.cfg.MaxSkipped, d.refusal(it, e)))
	}
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

// errorsLog is the file that lists skipped entries.
type errorsLog struct {
	path string
	mu   sync.Mutex
	file *os.File
}

func (l *errorsLog) add(s skipped) error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		l.file = f
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = l.file.Write(append(line, '\n'))
	return err
}

func (l *errorsLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}

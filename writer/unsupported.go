package writer

import (
	"fmt"
	"time"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// lacking is an entry, or one command of a transaction, for which the target lacks something.
type lacking struct {
	item
	command string
	keys    []string
	what    string // the target lacks, in the plural: "hash field TTLs"
	rest    bool   // something is left to be done without that
}

// treatment is what becomes of something that the target lacks something for.
type treatment uint8

const (
	leaveOut treatment = iota // it is not written
	degrade                   // it is written without what the target lacks
)

// lacks decides on x, and counts and lists what is lost: in the counts unsupported_dropped and unsupported_degraded, and
// in unsupported.log. An error ends the run. What the target has from an earlier run is not listed again. It may be called
// from many goroutines.
func (d *dispatcher) lacks(x lacking) (treatment, error) {
	how := leaveOut
	if d.cfg.Unsupported == UnsupportedDegrade && x.rest {
		how = degrade
	}
	if !x.batch.Snapshot && !x.batch.Own && d.has(x.batch, x.entry()) {
		return how, nil
	}
	if !d.refuses() {
		return how, d.listLacking(x, how)
	}
	if x.batch.Refused != nil { // the target will say so
		return leaveOut, nil
	}
	if d.cfg.OnError == OnErrorSkip {
		d.skip(x.item, &resp.Error{Code: "ERR", Text: "ERR the target has no " + x.what})
		return leaveOut, nil
	}
	return leaveOut, haul.Errorf(haul.ExitFailed,
		"use a target that has them, or --unsupported degrade (done without) or drop (left out), which list each key in unsupported.log",
		"the target (%s %s) has no %s: %s of %s in database %d %s", d.cfg.Node.Product, d.cfg.Node.Version, x.what,
		x.command, quoted(x.keys), x.entry().DB, where(x.item))
}

// refuses reports whether what the target lacks something for is refused.
func (d *dispatcher) refuses() bool {
	return d.cfg.Unsupported != UnsupportedDrop && d.cfg.Unsupported != UnsupportedDegrade
}

func (d *dispatcher) listLacking(x lacking, how treatment) error {
	done := "dropped"
	if how == degrade {
		done = "degraded"
	}
	d.count("unsupported_"+done, 1)
	err := d.lacked.add(unsupported{
		Time: time.Now().UTC(), Snapshot: x.batch.Snapshot, Position: x.entry().Start, DB: x.entry().DB,
		Command: x.command, Keys: x.keys, Lacks: x.what, Done: done,
	})
	if err != nil {
		return fmt.Errorf("what the target lacks could not be listed: %w", err)
	}
	d.cfg.Log.Warn().Str("command", x.command).Strs("keys", x.keys).Str("lacks", x.what).Str("done", done).
		Msg("the target has no form for a part of the data")
	return nil
}

// unsupported is a line of unsupported.log. It holds no values.
type unsupported struct {
	Time     time.Time `json:"time"`
	Snapshot bool      `json:"snapshot"`
	Position int64     `json:"position"`
	DB       int32     `json:"db"`
	Command  string    `json:"command"`
	Keys     []string  `json:"keys"`
	Lacks    string    `json:"lacks"`
	Done     string    `json:"done"` // dropped or degraded
}

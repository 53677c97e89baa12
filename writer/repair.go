package writer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// A key that is found to be wrong on the target is written anew as the source has it, in its place in the stream. It is
// read with the offset that the source is at. No entry is dispatched meanwhile, so that the stream cannot have passed that
// offset. The value is held until every entry up to there is dispatched, and none behind it: then it is what those entries
// make of a key that was right, nothing is left out, and what comes next finds what it found on the source. The fence that
// goes with it says so (repair_place.go).

// Repairer is a writer that can write keys anew.
type Repairer interface {
	// Repair writes keys as the source has them, in order with the stream. Keys that the source lacks are deleted with prune,
	// else they are left. When it returns, the target has acknowledged what is said to be done. What is not done may be
	// tried again; so may all after an error. It may be called from many goroutines.
	Repair(ctx context.Context, keys []haul.KeyName, prune bool) (Repaired, error)
}

// Repaired says what has become of keys.
type Repaired struct {
	Written, Pruned int
	Lacking         int       // left because the source does not have them
	Refused         []Refusal // left because it could not be done
}

// Refusal is why a key was not repaired.
type Refusal struct {
	Index int // of the key, in what was asked for
	Err   error
}

// ValueReader reads keys that are repaired from the source. One goroutine uses it.
type ValueReader interface {
	// Sizes returns about how many bytes each key takes in the source's memory, 0 for those that it lacks.
	Sizes(ctx context.Context, keys []haul.KeyName) ([]int64, error)
	// Values returns what the source has of keys, all at one position, which is not before the offset from. Errors are those
	// of KeyReader.ReadKeys.
	Values(ctx context.Context, from int64, keys []haul.KeyName) ([]haul.Value, haul.Position, error)
	// Large is Values for one key, whose payload of size bytes goes to a writer. If there is no such key, size is 0.
	Large(ctx context.Context, from int64, key haul.KeyName, to io.Writer) (size int64, v haul.Value, at haul.Position, err error)
	Close()
}

// ErrRepairAgain says that keys were not repaired, and that a later try may succeed.
var ErrRepairAgain = errors.New("try again")

func notNow(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrRepairAgain, fmt.Errorf(format, args...))
}

const (
	repairKeys  = 256     // that are read at once
	repairBytes = 4 << 20 // of memory on the source that they take, about
	repairReply = 5 * time.Second

	repairLarge      = 1 << 30          // bytes of one key that are read from the source at all
	repairLargeReply = 60 * time.Second // for the source to tell of it
)

// repairs is what a writer knows of keys that are repaired. What has no comment belongs to the dispatcher's goroutine.
type repairs struct {
	turn    chan struct{}              // full while somebody repairs
	calls   chan func(context.Context) // for the dispatcher to do
	life    context.Context            //nolint:containedctx // ends with Run, for those who wait in Repair
	end     context.CancelCauseFunc
	holding bool         // no batch is taken, because keys are being read
	due     *repair      // was read, and the stream has not come to its place
	poll    *time.Ticker // while there is one
}

func newRepairs() repairs {
	r := repairs{turn: make(chan struct{}, 1), calls: make(chan func(context.Context))}
	r.life, r.end = context.WithCancelCause(context.Background())
	return r
}

// Repair implements Repairer.
func (d *dispatcher) Repair(ctx context.Context, keys []haul.KeyName, prune bool) (Repaired, error) {
	var all Repaired
	if d.cfg.Values == nil {
		return all, haul.Errorf(haul.ExitRefused, "repair from a source that is a server", "the source is no server: keys cannot be read from it")
	}
	select {
	case d.repairs.turn <- struct{}{}:
	case <-d.repairs.life.Done():
		return all, errLinkEnded
	case <-ctx.Done():
		return all, context.Cause(ctx)
	}
	defer func() { <-d.repairs.turn }()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(d.repairs.life, func() { cancel(errLinkEnded) })
	defer stop()
	list := make([]wanted, 0, len(keys))
	for i, k := range keys {
		if err := d.mayRepair(k); err != nil {
			all.Refused = append(all.Refused, Refusal{Index: i, Err: err})
			continue
		}
		list = append(list, wanted{KeyName: k, index: i})
	}
	slices.SortStableFunc(list, func(a, b wanted) int { return int(a.DB - b.DB) })
	for some := range slices.Chunk(list, repairKeys) {
		if err := d.repairSome(ctx, some, prune, &all); err != nil {
			return all, err
		}
	}
	return all, nil
}

var errLinkEnded = notNow("the link is being taken up again, or ends")

// wanted is a key that is to be repaired.
type wanted struct {
	haul.KeyName
	index int // in what was asked for
}

// mayRepair refuses keys that the sync does not copy either.
func (d *dispatcher) mayRepair(k haul.KeyName) error {
	switch {
	case checkpoint.Reserved([]byte(k.Name)):
		return fmt.Errorf("keys under %s are keyhaul's own", checkpoint.Prefix)
	case d.cfg.DBs.Of(k.DB) == haul.DropDB, d.cfg.DBs.Taken(k.DB):
		return fmt.Errorf("--db-map leaves database %d out", k.DB)
	}
	return nil
}

// repairSome repairs keys in as many steps as their sizes ask for.
func (d *dispatcher) repairSome(ctx context.Context, keys []wanted, prune bool, all *Repaired) error {
	sizes, err := d.sizes(ctx, keys)
	if err != nil {
		return err
	}
	for len(keys) > 0 {
		n, size := 0, int64(0)
		for n < len(keys) && size+sizes[n] <= repairBytes {
			size += sizes[n]
			n++
		}
		began := time.Now()
		if n == 0 {
			n, err = 1, d.repairLargeOne(ctx, keys[0], sizes[0], prune, all)
		} else {
			err = d.repairStep(ctx, keys[:n], prune, all)
		}
		if err != nil {
			return err
		}
		keys, sizes = keys[n:], sizes[n:]
		if len(keys) == 0 {
			return nil
		}
		select { // the stream stands still for no more than half of the time
		case <-time.After(min(time.Since(began), time.Second)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (d *dispatcher) sizes(ctx context.Context, keys []wanted) ([]int64, error) {
	short, cancel := context.WithTimeout(ctx, repairReply)
	defer cancel()
	sizes, err := d.cfg.Values.Sizes(short, names(keys))
	return sizes, d.unread(ctx, err)
}

// unread says why the source has not told of keys.
func (d *dispatcher) unread(ctx context.Context, err error) error {
	var refused *resp.Error
	switch {
	case err == nil, errors.Is(err, ErrRepairAgain):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &refused):
		return haul.Errorf(haul.ExitFailed, "allow keyhaul's user on the source MULTI, EXEC, SELECT, DUMP, PEXPIRETIME, PTTL, TIME, INFO and MEMORY USAGE",
			"the source does not let keys be read: %s", refused.Text)
	}
	return notNow("keys cannot be read from the source: %w", err)
}

func names(keys []wanted) []haul.KeyName {
	all := make([]haul.KeyName, len(keys))
	for i, k := range keys {
		all[i] = k.KeyName
	}
	return all
}

// repairStep repairs keys that are read at once.
func (d *dispatcher) repairStep(ctx context.Context, keys []wanted, prune bool, all *Repaired) error {
	x := &repair{keys: keys, prune: prune, over: make(chan struct{})}
	err := d.whileHeld(ctx, x, repairReply, func(ctx context.Context, from int64) (err error) {
		x.values, x.at, err = d.cfg.Values.Values(ctx, from, names(keys))
		return err
	})
	if refused := (*resp.Error)(nil); errors.As(err, &refused) && len(keys) > 1 {
		for i := range keys { // one that cannot be read keeps the others from it
			if err := d.repairStep(ctx, keys[i:i+1], prune, all); err != nil {
				return err
			}
		}
		return nil
	}
	return d.decided(ctx, x, err, all)
}

// decided waits until it is known what has become of keys, unless they could not be read.
func (d *dispatcher) decided(ctx context.Context, x *repair, err error, all *Repaired) error {
	var refused *resp.Error
	switch {
	case errors.As(err, &refused):
		err = d.unread(ctx, err)
		if classify(refused) == actSlot {
			err = notNow("its slot moves between nodes of the source: %s", refused.Code)
		}
		all.Refused = append(all.Refused, Refusal{x.keys[0].index, err})
		return nil
	case err != nil:
		return d.unread(ctx, err)
	}
	select {
	case <-x.over:
	case <-d.repairs.life.Done():
		return errLinkEnded
	case <-ctx.Done():
		d.dropRepair(x, context.Cause(ctx))
		return context.Cause(ctx)
	}
	if x.failed != nil {
		return x.failed
	}
	x.add(all)
	return nil
}

// whileHeld has keys read while no entry is dispatched, and leaves it to the dispatcher to put them in their place. A
// *resp.Error says that the source refuses to tell of them.
func (d *dispatcher) whileHeld(ctx context.Context, x *repair, limit time.Duration, read func(ctx context.Context, from int64) error) error {
	from, err := d.holdBatches(ctx)
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = read(short, from)
	release := func(ctx context.Context) {
		d.repairs.holding = false
		if err == nil {
			d.repairs.due, d.repairs.poll = x, time.NewTicker(settleAgain)
			d.repairIfReached(ctx)
		}
	}
	select {
	case d.repairs.calls <- release:
		return err
	case <-d.repairs.life.Done():
		return errLinkEnded
	}
}

// holdBatches has the dispatcher take no batch. It returns the offset behind which keys may be read.
func (d *dispatcher) holdBatches(ctx context.Context) (from int64, err error) {
	type answer struct {
		from int64
		err  error
	}
	told := make(chan answer, 1)
	ask := func(context.Context) {
		from, err := d.mayHold()
		d.repairs.holding = err == nil
		told <- answer{from, err}
	}
	select {
	case d.repairs.calls <- ask:
		a := <-told
		return a.from, a.err
	case <-d.repairs.life.Done():
		return 0, errLinkEnded
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// dropRepair takes back what was not put in its place yet.
func (d *dispatcher) dropRepair(x *repair, why error) {
	select {
	case d.repairs.calls <- func(context.Context) {
		if d.repairs.due == x {
			d.endRepair(why)
		}
	}:
	case <-d.repairs.life.Done():
	}
}

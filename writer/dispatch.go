package writer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/keepalive"
)

// router knows where entries go: a standalone target, or a cluster.
type router interface {
	// mode names it for status.
	mode() string
	// own gives entries that the writer has made itself to lanes; all are in one slot.
	own(b *haul.Batch, slot uint16)
	// open connects every lane, waiting as long as it takes. Lanes that are up stay as they are.
	open(ctx context.Context) error
	// dispatch gives the entries of a batch from one index to another to lanes, in order.
	dispatch(ctx context.Context, b *haul.Batch, from, to int) error
	// again gives items to lanes that were sent before, in order.
	again(items []item)
	// attend does what has become due for slots that move; moves tells when. tick is called once a second.
	attend() error
	tick()
	// behind reports whether an item must be sent again because an earlier one, which lane l has noted, is.
	behind(l *lane, it item) bool
	note(l *lane, it item)
	// slotsOf returns the slots of a lane; nil on a standalone target.
	slotsOf(l *lane) []uint16
}

// dispatcher is the writer: it receives batches, gives their entries to lanes, and mends what goes wrong. What goes
// wrong with a node is always mended in one way: all lanes are held until nothing is on its way, what was not
// acknowledged is collected, the target is waited for, and the collected entries are sent again before any other. Of
// slots that move see frozen.go.
type dispatcher struct {
	cfg     Config
	enc     encoder
	route   router
	trouble chan struct{} // a lane has failed entries, or is down
	idle    chan struct{} // a lane has nothing in flight
	moves   chan struct{} // there is something to attend to
	dead    chan error    // an error that ends the run
	backoff keepalive.Backoff
	began   time.Time
	worked  int64     // entries acknowledged at the last recovery
	mended  time.Time // when it was over
	group   *errgroup.Group
	runCtx  context.Context //nolint:containedctx // of Run, for lanes that are started in it

	waiting atomic.Bool // a wait for the target as a whole is shown

	frozen      *frozenSlots // of a cluster, as slots
	slots       *slotTable
	fenceKeys   []string        // by slot
	opened      bool            // every lane was connected once
	reached     string          // the address that a lane was connected to last
	runIDs      map[string]bool // of the servers that this run has been connected to, or knows the fences of
	applied     []int64         // what the target is known to have of the stream, by slot; nil before the stream
	resumed     int64           // the highest of what it was known to have at the start
	replayUntil atomic.Int64
	markedAt    haul.Position
	unmarked    atomic.Bool // a mark was refused
	broken      atomic.Bool // a lane was lost since fences were read
	void        bool        // what is left of this stream is not written any more: a new copy comes
	moved       bool        // slots have moved to other lanes since then

	settler
	repairs  repairs
	rewriter *rewriter

	mu      sync.Mutex
	lanes   []*lane
	counts  map[string]int64
	resends int64
	ready   bool
	errlog  *listFile      // errors.log
	lacked  *listFile      // unsupported.log
	dbs     map[int32]bool // databases that the target is known to have; of the dispatcher's goroutine, as lastDB
	lastDB  int32
}

func newDispatcher(cfg Config) *dispatcher {
	d := &dispatcher{
		cfg: cfg,
		enc: encoder{
			existing: cfg.Existing,
			pxat:     knowsPXAT(cfg.Node),
			strings:  !cfg.Node.Cluster && cfg.Existing != ExistingSkip && !cfg.NoTransactions,
			plain:    cfg.NoTransactions,
			function: command.Lookup([]byte("FUNCTION")),
			grace:    cfg.Grace,
			dbs:      cfg.DBs,
		},
		began:   time.Now(),
		trouble: make(chan struct{}, 1),
		idle:    make(chan struct{}, 1),
		moves:   make(chan struct{}, 1),
		dead:    make(chan error, 1),
		counts:  make(map[string]int64),
		errlog:  &listFile{path: cfg.ErrorsLog},
		lacked:  &listFile{path: cfg.UnsupportedLog},
		dbs:     map[int32]bool{0: true},
		runIDs:  make(map[string]bool),
		applied: cfg.Applied,

		settler: newSettler(cfg.Shard),
		repairs: newRepairs(),
	}
	d.rewriter = newRewriter(d)
	for _, id := range cfg.RunIDs {
		d.runIDs[id] = true
	}
	d.replayUntil.Store(cfg.ReplayUntil)
	for _, at := range cfg.Applied {
		d.resumed = max(d.resumed, at)
	}
	d.enc.values = newValues(cfg.Node.Release(), d.lacks)
	if cfg.Store != nil && !cfg.NoTransactions { // behind a proxy no two keys are known to be in one place
		d.enc.large, d.enc.part = cfg.BigValue, partKeys(cfg.Store.Keys(), cfg.Node.Cluster)
	}
	if cfg.Node.Cluster {
		d.slots = new(slotTable)
		if cfg.Exact {
			d.fenceKeys = fenceKeys(cfg.Store.Keys())
		}
		return d
	}
	if cfg.Store == nil {
		return d
	}
	keys := cfg.Store.Keys()
	d.enc.own = []string{keys.Whole(), keys.WholeMark(), keys.Record(), keys.Lease(), keys.Refusals(), keys.Names()}
	d.enc.standing = func() [][]string { return cfg.Store.Standing(d.leaseText()) }
	return d
}

// Run implements haul.Writer.
func (d *dispatcher) Run(ctx context.Context, in *haul.Channel) error {
	ctx, cancel := context.WithCancel(ctx)
	d.group, d.runCtx, d.watermark = &errgroup.Group{}, ctx, in.Watermark
	defer d.errlog.close()
	defer d.lacked.close()
	defer d.endSettling()
	defer d.endRepairs()
	if d.cfg.Source != nil {
		defer d.cfg.Source.Close()
	}
	defer d.group.Wait() //nolint:errcheck // lanes report their errors to the dispatcher
	defer cancel()
	if err := d.route.open(ctx); err != nil {
		return err
	}
	if d.frozen != nil {
		d.frozen.start(ctx)
	}
	d.opened = true
	d.setReady(true)
	tick := time.NewTicker(markEvery)
	defer tick.Stop()
	for {
		select {
		case b, ok := <-d.incoming(in):
			if !ok {
				if err := d.drain(ctx); err != nil {
					return err
				}
				d.mark(in.Watermark.Stream())
				return d.drain(ctx)
			}
			if err := d.accept(ctx, b); err != nil {
				return err
			}
		case <-d.trouble:
			if err := d.recover(ctx); err != nil {
				return err
			}
		case <-d.moves:
			if err := d.route.attend(); err != nil {
				return err
			}
		case call := <-d.calls:
			if err := call(ctx); err != nil {
				return err
			}
		case call := <-d.repairs.calls:
			call(ctx)
		case <-d.fewer:
			if err := d.settleOn(ctx); err != nil {
				return err
			}
		case <-d.polling():
			d.caughtUp()
		case <-d.repairPoll():
			d.repairIfReached(ctx)
		case <-tick.C:
			d.route.tick()
			d.mark(in.Watermark.Stream())
		case err := <-d.dead:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// markEvery is how often marks are written.
const markEvery = time.Second

// phase prepares for what a batch begins: a snapshot, whose stream is of another generation than what came before, or a
// stream.
func (d *dispatcher) phase(b *haul.Batch) {
	d.void = d.void && !b.Snapshot
	switch {
	case b.Snapshot && d.applied != nil:
		d.abandonAll()
		d.endRepair(notNow("a new copy of the source is made"))
		d.settler.at, d.upTo = haul.Position{}, 0
		d.applied, d.resumed, d.markedAt = nil, 0, haul.Position{}
		d.replayUntil.Store(0)
		for _, l := range d.lanes {
			l.fenced.Store(-1)
		}
	case !b.Snapshot && d.applied == nil && d.cfg.Store != nil:
		d.applied = make([]int64, 1)
		if d.cfg.Node.Cluster {
			d.applied = make([]int64, command.Slots)
		}
	}
}

// accept filters a batch and gives it to lanes, with what is due to be repaired in its place.
func (d *dispatcher) accept(ctx context.Context, b *haul.Batch) error {
	d.phase(b)
	at, upTo := d.settler.at, d.upTo
	if n := len(b.Entries); n > 0 && !b.Snapshot {
		at, upTo = b.End, max(b.End.Offset, b.Entries[n-1].End)
	}
	err := d.send(ctx, b) // the batch may be gone then
	d.settler.at, d.upTo = at, upTo
	if err == nil {
		d.repairIfReached(ctx)
	}
	return err
}

func (d *dispatcher) send(ctx context.Context, b *haul.Batch) error {
	if d.cfg.Grace > 0 && d.cfg.PutOff.Known() {
		putOff(b, d.cfg.PutOff, d.cfg.DBs)
	}
	d.takeApart(b)
	for _, f := range d.cfg.Filters {
		f.Apply(b)
	}
	if d.cfg.Shard != nil {
		if err := d.passOver(ctx, b); err != nil {
			return err
		}
	}
	if b.Snapshot {
		d.enc.setApart(b)
	}
	if err := d.rewriter.apply(b); err != nil {
		return err
	}
	dropped := 0
	for i := range b.Entries {
		if why := b.Entries[i].Drop; why != haul.DropNone {
			if e := refusedDrop(why); e != nil && !d.has(b, &b.Entries[i]) {
				it := item{batch: b, first: uint32(i), n: 1}
				if d.cfg.OnError != OnErrorSkip {
					return d.refusal(it, e)
				}
				d.skip(it, e)
			}
			d.count("dropped_"+why.String(), 1)
			dropped++
		}
	}
	if dropped == len(b.Entries) {
		b.Done(dropped)
		return nil
	}
	if err := d.dispatch(ctx, b); err != nil {
		return err
	}
	if dropped > 0 {
		b.Done(dropped)
	}
	return nil
}

func (d *dispatcher) dispatch(ctx context.Context, b *haul.Batch) error {
	from := 0
	if i, due := d.repairWithin(b); due {
		if err := d.dispatchPart(ctx, b, 0, i); err != nil {
			return err
		}
		d.placeRepair(ctx, before(b, &b.Entries[i]))
		from = i
	}
	return d.dispatchPart(ctx, b, from, len(b.Entries))
}

// dispatchPart gives the entries of a batch from one index to another to lanes.
func (d *dispatcher) dispatchPart(ctx context.Context, b *haul.Batch, from, to int) error {
	if d.cfg.Shard != nil && !b.Snapshot {
		return d.dispatchShard(ctx, b, from, to)
	}
	return d.route.dispatch(ctx, b, from, to)
}

// drain waits until every lane is idle, mending what goes wrong meanwhile.
func (d *dispatcher) drain(ctx context.Context) error {
	for !d.allLanes((*lane).idle) || !d.frozen.none() {
		select {
		case <-d.idle:
		case <-d.moves:
			if err := d.route.attend(); err != nil {
				return err
			}
		case <-d.trouble:
			if err := d.recover(ctx); err != nil {
				return err
			}
		case err := <-d.dead:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	select {
	case err := <-d.dead: // of an entry that is neither applied nor sent again
		return err
	default:
		return nil
	}
}

func (d *dispatcher) allLanes(is func(*lane) bool) bool {
	for _, l := range d.lanes {
		if !is(l) {
			return false
		}
	}
	return true
}

// up reports whether the lane has a connection.
func (l *lane) up() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn != nil
}

// lost hears that a lane is down.
func (d *dispatcher) lost(addr string, err error) {
	d.cfg.Log.Warn().Str("address", addr).Err(err).Msg("a connection to the target is lost")
	d.broken.Store(true)
	signal(d.trouble)
}

// fatal ends the run.
func (d *dispatcher) fatal(err error) {
	select {
	case d.dead <- err:
	default:
	}
}

func (d *dispatcher) count(what string, n int64) {
	d.mu.Lock()
	d.counts[what] += n
	d.mu.Unlock()
}

func (d *dispatcher) setReady(ready bool) {
	d.mu.Lock()
	d.ready = ready
	d.mu.Unlock()
}

// setLanes replaces the list of lanes.
func (d *dispatcher) setLanes(lanes []*lane) {
	d.mu.Lock()
	d.lanes = lanes
	d.mu.Unlock()
}

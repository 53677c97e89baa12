package redistest

import (
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	compareBatch   = 1000 // keys read at once
	maxDifferences = 20   // reported as text
	clockTolerance = 2 * time.Second
	ownPrefix      = "keyhaul:" // keys of keyhaul itself on the target; those of a source are never copied

	// expiryPatience is how long the target may take to delete, with a grace, what has expired on the source.
	expiryPatience = 10 * time.Second
	expiryPoll     = 50 * time.Millisecond
)

// CompareOptions are how to compare. The zero value is strict.
type CompareOptions struct {
	// TTLTolerance is by how much deadlines may differ. It is at least two seconds when a server is too old to tell
	// a deadline (PEXPIRETIME), so that it must be computed from the remaining time.
	TTLTolerance time.Duration
	// Grace is what a haul adds to deadlines while it runs (--expiry-mode source). A deadline of the target counts as
	// equal if it is the source's own, or later by exactly this.
	Grace     time.Duration
	IgnoreTTL bool
	// IgnoreReadCounts leaves out how many entries a consumer group has read and how many are left (entries-read, lag):
	// after XREADGROUP a server tells its replicas what was read, but does not count it there.
	IgnoreReadCounts bool
	// Digest has the servers compute digests (DEBUG DIGEST-VALUE) where both can, instead of reading every value in
	// full. It is slower for small values, which cost less to send than to digest, and faster for huge ones.
	Digest  bool
	Workers int // batches in flight; 3 if 0
}

// Report is the outcome of Compare.
type Report struct {
	Keys        int            // keys of the source
	ByType      map[string]int // those by type
	ByDB        map[int]int    // those by database
	Different   int            // keys that differ, or that one side lacks
	Differences []string       // the first of them, as text
	Digest      bool           // whether digests were used
	Took        time.Duration
}

// Equal tells whether both sides hold the same.
func (r Report) Equal() bool { return r.Different == 0 }

func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d keys compared in %s: %d differ", r.Keys, r.Took.Round(time.Millisecond), r.Different)
	for _, name := range slices.Sorted(maps.Keys(r.ByType)) {
		fmt.Fprintf(&b, ", %s %d", name, r.ByType[name])
	}
	for _, d := range r.Differences {
		b.WriteString("\n  " + d)
	}
	return b.String()
}

// Compare proves that two servers or clusters hold the same: every key of every database by type, value, deadline and
// metadata (consumer groups of streams, deadlines of hash fields), in both directions. Keys that begin with "keyhaul:" are
// neither compared nor counted. Nothing should write meanwhile. Keys that differ are read twice more before they are reported,
// in full, so a key that expires between two reads is no difference; with a grace, such a key may outlive its deadline on
// the target for a few seconds, until the source's deletion has arrived there. It reads with SCAN on primaries and changes nothing,
// but reading may let the server delete expired keys.
func Compare(ctx context.Context, source, target Endpoint, opts CompareOptions) (Report, error) {
	c := &comparison{
		opts: opts, began: time.Now(), seen: make(map[uint64]struct{}), seed: maphash.MakeSeed(),
		report: Report{ByType: make(map[string]int), ByDB: make(map[int]int)},
	}
	var err error
	if c.source, err = openSide(ctx, "source", source); err != nil {
		return Report{}, err
	}
	if c.target, err = openSide(ctx, "target", target); err != nil {
		return Report{}, err
	}
	c.digest = opts.Digest && c.source.digest && c.target.digest
	c.report.Digest = c.digest
	c.fieldTTLs = (c.source.fieldTTLs || c.target.fieldTTLs) && c.source.knowsFieldTTLs && c.target.knowsFieldTTLs
	c.tolerance = opts.TTLTolerance
	if !c.source.deadlines || !c.target.deadlines {
		c.tolerance = max(c.tolerance, clockTolerance)
	}
	if err := c.run(ctx); err != nil {
		return Report{}, err
	}
	c.report.Took = time.Since(c.began)
	return c.report, nil
}

// comparison is one run of Compare.
type comparison struct {
	opts           CompareOptions
	source, target *side
	digest         bool
	fieldTTLs      bool // whether any hash may have them
	tolerance      time.Duration
	began          time.Time
	seed           maphash.Seed

	mu       sync.Mutex // guards the following
	report   Report
	seen     map[uint64]struct{} // SCAN may return a key twice; it counts once
	suspects map[int][]string    // keys by database that differed at first sight
}

// batch is some keys of one database, as one side's SCAN gave them.
type batch struct {
	db         int
	keys       []string
	fromTarget bool
}

func (c *comparison) run(ctx context.Context) error {
	c.suspects = make(map[int][]string)
	batches := make(chan batch)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		for _, from := range []*side{c.source, c.target} {
			if err := from.scan(gctx, func(db int, keys []string) error {
				keys = slices.DeleteFunc(keys, func(key string) bool { return strings.HasPrefix(key, ownPrefix) })
				select {
				case batches <- batch{db, keys, from == c.target}:
					return nil
				case <-gctx.Done():
					return context.Cause(gctx)
				}
			}); err != nil {
				return err
			}
		}
		return nil
	})
	workers := c.opts.Workers
	if workers <= 0 {
		workers = 3
	}
	for range workers {
		group.Go(func() error { return c.work(gctx, batches) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.confirm(ctx)
}

// work compares batches until there are no more.
func (c *comparison) work(ctx context.Context, batches <-chan batch) error {
	source, target := c.source.session(), c.target.session()
	defer source.close()
	defer target.close()
	for b := range batches {
		var err error
		if b.fromTarget {
			err = c.checkExtra(ctx, b, source)
		} else {
			err = c.checkBatch(ctx, b, source, target)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkExtra looks for keys of the target that the source lacks.
func (c *comparison) checkExtra(ctx context.Context, b batch, source *session) error {
	missing, err := source.missing(ctx, b.db, b.keys)
	if err != nil {
		return err
	}
	c.suspect(b.db, missing)
	return nil
}

// checkBatch compares keys of the source with the target's.
func (c *comparison) checkBatch(ctx context.Context, b batch, source, target *session) error {
	s, t, err := c.readBoth(ctx, b.db, b.keys, source, target, !c.digest)
	if err != nil {
		return err
	}
	var differ []string
	for i, key := range b.keys {
		if s[i].kind == "none" || c.difference(s[i], t[i]) != "" {
			differ = append(differ, key)
		}
	}
	c.suspect(b.db, differ)
	c.count(b, s)
	return nil
}

// readBoth reads the same keys on both sides at the same time.
func (c *comparison) readBoth(ctx context.Context, db int, keys []string, source, target *session, full bool) (s, t []fact, err error) {
	group, gctx := errgroup.WithContext(ctx)
	want := reading{digest: !full, values: full, fieldTTLs: c.fieldTTLs, noReadCounts: c.opts.IgnoreReadCounts}
	group.Go(func() (err error) { s, err = source.read(gctx, db, keys, want); return err })
	group.Go(func() (err error) { t, err = target.read(gctx, db, keys, want); return err })
	return s, t, group.Wait()
}

func (c *comparison) suspect(db int, keys []string) {
	if len(keys) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.suspects[db] = append(c.suspects[db], keys...)
}

func (c *comparison) count(b batch, facts []fact) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, key := range b.keys {
		hash := maphash.String(c.seed, key) + uint64(b.db)
		if _, ok := c.seen[hash]; ok || facts[i].kind == "none" {
			continue
		}
		c.seen[hash] = struct{}{}
		c.report.Keys++
		c.report.ByDB[b.db]++
		c.report.ByType[facts[i].kind]++
	}
}

// confirm reads the suspects again, twice, in full: digests of different releases may differ for equal values, and a
// key may have expired between the reads of the two sides. What still differs is reported.
func (c *comparison) confirm(ctx context.Context) error {
	source, target := c.source.session(), c.target.session()
	defer source.close()
	defer target.close()
	for _, db := range slices.Sorted(maps.Keys(c.suspects)) {
		keys := slices.Compact(slices.Sorted(slices.Values(c.suspects[db])))
		for chunk := range slices.Chunk(keys, compareBatch) {
			still, _, _, err := c.confirmChunk(ctx, db, chunk, source, target)
			if err != nil {
				return err
			}
			_, texts, fading, err := c.confirmChunk(ctx, db, still, source, target)
			for since := time.Now(); err == nil && fading && time.Since(since) < expiryPatience; {
				sleep(ctx, expiryPoll)
				_, texts, fading, err = c.confirmChunk(ctx, db, still, source, target)
			}
			if err != nil {
				return err
			}
			c.report.Different += len(texts)
			room := maxDifferences - len(c.report.Differences)
			c.report.Differences = append(c.report.Differences, texts[:min(room, len(texts))]...)
		}
	}
	return nil
}

// confirmChunk returns the keys that differ, and how. fading tells that one of them has expired on the source alone.
func (c *comparison) confirmChunk(ctx context.Context, db int, keys []string, source, target *session) (differ, texts []string, fading bool, err error) {
	if len(keys) == 0 {
		return nil, nil, false, nil
	}
	s, t, err := c.readBoth(ctx, db, keys, source, target, true)
	if err != nil {
		return nil, nil, false, err
	}
	for i, key := range keys {
		if d := c.difference(s[i], t[i]); d != "" {
			differ = append(differ, key)
			texts = append(texts, fmt.Sprintf("db %d: key %s: %s", db, quote(key), d))
			fading = fading || c.fades(s[i], t[i])
		}
	}
	return differ, texts, fading, nil
}

// fades tells whether a key of the target has expired on the source, whose deletion is on its way.
func (c *comparison) fades(s, t fact) bool {
	return c.opts.Grace > 0 && s.kind == "none" && t.deadline >= 0 && t.deadline-c.opts.Grace.Milliseconds() <= time.Now().UnixMilli()
}

// difference says in what two readings of a key differ, "" if in nothing.
func (c *comparison) difference(s, t fact) string {
	now := time.Now().UnixMilli()
	switch {
	case s.kind == "none" && t.kind == "none":
		return ""
	case t.kind == "none":
		if s.deadline >= 0 && s.deadline <= now { // it expired between the two reads
			return ""
		}
		return "missing on the target (" + s.kind + ")"
	case s.kind == "none":
		if t.deadline >= 0 && t.deadline <= now {
			return ""
		}
		return "extra on the target (" + t.kind + ")"
	case s.kind != t.kind:
		return fmt.Sprintf("type: source %s, target %s", s.kind, t.kind)
	case s.digest != t.digest:
		return "value: digests differ"
	}
	if d := treeDifference("", s.value, t.value); d != "" {
		return "value of " + s.kind + ": " + d
	}
	if d := treeDifference("", s.meta, t.meta); d != "" {
		return "metadata of " + s.kind + ": " + d
	}
	if c.opts.IgnoreTTL {
		return ""
	}
	if !c.sameDeadline(s.deadline, t.deadline) {
		return fmt.Sprintf("TTL: source %s, target %s", deadlineText(s.deadline), deadlineText(t.deadline))
	}
	return ""
}

func (c *comparison) sameDeadline(s, t int64) bool {
	if s < 0 || t < 0 {
		return s < 0 && t < 0
	}
	tolerance := c.tolerance.Milliseconds()
	return abs(s-t) <= tolerance || c.opts.Grace > 0 && abs(s+c.opts.Grace.Milliseconds()-t) <= tolerance
}

func deadlineText(ms int64) string {
	if ms < 0 {
		return "none"
	}
	return fmt.Sprintf("expires at %d ms", ms)
}

func abs(n int64) int64 { return max(n, -n) }

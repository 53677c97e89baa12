package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/keepalive"
)

// Config says whose state a Store keeps, and where.
type Config struct {
	// Dialer opens connections to the target. Its ClientName is keyhaul:<name>:<worker>; each connection gets it.
	Dialer  *topology.Dialer
	Name    string // of the haul
	Link    string // of a cluster source; empty for the haul as a whole
	Cluster bool   // the target runs in cluster mode

	// Mine tells which slots are the link's: only keys of those are removed, and only those have fences. nil: all.
	Mine func(slot uint16) bool

	// NoTransactions says that the target, a proxy, has no MULTI and WATCH. Then two workers that start at the same
	// moment may both take the lease.
	NoTransactions bool
	Log            zerolog.Logger
}

// Store keeps a haul's state on its target. Its methods may run at once. Once a lease was acquired with it, it opens
// connections to write with only while that lease is held; then its errors may be ErrTaken and ErrGone.
type Store struct {
	cfg   Config
	lease atomic.Pointer[Lease] // that guards what is written; nil before it is acquired and when it is released

	changing sync.Mutex // held while a record is changed and saved

	evicting sync.Mutex      // guards the following
	evicted  map[string]bool // nodes on which there are no connections from before Load

	mu      sync.Mutex // guards the following
	record  Record
	known   bool     // record was loaded or saved
	holders []string // for the record
	layout  *layout
	seed    string              // address that told the layout
	marked  map[uint16]struct{} // slots that have a mark, on a cluster
	runIDs  map[string]bool     // of the processes that Load has read; empty before
	idle    map[string]*conn    // by address
	ghosts  []ghost
	closed  bool
}

// New returns a Store. It connects when it is used.
func New(cfg Config) *Store {
	return &Store{cfg: cfg, idle: map[string]*conn{}, marked: map[uint16]struct{}{}, evicted: map[string]bool{}}
}

// Keys returns the names of the haul's keys.
func (s *Store) Keys() Keys { return Keys{s.cfg.Name, s.cfg.Link} }

// Guard has the store write only while a lease is held that was acquired with another store of this haul.
func (s *Store) Guard(l *Lease) { s.lease.Store(l) }

// mine tells whether a slot is the link's.
func (s *Store) mine(slot uint16) bool { return s.cfg.Mine == nil || s.cfg.Mine(slot) }

// Record returns the record as it was last loaded or saved.
func (s *Store) Record() Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record
}

func (s *Store) remember(r Record, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record, s.known, s.holders = r, known, r.Holders
}

// Save writes the record and registers the haul on the target. It leaves a tombstone where it is. It tries until ctx
// ends.
//
// For Save, Update, Hold, Note and Forget of a link: a standalone that is another process than the one which Load has read
// may lack what a record would claim. Then the error is ErrRestarted.
func (s *Store) Save(ctx context.Context, r Record) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	return s.save(ctx, r, s.processes())
}

// processes are those that Load has read.
func (s *Store) processes() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runIDs
}

func (s *Store) save(ctx context.Context, r Record, to map[string]bool) error {
	r.Version = recordVersion
	s.mu.Lock()
	r.Holders = s.holders
	s.mu.Unlock()
	if n := len(r.Syncs); n > maxSyncs {
		r.Syncs = r.Syncs[n-maxSyncs:]
	}
	text, err := r.text()
	if err != nil {
		return err
	}
	var b batch
	b.add("SADD", namesKey, s.cfg.Name)
	b.add("SET", s.Keys().Record(), text)
	if err := s.send(ctx, "save the record of the haul", &b, to); err != nil {
		return err
	}
	s.remember(r, true)
	return nil
}

// Update changes the record and saves it. It is the way for those who share a record: one after the other changes what
// the last has saved. It tries until ctx ends.
func (s *Store) Update(ctx context.Context, change func(r *Record)) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	r, to := s.record, s.runIDs
	s.mu.Unlock()
	change(&r)
	return s.save(ctx, r, to)
}

// Hold notes in the record who is going to be written to. Nothing may be sent to a new one before. It tries until ctx
// ends.
func (s *Store) Hold(ctx context.Context, holders []string) error {
	slices.Sort(holders)
	s.changing.Lock()
	defer s.changing.Unlock()
	s.mu.Lock()
	r, known, to := s.record, s.known, s.runIDs
	s.holders = holders
	s.mu.Unlock()
	if !known || slices.Equal(r.Holders, holders) { // Save has them
		return nil
	}
	return s.save(ctx, r, to)
}

// Note appends a refusal to the journal. It tries until ctx ends. A lost reply may leave the refusal there twice.
func (s *Store) Note(ctx context.Context, r Refusal) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var b batch
	b.add("RPUSH", s.Keys().Refusals(), string(text))
	return s.send(ctx, "note a refused command", &b, s.processes())
}

// Forget empties the journal of refusals. It tries until ctx ends.
func (s *Store) Forget(ctx context.Context) error {
	var b batch
	b.add("DEL", s.Keys().Refusals())
	return s.send(ctx, "empty the journal of refused commands", &b, s.processes())
}

// send brings a batch to the node that has the record. Of a link, a standalone must be one of the processes.
func (s *Store) send(ctx context.Context, what string, b *batch, to map[string]bool) error {
	return s.retry(ctx, what, func(ctx context.Context, l *layout) error {
		return s.kept(ctx, l.owner().addr, func(c *conn) error {
			if s.cfg.Link != "" && !s.cfg.Cluster {
				if err := sameProcess(ctx, c, to); err != nil {
					return err
				}
			}
			_, err := c.ask(ctx, b)
			return c.fail(what, err)
		})
	})
}

// retry calls fn with the layout until it succeeds, ctx ends, or an error comes that no later try can mend. fn may have
// been carried out in part, or wholly, when it is called again; but nothing that an earlier try has sent is carried out
// behind that.
func (s *Store) retry(ctx context.Context, what string, fn func(ctx context.Context, l *layout) error) error {
	backoff := keepalive.Backoff{}
	for again := false; ; again = true {
		l, err := s.look(ctx, again)
		if err == nil {
			err = s.layGhosts(ctx, l)
		}
		if err == nil {
			err = fn(ctx, l)
		}
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !heals(err) {
			return fmt.Errorf("%s: %w", what, err)
		}
		wait := backoff.Next()
		s.cfg.Log.Warn().Err(err).Dur("wait", wait).Msg("cannot " + what + " yet")
		if ended := sleep(ctx, wait); ended != nil {
			return fmt.Errorf("%s: %w (%w)", what, ended, err)
		}
	}
}

// heals tells whether a later try may succeed. Login and permission errors heal: an operator mends them.
func heals(err error) bool {
	for _, end := range []error{ErrTaken, ErrGone, ErrNewer, ErrLost, ErrRestarted, topology.ErrNotCluster} {
		if errors.Is(err, end) {
			return false
		}
	}
	if errors.As(err, new(*haul.Error)) || errors.As(err, new(*topology.Permanent)) {
		return false
	}
	e := (*resp.Error)(nil)
	if !errors.As(err, &e) {
		return true
	}
	switch e.Code {
	case "WRONGTYPE", "CROSSSLOT":
		return false
	case "ERR": // others of this code, such as the limit of clients, do heal
		for _, text := range []string{"unknown command", "unknown subcommand", "wrong number of arguments", "syntax error", "DB index", "not allowed in cluster mode"} {
			if strings.Contains(e.Text, text) {
				return false
			}
		}
	}
	return true
}

// sleep returns why ctx ended, or nil after d.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

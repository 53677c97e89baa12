package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/reader"
)

// shards is a haul whose source is a cluster: one link for each shard that has slots.
type shards struct {
	*app

	ends  *ends
	pool  *haul.Pool
	forks *forks
	look  *surveyor
	slots haul.Slots
	group *errgroup.Group

	prune bool              // the first copies of links remove what the target had of an earlier one
	first checkpoint.Record // what the records of links begin with

	moves    time.Time      // since when slots are on the move; zero if none are; of the goroutine that supervises
	settling sync.WaitGroup // those who settle

	moving sync.Mutex     // held while slots are taken from links, until their records say so
	losers map[int32]bool // links whose records do not say so yet, by number

	mu       sync.Mutex
	links    []*shard
	numbers  int32
	goals    map[*shard]bool              // links that have reached the goal
	finished bool                         // all have
	underway map[*shard]*topology.SlotSet // what links settle
	rest     map[*shard]time.Time         // when they may settle more
}

// linkDir is where the files of one link of several are.
const linkDir = "links"

// followShards runs the links of a cluster source.
func (a *app) followShards(ctx context.Context, e *ends) error {
	s := &shards{
		app: a, ends: e, pool: haul.NewPool(a.cfg.Buffer.MaxBytes, len(e.survey.Shards)), forks: newForks(a.cfg.MaxSnapshots),
		look: &surveyor{dialer: a.source}, losers: make(map[int32]bool), goals: make(map[*shard]bool),
		underway: make(map[*shard]*topology.SlotSet), rest: make(map[*shard]time.Time),
	}
	defer s.look.close()
	a.limitMemory(len(e.survey.Shards))
	a.monitor.watchSlots(s)
	if err := s.begin(ctx); err != nil {
		return err
	}
	group, gctx := errgroup.WithContext(ctx)
	s.group = group
	over, stop := context.WithCancel(gctx)
	defer stop()
	v, err := s.look.look(ctx)
	if err == nil {
		err = s.startLinks(gctx, v)
	}
	if err != nil {
		return err
	}
	var supervising sync.WaitGroup
	supervising.Go(func() { s.supervise(over, gctx) })
	err = group.Wait()
	stop()
	supervising.Wait()
	_ = group.Wait() // a link that was started last
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil || a.cfg.Until != untilCaughtUp {
		return err
	}
	return a.finish(ctx, nil)
}

// begin reads what the target knows of the haul, and records it there if it is new.
func (s *shards) begin(ctx context.Context) error {
	if s.app.sharded {
		if err := s.store.EvictSelf(ctx); err != nil {
			return err
		}
	}
	s.app.sharded = true
	before := s.store.Record()
	st, err := s.load(ctx, s.store)
	if err != nil {
		return err
	}
	if !st.Found && before.Generation > 0 { // it was there before
		st.Lost = fmt.Errorf("%w: the target has no record of it any more", checkpoint.ErrLost)
		st.Found, st.Record = true, before
	}
	if err := mayResume(s.cfg, st); err != nil {
		return err
	}
	if st.Found && st.Lost == nil && len(st.Record.Links) == 0 && st.Record.Phase == checkpoint.PhaseStreaming {
		return haul.Errorf(haul.ExitRefused, "use another --name", "the haul %q has a source that is no cluster", s.cfg.Name)
	}
	if st.Found && st.Lost == nil && st.Record.Finishing != "" { // a finish was interrupted: deadlines are of two kinds
		if err := s.finish(ctx, nil); err != nil {
			return err
		}
		st.Record = s.store.Record()
	}
	book := &ledger{first: st.Record}
	if !st.Found || st.Lost != nil {
		if !st.Found {
			book.first.Began, book.first.Databases = began(s.cfg, s.ends.keys), s.cfg.DBs.String()
		}
		book.first.Links, book.first.Phase = nil, checkpoint.PhaseSnapshot
		book.first.Generation = uint64(time.Now().UnixMilli())
		s.prune = st.Lost != nil && s.cfg.OnLostHistory == string(reader.LostResync)
		book.first.Flush = !s.prune && (st.Lost != nil || s.cfg.Existing == existingFlush && s.ends.keys > 0)
	}
	if err := s.expiry(ctx, s.ends, st, book); err != nil {
		return err
	}
	if err := s.store.Save(ctx, book.first); err != nil {
		return err
	}
	if book.first.Flush {
		s.log.Info().Msg("the target is emptied")
		if err := s.store.Flush(ctx, s.lease.Text()); err != nil {
			return err
		}
		if err := s.store.Update(ctx, func(r *checkpoint.Record) { r.Flush = false }); err != nil {
			return err
		}
	}
	r := s.store.Record()
	s.first = checkpoint.Record{Began: r.Began, Databases: r.Databases, Grace: r.Grace, Import: r.Import}
	return nil
}

// startLinks starts a link for each that the target knows of, and for each shard that none of them is about.
func (s *shards) startLinks(ctx context.Context, v *survey) error {
	known := s.store.Record()
	var all []*shard
	for _, name := range known.Links {
		l := s.newShard(name)
		st, err := s.load(ctx, l.store)
		if err != nil {
			return err
		}
		if !st.Found { // it has not begun, or its record is lost: its shard gets a link that begins anew
			l.store.Close()
			continue
		}
		l.id = lastID(st)
		if addr, ok := v.heir(l.id); ok {
			l.at(addr, v.nodes[addr])
		}
		if st.Record.Slots != nil {
			st.Record.Slots.Each(func(slot uint16) { s.claim(slot, l) })
		}
		all = append(all, l)
	}
	at, others := v.linksOf(all)
	for _, sh := range v.Shards {
		node, ok := v.nodes[sh.Primary]
		if !ok || at[sh.Primary] != nil || !s.isNew(others, sh.Primary, v) {
			continue
		}
		l := s.newShard(node.ReplID[:min(12, len(node.ReplID))])
		l.at(sh.Primary, node)
		if known.Phase != checkpoint.PhaseStreaming { // a copy of everything
			slots := v.slotsOf(sh.Primary)
			slots.Each(func(slot uint16) { s.claim(slot, l) })
		}
		all = append(all, l)
	}
	names := make([]string, len(all))
	for i, l := range all {
		names[i] = l.name
	}
	if err := s.store.Update(ctx, func(r *checkpoint.Record) { r.Links = names }); err != nil {
		return err
	}
	for _, l := range all {
		s.start(ctx, l)
	}
	return nil
}

// claim makes a slot a link's, or no one's if two links claim it: it was moving when keyhaul stopped.
func (s *shards) claim(slot uint16, l *shard) {
	if s.slots.Owner(slot) != 0 {
		s.slots.Give(slot, 0)
		return
	}
	s.slots.Give(slot, l.number)
}

// lastID returns the replication id under which a link went on last.
func lastID(st *checkpoint.State) string {
	at := st.Base
	if at.ReplID == "" {
		at = st.Record.Start
	}
	for _, n := range st.Nodes {
		if n.Marked && n.Mark.At.Offset > at.Offset {
			at = n.Mark.At
		}
	}
	return at.ReplID
}

// start runs a link until it ends.
func (s *shards) start(ctx context.Context, l *shard) {
	s.mu.Lock()
	s.links = append(s.links, l)
	s.mu.Unlock()
	own, stop := context.WithCancelCause(ctx)
	l.stop = stop
	s.group.Go(func() error {
		defer stop(nil)
		l.log.Info().Str("address", l.addr).Msg("a link to a shard of the source begins")
		err := l.run(own)
		if errors.Is(err, errShardGone) {
			s.retire(ctx, l)
			return nil
		}
		if err != nil {
			return fmt.Errorf("link %s: %w", l.name, err)
		}
		return nil
	})
}

// errShardGone ends a link whose shard has no slots any more.
var errShardGone = errors.New("the shard has left the source cluster")

// retire takes a link out of the haul. What it leaves on the target, should that not answer now, cleanup removes.
func (s *shards) retire(ctx context.Context, l *shard) {
	defer l.waits.End()
	// What it has sent must not be carried out behind what other links write of its slots.
	if err := l.store.EvictSelf(ctx); err != nil {
		return // the haul ends
	}
	s.monitor.leave(l.name)
	err := s.store.Update(ctx, func(r *checkpoint.Record) {
		r.Links = slices.DeleteFunc(r.Links, func(name string) bool { return name == l.name })
	})
	if err == nil {
		err = l.store.Retire(ctx)
	}
	if err != nil {
		l.log.Warn().Err(err).Msg("the keys of the link could not be removed from the target")
	}
	l.store.Close()
	s.mu.Lock() // now that a new link of this name may begin
	s.links = slices.DeleteFunc(s.links, func(x *shard) bool { return x == l })
	delete(s.goals, l)
	s.mu.Unlock()
	l.log.Info().Msg("the shard has left the source cluster: its link has ended")
}

// newShard makes a link; nothing runs yet.
func (s *shards) newShard(name string) *shard {
	s.mu.Lock()
	s.numbers++
	number := s.numbers
	s.mu.Unlock()
	l := &shard{all: s, number: number}
	target := topology.NewDialer(s.cfg.Target.Endpoint)
	target.ClientName = checkpoint.LinkName(s.target.ClientName, name)
	target.Network = s.target.Network
	own := *s.ends
	own.keys = 0 // the haul has dealt with what the target held
	l.link = link{
		app: s.app, name: name, ends: &own, source: s.source, target: target, window: s.window(),
		waits: s.waits.Of(name), log: s.log.With().Str("link", name).Logger(), channel: s.pool.Channel, shard: l,
	}
	if s.state.path != "" {
		l.dir = filepath.Join(s.state.path, linkDir, name)
	}
	l.store = checkpoint.New(checkpoint.Config{
		Dialer: target, Name: s.cfg.Name, Link: name, Cluster: s.ends.target.Cluster, Mine: l.Mine, NoTransactions: s.ends.noTransactions != nil, Log: l.log,
	})
	l.store.Guard(s.lease)
	return l
}

// all returns the links that there are now.
func (s *shards) all() []*shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.links)
}

// window is what a link's spool keeps in memory.
func (s *shards) window() int64 {
	const all, least = 2 * spoolWindow, spoolWindow / 8
	return min(max(all/int64(len(s.ends.survey.Shards)), least), spoolWindow)
}

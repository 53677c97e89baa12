package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/writer"
)

// link is one stream from the source to the target: the only one of a standalone source, or that of one shard of a
// cluster.
type link struct {
	*app

	name    string // empty if it is the only one
	ends    *ends
	source  *topology.Dialer
	target  *topology.Dialer
	store   *checkpoint.Store
	log     zerolog.Logger
	waits   *haul.Waits
	dir     string // for its files; empty for none
	window  int64  // bytes of the spool in memory for a decoder that keeps up
	channel func() *haul.Channel
	putOff  *checkpoint.PutOff
	shard   *shard // what is more to it if the source is a cluster; else nil

	began    checkpoint.Record // what the target knew of it when the last pipeline ended
	received int64             // the highest offset that was read
	ran      bool              // a pipeline has run: what it has sent may still be carried out
}

// spoolWindow is how much of the stream the only link keeps in memory for its decoder, in bytes.
const spoolWindow = 4 << 20

// follow runs pipelines, each from what the target has.
func (l *link) follow(ctx context.Context) error {
	for {
		err := l.once(ctx)
		if ctx.Err() != nil || !errors.Is(err, writer.ErrRewind) && !errors.Is(err, checkpoint.ErrRestarted) {
			return err
		}
		l.log.Warn().Msg("the target was restarted or failed over: what it has is read from its fences, and the stream goes on from there")
	}
}

// once runs a pipeline from what the target has.
func (l *link) once(ctx context.Context) error {
	st, err := l.resumed(ctx)
	if err != nil {
		return err
	}
	h, book, err := l.pipeline(ctx, st)
	if err != nil {
		return err
	}
	l.ran = true
	l.monitor.watch(l.name, h.Reader, h.Writer)
	err = h.Run(ctx)
	if l.shard != nil {
		l.shard.ended()
	}
	book.close()
	h.Channel.Leave()
	l.began = l.store.Record()
	l.received = max(l.received, h.Reader.Status().Received)
	return err
}

// resumed reads what the target has, and ends what an earlier pipeline has left unfinished there.
func (l *link) resumed(ctx context.Context) (*checkpoint.State, error) {
	if l.ran {
		if err := l.store.EvictSelf(ctx); err != nil {
			return nil, err
		}
	}
	st, err := l.load(ctx, l.store)
	if err != nil {
		return nil, err
	}
	if !st.Found && l.began.Generation > 0 { // it was there before
		st.Lost = fmt.Errorf("%w: the target has no record of it any more", checkpoint.ErrLost)
		st.Found, st.Record = true, l.began
	}
	if err := mayResume(l.cfg, st); err != nil {
		return nil, err
	}
	if l.shard != nil {
		if err := l.shard.regain(ctx, st); err != nil {
			return nil, err
		}
	}
	if err := l.store.Complete(ctx, st); err != nil {
		return nil, err
	}
	if l.ends.target.Cluster && st.Found && st.Lost == nil && st.Record.Phase == checkpoint.PhaseStreaming {
		l.level(ctx, st)
	}
	if len(st.Refusals) > 0 {
		if err := l.listRefusals(ctx, st); err != nil {
			return nil, err
		}
	}
	if st.Record.Finishing != "" && st.Lost == nil { // a finish was interrupted: deadlines are of two kinds
		if err := l.finish(ctx, l.putOff); err != nil {
			return nil, err
		}
		st.Record = l.store.Record()
	}
	return st, nil
}

// level gives each node of the target the mark that reading goes on from, and removes others, which slots have taken
// along. Where it cannot be written now, in a slot that is being migrated say, the writer does it later.
func (l *link) level(ctx context.Context, st *checkpoint.State) {
	if err := l.store.Mark(ctx, checkpoint.Fence{Generation: st.Record.Generation, At: st.Base}); err != nil {
		l.log.Warn().Err(err).Msg("the marks on the target are written later")
	}
}

// listRefusals moves the journal of refused commands to errors.log.
func (l *link) listRefusals(ctx context.Context, st *checkpoint.State) error {
	for _, x := range st.Refusals {
		l.log.Warn().Str("command", x.Command).Strs("keys", x.Keys).Str("error", x.Error).Int64("position", x.Offset).
			Msg("an entry was skipped")
		if err := writer.ListSkipped(l.state.file("errors.log"), x.Time, x.Offset, x.DB, x.Command, x.Keys, x.Error); err != nil {
			return fmt.Errorf("a skipped entry could not be listed: %w", err)
		}
	}
	return l.store.Forget(ctx)
}

package main

import (
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
)

// rate is measured over the last seconds.
type rate struct {
	KeysPerSecond    float64 `json:"snapshot_keys_per_second"`
	BytesPerSecond   float64 `json:"snapshot_bytes_per_second"`
	EntriesPerSecond float64 `json:"entries_per_second"`
	StreamPerSecond  float64 `json:"stream_bytes_per_second"`
	ETASeconds       float64 `json:"snapshot_eta_seconds"` // -1: unknown
}

// add adds the rate of another link.
func (r *rate) add(o rate) {
	r.KeysPerSecond += o.KeysPerSecond
	r.BytesPerSecond += o.BytesPerSecond
	r.EntriesPerSecond += o.EntriesPerSecond
	r.StreamPerSecond += o.StreamPerSecond
	if r.ETASeconds < 0 || o.ETASeconds < 0 {
		r.ETASeconds = -1
	} else {
		r.ETASeconds = max(r.ETASeconds, o.ETASeconds)
	}
}

type sample struct {
	at time.Time
	l  haul.LinkStatus
}

const rateWindow = 5 * time.Second

// sample notes how far each link is.
func (m *monitor) sample() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, w := range m.links {
		w.samples = append(w.samples, sample{now, w.reader.Status()})
		for now.Sub(w.samples[0].at) > rateWindow {
			w.samples = w.samples[1:]
		}
	}
}

func (w *watched) rate(now haul.LinkStatus) rate {
	r := rate{ETASeconds: -1}
	if len(w.samples) < 2 {
		return r
	}
	a, b := w.samples[0], w.samples[len(w.samples)-1]
	secs := b.at.Sub(a.at).Seconds()
	per := func(from, to int64) float64 { return max(float64(to-from)/secs, 0) }
	r.KeysPerSecond = per(a.l.SnapshotKeys, b.l.SnapshotKeys)
	r.BytesPerSecond = per(a.l.SnapshotBytes, b.l.SnapshotBytes)
	r.EntriesPerSecond = per(a.l.Entries, b.l.Entries)
	if from := firstApplied(w.samples); from.l.Applied >= 0 && b.at.After(from.at) {
		r.StreamPerSecond = float64(b.l.Applied-from.l.Applied) / b.at.Sub(from.at).Seconds()
	}
	switch {
	case now.SnapshotDone:
		r.ETASeconds = 0
	case now.SnapshotTotal > 0 && r.BytesPerSecond > 0:
		r.ETASeconds = float64(now.SnapshotTotal-now.SnapshotBytes) / r.BytesPerSecond
	case now.SnapshotKeysAll > 0 && r.KeysPerSecond > 0:
		r.ETASeconds = max(float64(now.SnapshotKeysAll-now.SnapshotKeys), 0) / r.KeysPerSecond
	}
	return r
}

// firstApplied returns the oldest sample of the stream; the snapshot has no offset.
func firstApplied(samples []sample) sample {
	for _, s := range samples {
		if s.l.Applied >= 0 {
			return s
		}
	}
	return samples[0]
}

func logProgress(log zerolog.Logger, r report) {
	e, all := log.Info().Str("phase", string(r.Phase)), r.overall()
	for _, w := range r.Waiting {
		e.Str("waiting_for", w.Who+": "+w.Cause)
	}
	if !all.SnapshotDone {
		e.Int64("keys", all.SnapshotKeys).Int64("keys_total", all.SnapshotKeysAll).
			Float64("keys_per_second", round(r.Rate.KeysPerSecond)).Int64("bytes", all.SnapshotBytes).
			Float64("eta_seconds", round(r.Rate.ETASeconds)).Msg("snapshot")
		return
	}
	e.Int64("applied_offset", all.Applied).Float64("entries_per_second", round(r.Rate.EntriesPerSecond)).
		Int64("lag_bytes", all.LagBytes).Float64("lag_seconds", round(all.LagSeconds)).Msg("stream")
}

func round(x float64) float64 { return float64(int64(x*10)) / 10 }

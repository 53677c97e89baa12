package main

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
)

// report is what a running keyhaul says of itself: the body of /api/v1/status.
type report struct {
	Name    string            `json:"name"`
	Version string            `json:"version"`
	PID     int               `json:"pid"`
	Started time.Time         `json:"started"`
	Until   string            `json:"until"`
	Phase   haul.Phase        `json:"phase"`
	Ready   bool              `json:"ready"`
	Waiting []haul.Wait       `json:"waiting"`
	Links   []haul.LinkStatus `json:"links"` // one today: that of a standalone source
	Target  haul.WriterStatus `json:"target"`
	Rate    rate              `json:"rate"`
}

// rate is measured over the last seconds.
type rate struct {
	KeysPerSecond    float64 `json:"snapshot_keys_per_second"`
	BytesPerSecond   float64 `json:"snapshot_bytes_per_second"`
	EntriesPerSecond float64 `json:"entries_per_second"`
	StreamPerSecond  float64 `json:"stream_bytes_per_second"`
	ETASeconds       float64 `json:"snapshot_eta_seconds"` // -1: unknown
}

// monitor watches a run: it keeps rates, logs progress and draws it on a terminal.
type monitor struct {
	cfg     config
	waits   *haul.Waits
	started time.Time
	screen  screen

	mu      sync.Mutex
	reader  haul.Reader
	writer  haul.Writer
	samples []sample
	stop    func()
	waiter  bool // another process runs the haul, and this one is ready to take over
}

type sample struct {
	at time.Time
	l  haul.LinkStatus
}

const rateWindow = 5 * time.Second

func newMonitor(cfg config, waits *haul.Waits) *monitor {
	return &monitor{cfg: cfg, waits: waits, started: time.Now()}
}

// begin starts watching a reader and a writer, until end.
func (m *monitor) begin(r haul.Reader, w haul.Writer, log zerolog.Logger, terminal bool) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	m.mu.Lock()
	m.reader, m.writer = r, w
	m.stop = func() {
		cancel()
		<-done
	}
	m.mu.Unlock()
	draw := m.cfg.Progress == "on" || m.cfg.Progress == "auto" && terminal
	go func() {
		defer close(done)
		m.watch(ctx, log, draw)
	}()
}

// standby says whether this process waits for its turn.
func (m *monitor) standby(on bool) {
	m.mu.Lock()
	m.waiter = on
	m.mu.Unlock()
}

func (m *monitor) end() {
	m.mu.Lock()
	stop := m.stop
	m.mu.Unlock()
	stop()
}

func (m *monitor) watch(ctx context.Context, log zerolog.Logger, draw bool) {
	if draw {
		m.screen.open(m.status())
		defer m.screen.close()
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	began, logged := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m.sample()
		r := m.status()
		if draw {
			m.screen.draw(r)
			continue
		}
		every := 5 * time.Second
		if time.Since(began) > time.Minute {
			every = time.Minute
		}
		if time.Since(logged) >= every {
			logProgress(log, r)
			logged = time.Now()
		}
	}
}

func (m *monitor) sample() {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.samples = append(m.samples, sample{now, m.reader.Status()})
	for now.Sub(m.samples[0].at) > rateWindow {
		m.samples = m.samples[1:]
	}
}

// status says how things are now.
func (m *monitor) status() report {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := report{
		Name: m.cfg.Name, Version: version, PID: processID(), Started: m.started.UTC(), Until: m.cfg.Until,
		Phase: haul.PhaseConnecting, Waiting: m.waits.List(),
	}
	r.Links = []haul.LinkStatus{{Source: m.cfg.Source.String(), Phase: haul.PhaseConnecting, Received: -1, Applied: -1, SourceOffset: -1, RunwaySeconds: -1}}
	r.Target = haul.WriterStatus{Target: m.cfg.Target.String()}
	r.Rate.ETASeconds = -1
	if m.waiter {
		r.Phase, r.Ready = haul.PhaseWaiting, true
		return r
	}
	if m.reader == nil {
		return r
	}
	r.Links[0], r.Target = m.reader.Status(), m.writer.Status()
	r.Phase = r.Links[0].Phase
	r.Rate = m.rate(r.Links[0])
	r.Ready = r.Target.Ready && r.Links[0].Connected && r.Links[0].SnapshotDone &&
		r.Links[0].LagSeconds <= m.cfg.ReadyMaxLag.Seconds() && len(r.Waiting) == 0
	return r
}

func (m *monitor) rate(now haul.LinkStatus) rate {
	r := rate{ETASeconds: -1}
	if len(m.samples) < 2 {
		return r
	}
	a, b := m.samples[0], m.samples[len(m.samples)-1]
	secs := b.at.Sub(a.at).Seconds()
	per := func(from, to int64) float64 { return max(float64(to-from)/secs, 0) }
	r.KeysPerSecond = per(a.l.SnapshotKeys, b.l.SnapshotKeys)
	r.BytesPerSecond = per(a.l.SnapshotBytes, b.l.SnapshotBytes)
	r.EntriesPerSecond = per(a.l.Entries, b.l.Entries)
	if from := firstApplied(m.samples); from.l.Applied >= 0 && b.at.After(from.at) {
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
	e := log.Info().Str("phase", string(r.Phase))
	for _, w := range r.Waiting {
		e.Str("waiting_for", w.Who+": "+w.Cause)
	}
	if !r.Links[0].SnapshotDone {
		e.Int64("keys", r.Links[0].SnapshotKeys).Int64("keys_total", r.Links[0].SnapshotKeysAll).
			Float64("keys_per_second", round(r.Rate.KeysPerSecond)).Int64("bytes", r.Links[0].SnapshotBytes).
			Float64("eta_seconds", round(r.Rate.ETASeconds)).Msg("snapshot")
		return
	}
	e.Int64("applied_offset", r.Links[0].Applied).Float64("entries_per_second", round(r.Rate.EntriesPerSecond)).
		Int64("lag_bytes", r.Links[0].LagBytes).Float64("lag_seconds", round(r.Links[0].LagSeconds)).Msg("stream")
}

func round(x float64) float64 { return float64(int64(x*10)) / 10 }

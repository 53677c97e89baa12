package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
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
	Links   []haul.LinkStatus `json:"links"` // one for each shard of a cluster source
	Target  haul.WriterStatus `json:"target"`

	Unsettled     int    `json:"unsettled_slots"`          // of a cluster source, that are on the move between its shards
	UnsettledList string `json:"unsettled_list,omitempty"` // these, as ranges

	Rate rate `json:"rate"`
}

// monitor watches a run: it keeps rates, logs progress and draws it on a terminal.
type monitor struct {
	cfg     config
	waits   *haul.Waits
	started time.Time
	screen  screen

	mu     sync.Mutex
	links  []*watched // by name
	slots  slotsView  // of a cluster source; nil for others
	stop   func()
	waiter bool // another process runs the haul, and this one is ready to take over
}

// watched is one link's pipeline.
type watched struct {
	name    string
	reader  haul.Reader
	writer  haul.Writer
	samples []sample
}

func newMonitor(cfg config, waits *haul.Waits) *monitor {
	return &monitor{cfg: cfg, waits: waits, started: time.Now()}
}

// begin starts to log and draw progress, until end.
func (m *monitor) begin(log zerolog.Logger, terminal bool) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	m.mu.Lock()
	m.stop = func() {
		cancel()
		<-done
	}
	m.mu.Unlock()
	draw := m.cfg.Progress == "on" || m.cfg.Progress == "auto" && terminal
	go func() {
		defer close(done)
		m.run(ctx, log, draw)
	}()
}

func (m *monitor) end() {
	m.mu.Lock()
	stop := m.stop
	m.mu.Unlock()
	stop()
}

// watch adds a link's pipeline, in the place of its last one. What it was stays in the status when it has ended.
func (m *monitor) watch(name string, r haul.Reader, w haul.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(name)
	m.links = append(m.links, &watched{name: name, reader: r, writer: w})
	slices.SortFunc(m.links, func(a, b *watched) int { return strings.Compare(a.name, b.name) })
}

// leave takes a link out of the status: its shard is gone.
func (m *monitor) leave(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(name)
}

// forget is leave for those who hold mu.
func (m *monitor) forget(name string) {
	m.links = slices.DeleteFunc(m.links, func(w *watched) bool { return w.name == name })
}

// slotsView tells which slots of a cluster source are whose.
type slotsView interface {
	unsettled() topology.SlotSet
	slotsOf(link string) int
	linkOf(slot uint16) (link string, ok bool)
}

// watchSlots has the status tell of slots, too.
func (m *monitor) watchSlots(v slotsView) {
	m.mu.Lock()
	m.slots = v
	m.mu.Unlock()
}

// standby says whether this process waits for its turn.
func (m *monitor) standby(on bool) {
	m.mu.Lock()
	m.waiter = on
	m.mu.Unlock()
}

func (m *monitor) run(ctx context.Context, log zerolog.Logger, draw bool) {
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

// status says how things are now.
func (m *monitor) status() report {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := report{
		Name: m.cfg.Name, Version: version, PID: processID(), Started: m.started.UTC(), Until: m.cfg.Until,
		Phase: haul.PhaseConnecting, Waiting: m.waits.List(), Rate: rate{ETASeconds: -1},
	}
	if m.waiter || len(m.links) == 0 {
		r.Links = []haul.LinkStatus{{Source: m.cfg.Source.String(), Phase: haul.PhaseConnecting, Received: -1, Applied: -1, SourceOffset: -1, RunwaySeconds: -1}}
		r.Target = haul.WriterStatus{Target: m.cfg.Target.String()}
		if m.waiter {
			r.Phase, r.Ready = haul.PhaseWaiting, true
		}
		return r
	}
	r.Target.Ready, r.Rate = true, rate{}
	if m.slots != nil {
		moving := m.slots.unsettled()
		r.Unsettled, r.UnsettledList = moving.Len(), moving.String()
	}
	for _, w := range m.links {
		l := w.reader.Status()
		if l.Name = w.name; m.slots != nil {
			l.Slots = m.slots.slotsOf(w.name)
		}
		r.Links = append(r.Links, l)
		r.addTarget(w)
		r.Rate.add(w.rate(l))
	}
	all := r.overall()
	r.Phase = all.Phase
	r.Ready = r.Target.Ready && all.Connected && all.SnapshotDone && all.LagSeconds <= m.cfg.ReadyMaxLag.Seconds() && len(r.Waiting) == 0
	return r
}

// addTarget adds what a link's writer says to the status of the target.
func (r *report) addTarget(w *watched) {
	s := w.writer.Status()
	for i := range s.Lanes {
		s.Lanes[i].Link = w.name
	}
	if r.Target.Counts == nil {
		s.Ready = s.Ready && r.Target.Ready
		r.Target = s
		return
	}
	r.Target.Ready = r.Target.Ready && s.Ready
	r.Target.Lanes = append(r.Target.Lanes, s.Lanes...)
	r.Target.Resends += s.Resends
	r.Target.FrozenSlots += s.FrozenSlots
	r.Target.Slots = append(r.Target.Slots, s.Slots...)
	for what, n := range s.Counts {
		r.Target.Counts[what] += n
	}
}

// order of phases in which the whole is in that of its last link.
var phaseOrder = []haul.Phase{haul.PhaseWaiting, haul.PhaseConnecting, haul.PhaseSnapshot, haul.PhaseStreaming, haul.PhaseCaughtUp}

// overall sums up all links: offsets and counts are added, and of states the least favourable counts.
func (r report) overall() haul.LinkStatus {
	all := r.Links[0]
	for _, l := range r.Links[1:] {
		if slices.Index(phaseOrder, l.Phase) < slices.Index(phaseOrder, all.Phase) {
			all.Phase = l.Phase
		}
		all.Name, all.ReplID, all.Address = "", "", ""
		all.SnapshotBytes += l.SnapshotBytes
		all.SnapshotTotal += l.SnapshotTotal
		all.SnapshotKeys += l.SnapshotKeys
		all.SnapshotKeysAll += l.SnapshotKeysAll
		all.SnapshotDone = all.SnapshotDone && l.SnapshotDone
		all.SourceOffset = sum(all.SourceOffset, l.SourceOffset)
		all.Received = sum(all.Received, l.Received)
		all.Applied = sum(all.Applied, l.Applied)
		all.Spooled += l.Spooled
		all.LagBytes += l.LagBytes
		all.LagSeconds = max(all.LagSeconds, l.LagSeconds)
		if l.RunwaySeconds >= 0 && (all.RunwaySeconds < 0 || l.RunwaySeconds < all.RunwaySeconds) {
			all.RunwaySeconds = l.RunwaySeconds
		}
		all.RunwayShort = all.RunwayShort || l.RunwayShort
		all.TransactionsCut += l.TransactionsCut
		all.Entries += l.Entries
		all.Reconnects += l.Reconnects
		all.FullSyncs += l.FullSyncs
		all.PartialSyncs += l.PartialSyncs
		all.Connected = all.Connected && l.Connected
	}
	return all
}

// sum adds offsets, of which -1 means none.
func sum(a, b int64) int64 {
	if a < 0 || b < 0 {
		return max(a, b)
	}
	return a + b
}

package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/keyhaul/keyhaul/haul"
)

// metrics turns a report into Prometheus metrics. Names and meanings stand in docs/metrics.md.
type metrics struct{ m *monitor }

// metric is a number of the report.
type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(r *report) float64
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyhaul_"+name, help, labels, nil)
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func reportMetrics() []metric {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	return []metric{
		{desc("ready", "1 if both ends are ready and the lag is below ready-max-lag."), gauge, func(r *report) float64 { return flag(r.Ready) }},
		{desc("unsettled_slots", "Slots of a cluster source that are on the move between its shards, and not settled on the target."), gauge, func(r *report) float64 { return float64(r.Unsettled) }},
		{desc("waiting", "Number of things waited for; status names them."), gauge, func(r *report) float64 { return float64(len(r.Waiting)) }},
		{desc("snapshot_eta_seconds", "Time until the snapshot is on the target; -1 if unknown."), gauge, func(r *report) float64 { return r.Rate.ETASeconds }},
		{desc("resent_entries_total", "Entries sent again because a connection was lost before they were acknowledged."), counter, func(r *report) float64 { return float64(r.Target.Resends) }},
		{desc("frozen_slots", "Slots of a target cluster that move: their entries wait or take another way."), gauge, func(r *report) float64 { return float64(r.Target.FrozenSlots) }},
	}
}

// linkMetric is a number of a link, whose name is its label: empty for the only link of a standalone source.
type linkMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(l *haul.LinkStatus) float64
}

func linkMetrics() []linkMetric {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	return []linkMetric{
		{desc("link_slots", "Slots of a cluster source that the link writes.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.Slots) }},
		{desc("source_connected", "1 while the link to the source is up.", "link"), gauge, func(l *haul.LinkStatus) float64 { return flag(l.Connected) }},
		{desc("snapshot_done", "1 once the snapshot is on the target.", "link"), gauge, func(l *haul.LinkStatus) float64 { return flag(l.SnapshotDone) }},
		{desc("snapshot_bytes", "Bytes of the snapshot that are on the target.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.SnapshotBytes) }},
		{desc("snapshot_bytes_total", "Size of the snapshot; 0 if the source does not say.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.SnapshotTotal) }},
		{desc("snapshot_keys", "Keys of the snapshot that are on the target.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.SnapshotKeys) }},
		{desc("snapshot_keys_total", "Keys that the snapshot announces.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.SnapshotKeysAll) }},
		{desc("source_offset", "Offset of the source's own stream.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.SourceOffset) }},
		{desc("received_offset", "Offset up to which the stream was received.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.Received) }},
		{desc("applied_offset", "Offset up to which the target has acknowledged the stream.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.Applied) }},
		{desc("spooled_bytes", "Bytes in the spool.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.Spooled) }},
		{desc("lag_bytes", "source_offset less applied_offset.", "link"), gauge, func(l *haul.LinkStatus) float64 { return float64(l.LagBytes) }},
		{desc("lag_seconds", "Age of the oldest byte that is not acknowledged.", "link"), gauge, func(l *haul.LinkStatus) float64 { return l.LagSeconds }},
		{desc("backlog_runway_seconds", "Time until the source's backlog is overrun if the link is lost now; -1 if unknown.", "link"), gauge, func(l *haul.LinkStatus) float64 { return l.RunwaySeconds }},
		{desc("entries_applied_total", "Entries of the stream that the target has acknowledged.", "link"), counter, func(l *haul.LinkStatus) float64 { return float64(l.Entries) }},
		{desc("source_reconnects_total", "Times that the link to the source came back.", "link"), counter, func(l *haul.LinkStatus) float64 { return float64(l.Reconnects) }},
		{desc("full_syncs_total", "Snapshots asked for.", "link"), counter, func(l *haul.LinkStatus) float64 { return float64(l.FullSyncs) }},
		{desc("partial_syncs_total", "Times that the stream was continued where it broke off.", "link"), counter, func(l *haul.LinkStatus) float64 { return float64(l.PartialSyncs) }},
	}
}

// laneMetric is a number of a lane.
type laneMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(l *haul.LaneStatus) float64
}

func laneMetrics() []laneMetric {
	gauge, counter := prometheus.GaugeValue, prometheus.CounterValue
	labels := []string{"link", "address", "lane"}
	return []laneMetric{
		{desc("lane_entries_in_flight", "Entries written and not yet acknowledged.", labels...), gauge, func(l *haul.LaneStatus) float64 { return float64(l.Entries) }},
		{desc("lane_bytes_in_flight", "Bytes of these entries.", labels...), gauge, func(l *haul.LaneStatus) float64 { return float64(l.Bytes) }},
		{desc("lane_written_bytes_total", "Bytes written to the target.", labels...), counter, func(l *haul.LaneStatus) float64 { return float64(l.Written) }},
		{desc("lane_pings_total", "PINGs sent because the lane was idle.", labels...), counter, func(l *haul.LaneStatus) float64 { return float64(l.Pings) }},
		{desc("lane_reconnects_total", "Times that the lane was connected again.", labels...), counter, func(l *haul.LaneStatus) float64 { return float64(l.Reconnects) }},
		{desc("lane_redirects_total", "Redirects and refusals because of topology.", labels...), counter, func(l *haul.LaneStatus) float64 { return float64(l.Redirects) }},
	}
}

func phaseDesc() *prometheus.Desc {
	return desc("phase", "1 for the phase that the link is in.", "phase")
}

func countDesc() *prometheus.Desc {
	return desc("entries_special_total", "Entries that were not simply applied, by what became of them.", "what")
}

// Describe implements prometheus.Collector.
func (c metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range reportMetrics() {
		ch <- m.desc
	}
	for _, m := range linkMetrics() {
		ch <- m.desc
	}
	for _, m := range laneMetrics() {
		ch <- m.desc
	}
	ch <- phaseDesc()
	ch <- countDesc()
}

// Collect implements prometheus.Collector.
func (c metrics) Collect(ch chan<- prometheus.Metric) {
	r := c.m.status()
	for _, m := range reportMetrics() {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(&r))
	}
	for i := range r.Links {
		l := &r.Links[i]
		for _, m := range linkMetrics() {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(l), l.Name)
		}
	}
	for i := range r.Target.Lanes {
		l := &r.Target.Lanes[i]
		for _, m := range laneMetrics() {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(l), l.Link, l.Address, laneNumber(i))
		}
	}
	for _, p := range []haul.Phase{haul.PhaseConnecting, haul.PhaseSnapshot, haul.PhaseStreaming, haul.PhaseCaughtUp, haul.PhaseWaiting} {
		ch <- prometheus.MustNewConstMetric(phaseDesc(), prometheus.GaugeValue, flag(r.Phase == p), string(p))
	}
	for what, n := range r.Target.Counts {
		ch <- prometheus.MustNewConstMetric(countDesc(), prometheus.CounterValue, float64(n), what)
	}
}

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
		{desc("waiting", "Number of things waited for; status names them."), gauge, func(r *report) float64 { return float64(len(r.Waiting)) }},
		{desc("source_connected", "1 while the link to the source is up."), gauge, func(r *report) float64 { return flag(r.Links[0].Connected) }},
		{desc("snapshot_done", "1 once the snapshot is on the target."), gauge, func(r *report) float64 { return flag(r.Links[0].SnapshotDone) }},
		{desc("snapshot_bytes", "Bytes of the snapshot that are on the target."), gauge, func(r *report) float64 { return float64(r.Links[0].SnapshotBytes) }},
		{desc("snapshot_bytes_total", "Size of the snapshot; 0 if the source does not say."), gauge, func(r *report) float64 { return float64(r.Links[0].SnapshotTotal) }},
		{desc("snapshot_keys", "Keys of the snapshot that are on the target."), gauge, func(r *report) float64 { return float64(r.Links[0].SnapshotKeys) }},
		{desc("snapshot_keys_total", "Keys that the snapshot announces."), gauge, func(r *report) float64 { return float64(r.Links[0].SnapshotKeysAll) }},
		{desc("snapshot_eta_seconds", "Time until the snapshot is on the target; -1 if unknown."), gauge, func(r *report) float64 { return r.Rate.ETASeconds }},
		{desc("source_offset", "Offset of the source's own stream."), gauge, func(r *report) float64 { return float64(r.Links[0].SourceOffset) }},
		{desc("received_offset", "Offset up to which the stream was received."), gauge, func(r *report) float64 { return float64(r.Links[0].Received) }},
		{desc("applied_offset", "Offset up to which the target has acknowledged the stream."), gauge, func(r *report) float64 { return float64(r.Links[0].Applied) }},
		{desc("spooled_bytes", "Bytes in the spool."), gauge, func(r *report) float64 { return float64(r.Links[0].Spooled) }},
		{desc("lag_bytes", "source_offset less applied_offset."), gauge, func(r *report) float64 { return float64(r.Links[0].LagBytes) }},
		{desc("lag_seconds", "Age of the oldest byte that is not acknowledged."), gauge, func(r *report) float64 { return r.Links[0].LagSeconds }},
		{desc("backlog_runway_seconds", "Time until the source's backlog is overrun if the link is lost now; -1 if unknown."), gauge, func(r *report) float64 { return r.Links[0].RunwaySeconds }},
		{desc("entries_applied_total", "Entries of the stream that the target has acknowledged."), counter, func(r *report) float64 { return float64(r.Links[0].Entries) }},
		{desc("source_reconnects_total", "Times that the link to the source came back."), counter, func(r *report) float64 { return float64(r.Links[0].Reconnects) }},
		{desc("full_syncs_total", "Snapshots asked for."), counter, func(r *report) float64 { return float64(r.Links[0].FullSyncs) }},
		{desc("partial_syncs_total", "Times that the stream was continued where it broke off."), counter, func(r *report) float64 { return float64(r.Links[0].PartialSyncs) }},
		{desc("resent_entries_total", "Entries sent again because a connection was lost before they were acknowledged."), counter, func(r *report) float64 { return float64(r.Target.Resends) }},
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
	labels := []string{"address", "lane"}
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
	for i := range r.Target.Lanes {
		l := &r.Target.Lanes[i]
		for _, m := range laneMetrics() {
			ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(l), l.Address, laneNumber(i))
		}
	}
	for _, p := range []haul.Phase{haul.PhaseConnecting, haul.PhaseSnapshot, haul.PhaseStreaming, haul.PhaseCaughtUp, haul.PhaseWaiting} {
		ch <- prometheus.MustNewConstMetric(phaseDesc(), prometheus.GaugeValue, flag(r.Phase == p), string(p))
	}
	for what, n := range r.Target.Counts {
		ch <- prometheus.MustNewConstMetric(countDesc(), prometheus.CounterValue, float64(n), what)
	}
}

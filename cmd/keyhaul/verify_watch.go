package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/verify"
)

// watch compares until it is stopped, and tells what it finds at --http.
func (a *app) watch(ctx context.Context, v *verify.Verifier) error {
	a.state.forgetHTTPAddr() // of a process that was killed
	defer a.state.forgetHTTPAddr()
	server, err := a.serve(ctx, watchHandler(v))
	if err != nil {
		return err
	}
	defer server.stop()
	err = v.Watch(ctx)
	if errors.Is(err, haul.ErrInterrupted) {
		a.log.Info().Str("differences", kindsText(v.Standing().ByKind, 0)).Msg("stopped; this is what the last round has found")
		return nil
	}
	return err
}

// watchStatus is what a watch answers at /api/v1/status.
type watchStatus struct {
	Rounds      int64                 `json:"rounds"`
	Keys        int64                 `json:"keys_verified"`
	Round       int64                 `json:"keys_of_round"`
	Total       int64                 `json:"keys_of_round_total"`
	Oldest      float64               `json:"oldest_seconds"`
	Suspects    int64                 `json:"looked_at_again"`
	PauseMS     float64               `json:"pause_ms"`
	Differences map[verify.Kind]int64 `json:"differences"`
	Keylist     []reportLine          `json:"keys"`
}

func watchStatusOf(v *verify.Verifier) watchStatus {
	s := v.Standing()
	status := watchStatus{
		Rounds: s.Rounds, Keys: s.Looked, Round: s.Keys, Total: s.Total, Oldest: s.Oldest.Seconds(), Suspects: s.Suspects,
		PauseMS: float64(s.Paused.Milliseconds()), Differences: s.ByKind,
	}
	if s.Rounds == 0 {
		status.Oldest = -1
	}
	for _, d := range s.Found[:min(len(s.Found), shownOnWatch)] {
		status.Keylist = append(status.Keylist, lineOf(d))
	}
	return status
}

// shownOnWatch is how many keys the status of a watch names.
const shownOnWatch = 100

func watchHandler(v *verify.Verifier) http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(watchMetrics{v}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		_ = e.Encode(watchStatusOf(v))
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	return mux
}

// watchMetrics turns what a watch knows into Prometheus metrics.
type watchMetrics struct{ v *verify.Verifier }

func watchDescs() (keys, oldest, differences *prometheus.Desc) {
	return desc("verify_keys_total", "Keys of the source that were compared."),
		desc("verify_oldest_seconds", "No key was compared longer ago; -1 before the first round is complete."),
		desc("verify_differences", "Keys that the last round has found to differ, by kind.", "kind")
}

// Describe implements prometheus.Collector.
func (watchMetrics) Describe(ch chan<- *prometheus.Desc) {
	keys, oldest, differences := watchDescs()
	ch <- keys
	ch <- oldest
	ch <- differences
}

// Collect implements prometheus.Collector.
func (m watchMetrics) Collect(ch chan<- prometheus.Metric) {
	keys, oldest, differences := watchDescs()
	s := watchStatusOf(m.v)
	ch <- prometheus.MustNewConstMetric(keys, prometheus.CounterValue, float64(s.Keys))
	ch <- prometheus.MustNewConstMetric(oldest, prometheus.GaugeValue, s.Oldest)
	for _, kind := range verify.Kinds {
		ch <- prometheus.MustNewConstMetric(differences, prometheus.GaugeValue, float64(s.Differences[kind]), string(kind))
	}
}

package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyhaul/keyhaul/haul"
)

// summary is the last word of a run, for scripts.
type summary struct {
	report
	Ended   time.Time `json:"ended"`
	Seconds float64   `json:"seconds"`
	Exit    haul.Exit `json:"exit"`
	Error   string    `json:"error,omitempty"`
	Next    string    `json:"next,omitempty"`
}

// maySummarize refuses a --summary-file that could not be written when the run has ended.
func (c config) maySummarize() error {
	if c.SummaryFile == "" || c.DryRun {
		return nil
	}
	err := unix.Access(filepath.Dir(c.SummaryFile), unix.W_OK|unix.X_OK)
	if info, statErr := os.Stat(c.SummaryFile); statErr == nil {
		if err = unix.Access(c.SummaryFile, unix.W_OK); info.IsDir() {
			err = unix.EISDIR
		}
	}
	if err != nil {
		return haul.Errorf(haul.ExitUsage, "name a file in a folder that keyhaul may write to", "summary file %s: %w", c.SummaryFile, err)
	}
	return nil
}

// summarize logs how the run ended and writes --summary-file.
func (a *app) summarize(started time.Time, err error) error {
	s := summary{report: a.monitor.status(), Ended: time.Now().UTC(), Seconds: time.Since(started).Seconds(), Exit: haul.ExitDone}
	if err != nil {
		s.Exit, s.Error = exitCode(err), err.Error()
		var e *haul.Error
		if errors.As(err, &e) {
			s.Next = e.Remedy
		}
	}
	if a.cfg.DryRun {
		return nil
	}
	all := s.overall()
	a.log.Info().Int("exit", int(s.Exit)).Int64("snapshot_keys", all.SnapshotKeys).Int64("entries", all.Entries).
		Int64("applied_offset", all.Applied).Int64("resent", s.Target.Resends).Interface("counts", s.Target.Counts).
		Float64("seconds", round(s.Seconds)).Msg("ended")
	if a.cfg.SummaryFile == "" {
		return nil
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.cfg.SummaryFile, append(b, '\n'), 0o600); err != nil {
		return haul.Errorf(haul.ExitFailed, "the log says how the run ended; make room, or name another file for the next run", "summary file: %w", err)
	}
	return nil
}

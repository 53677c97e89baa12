package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/keyhaul/keyhaul/haul"
)

func processID() int { return os.Getpid() }

// screen draws a bar for the snapshot and then a live line for the stream, below the log.
type screen struct {
	mu       sync.Mutex
	progress *mpb.Progress
	snapshot *mpb.Bar
	stream   *mpb.Bar
	last     report
}

// Write passes log lines, above the bars while there are any.
func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	progress := s.progress
	s.mu.Unlock()
	if progress != nil {
		if n, err := progress.Write(p); err == nil {
			return n, nil
		}
	} // without bars, or when they are being taken away
	return os.Stderr.Write(p)
}

func (m *monitor) logWriter(terminal bool) io.Writer {
	if terminal {
		return &m.screen
	}
	return os.Stderr
}

func (s *screen) open(r report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = r
	s.progress = mpb.New(mpb.WithOutput(os.Stderr), mpb.WithWidth(40), mpb.WithRefreshRate(200*time.Millisecond))
	s.snapshot = s.progress.AddBar(0, // its total is not known yet
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return s.text(snapshotHead) })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return s.text(snapshotTail) })))
}

func (s *screen) text(f func(report) string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f(s.last)
}

// draw shows r.
func (s *screen) draw(r report) {
	s.mu.Lock()
	s.last = r
	all := r.overall()
	total, current := all.SnapshotKeysAll, all.SnapshotKeys
	if all.SnapshotTotal > 0 {
		total, current = all.SnapshotTotal, all.SnapshotBytes
	}
	done := all.SnapshotDone
	addStream := done && s.stream == nil
	s.mu.Unlock()
	if !done {
		s.snapshot.SetTotal(max(total, current+1), false)
		s.snapshot.SetCurrent(current)
		return
	}
	s.snapshot.SetTotal(-1, true)
	if addStream {
		bar := s.progress.MustAdd(1, nil, mpb.PrependDecorators(
			decor.Any(func(decor.Statistics) string { return s.text(streamLine) })))
		s.mu.Lock()
		s.stream = bar
		s.mu.Unlock()
	}
}

func (s *screen) close() {
	s.mu.Lock()
	progress, snapshot, stream := s.progress, s.snapshot, s.stream
	s.mu.Unlock()
	snapshot.Abort(false)
	if stream != nil {
		stream.Abort(false)
	}
	progress.Wait()
	s.mu.Lock()
	s.progress = nil
	s.mu.Unlock()
}

func snapshotHead(r report) string {
	all := r.overall()
	if all.SnapshotKeysAll == 0 {
		return fmt.Sprintf("snapshot %d keys ", all.SnapshotKeys)
	}
	return fmt.Sprintf("snapshot %d of %d keys ", all.SnapshotKeys, max(all.SnapshotKeysAll, all.SnapshotKeys))
}

func snapshotTail(r report) string {
	all := r.overall()
	if all.SnapshotDone {
		return fmt.Sprintf(" %s, done", size(float64(all.SnapshotBytes)))
	}
	parts := []string{
		size(float64(all.SnapshotBytes)),
		size(r.Rate.BytesPerSecond) + "/s",
		fmt.Sprintf("%.0f keys/s", r.Rate.KeysPerSecond),
	}
	if r.Rate.ETASeconds >= 0 {
		parts = append(parts, "ETA "+(time.Duration(r.Rate.ETASeconds)*time.Second).String())
	}
	return " " + strings.Join(parts, ", ") + waiting(r)
}

func streamLine(r report) string {
	all := r.overall()
	return fmt.Sprintf("stream %.0f commands/s, %s/s, lag %s, %.1f s%s", r.Rate.EntriesPerSecond,
		size(r.Rate.StreamPerSecond), size(float64(all.LagBytes)), all.LagSeconds, waiting(r))
}

func waiting(r report) string {
	if len(r.Waiting) == 0 {
		if r.Phase == haul.PhaseConnecting {
			return ", connecting"
		}
		return ""
	}
	w := r.Waiting[0]
	return fmt.Sprintf(", waiting for %s (%v): %.80s", w.Who, time.Since(w.Since).Round(time.Second), w.Cause)
}

// size prints bytes for people.
func size(n float64) string {
	units := []string{"B", "KB", "MB", "GB", "TB"}
	i := 0
	for n >= 1000 && i < len(units)-1 {
		n /= 1000
		i++
	}
	if i == 0 {
		return fmt.Sprintf("%.0f %s", n, units[i])
	}
	return fmt.Sprintf("%.1f %s", n, units[i])
}

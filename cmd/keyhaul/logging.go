package main

import (
	"io"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// newLogger writes to w, in UTC: for people on a terminal, as JSON otherwise.
func newLogger(w io.Writer, terminal bool, level, format string) (zerolog.Logger, error) {
	l, err := zerolog.ParseLevel(level)
	if err != nil {
		return zerolog.Logger{}, err
	}
	if format == formatConsole || format == formatAuto && terminal {
		w = zerolog.ConsoleWriter{
			Out: w, NoColor: !terminal, TimeFormat: time.RFC3339, TimeLocation: time.UTC,
		}
	}
	return zerolog.New(w).Level(l).Hook(utcTime{}, &collapse{seen: map[string]*repeated{}}), nil
}

// utcTime stamps events.
type utcTime struct{}

func (utcTime) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
}

// collapse lets a repeated warning through once a minute, with the number of those that were held back.
type collapse struct {
	mu   sync.Mutex
	seen map[string]*repeated
}

type repeated struct {
	last time.Time
	held int
}

func (c *collapse) Run(e *zerolog.Event, level zerolog.Level, msg string) {
	if level < zerolog.WarnLevel {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.seen[msg]
	if r == nil {
		r = &repeated{}
		c.seen[msg] = r
	}
	now := time.Now()
	if now.Sub(r.last) < time.Minute {
		r.held++
		e.Discard()
		return
	}
	if r.held > 0 {
		e.Int("repeated", r.held)
	}
	r.last, r.held = now, 0
}

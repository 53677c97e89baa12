package verify

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/keyhaul/keyhaul/haul"
)

const (
	stateVersion = 1
	stateFile    = "progress.json"
	foundFile    = "differences.jsonl"
	saveEvery    = time.Second
)

// state is what an interrupted run leaves for the next: how far each part of the ends was read.
type state struct {
	Version int          `json:"version"`
	Of      string       `json:"of"` // what was compared, and how
	Salt    uint64       `json:"salt"`
	Keys    int64        `json:"keys"`
	Target  int64        `json:"target_keys"`
	Units   []*savedUnit `json:"units"`

	dir   string
	found *os.File
	mu    sync.Mutex // guards Units
}

// savedUnit is how far a unit is. A cursor means something to the process only that has given it.
type savedUnit struct {
	Side   string `json:"side"`
	DB     int32  `json:"db"`
	RunID  string `json:"run_id"`
	Cursor string `json:"cursor"`
	Done   bool   `json:"done"`

	mu sync.Mutex // guards the fields above, but for Side and DB
}

func (s *savedUnit) at(cursor string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Cursor, s.Done = cursor, cursor == ""
}

// cursor is where reading begins; empty if it is done.
func (s *savedUnit) cursor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.Done:
		return ""
	case s.Cursor == "":
		return "0"
	}
	return s.Cursor
}

// continues returns the cursor, or 0 if another process has given it.
func (s *savedUnit) continues(runID, cursor string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.RunID != runID {
		return "0"
	}
	return cursor
}

func (s *savedUnit) begin(runID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.RunID, s.Cursor = runID, "0"
}

func (s *savedUnit) copy() *savedUnit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &savedUnit{Side: s.Side, DB: s.DB, RunID: s.RunID, Cursor: s.Cursor, Done: s.Done}
}

// unit returns where a part of an end was left; a part that is not known yet begins.
func (s *state) unit(side string, db int32, runID string) *savedUnit {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.Units {
		if u.Side == side && u.DB == db && u.RunID == runID && runID != "" {
			return u
		}
	}
	u := &savedUnit{Side: side, DB: db, RunID: runID}
	s.Units = append(s.Units, u)
	return u
}

// openState reads what an interrupted run has left, if it has compared the same in the same way.
func openState(dir, of string) (*state, []Difference, error) {
	s := &state{Version: stateVersion, Of: of, Salt: rand.Uint64(), dir: dir}
	if dir == "" {
		return s, nil, nil
	}
	b, err := os.ReadFile(filepath.Join(dir, stateFile))
	last := state{}
	var found []Difference
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, nil, fmt.Errorf("state directory: %w", err)
	case json.Unmarshal(b, &last) == nil && last.Version == stateVersion && last.Of == of:
		s.Salt, s.Keys, s.Target, s.Units = last.Salt, last.Keys, last.Target, last.Units
		found = readFound(filepath.Join(dir, foundFile))
	}
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if s.Units == nil {
		flags |= os.O_TRUNC
	}
	if s.found, err = os.OpenFile(filepath.Join(dir, foundFile), flags, 0o600); err != nil {
		return nil, nil, fmt.Errorf("state directory: %w", err)
	}
	return s, found, nil
}

// savedDifference is a line of the file of differences.
type savedDifference struct {
	DB   int32  `json:"db"`
	Key  []byte `json:"key"`
	Kind Kind   `json:"kind"`
}

func readFound(path string) (found []Difference) {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close() //nolint:errcheck // it is read only
	lines := bufio.NewReader(f)
	for {
		line, err := lines.ReadBytes('\n')
		var d savedDifference
		if err != nil || json.Unmarshal(line, &d) != nil {
			return found
		}
		found = append(found, Difference{Key: haul.KeyName{DB: d.DB, Name: string(d.Key)}, Kind: d.Kind})
	}
}

// note keeps a difference.
func (s *state) note(d Difference) error {
	if s.found == nil {
		return nil
	}
	line, err := json.Marshal(savedDifference{d.Key.DB, []byte(d.Key.Name), d.Kind})
	if err == nil {
		_, err = s.found.Write(append(line, '\n'))
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// save writes how far the run is.
func (s *state) save() error {
	if s.dir == "" {
		return nil
	}
	s.mu.Lock()
	now := state{Version: s.Version, Of: s.Of, Salt: s.Salt, Keys: s.Keys, Target: s.Target}
	for _, u := range s.Units {
		now.Units = append(now.Units, u.copy())
	}
	s.mu.Unlock()
	b, err := json.Marshal(&now)
	if err != nil {
		return err
	}
	path := filepath.Join(s.dir, stateFile)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// keepSaving saves every now and then.
func (v *Verifier) keepSaving(ctx context.Context) error {
	ticker := time.NewTicker(saveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		if err := v.save(); err != nil {
			return err
		}
	}
}

func (v *Verifier) save() error {
	v.state.mu.Lock()
	v.state.Keys, v.state.Target = v.count.source.Load(), v.count.target.Load()
	v.state.mu.Unlock()
	return v.state.save()
}

// forget removes what a later run would go on from.
func (s *state) forget() {
	if s.dir == "" {
		return
	}
	_ = os.Remove(filepath.Join(s.dir, stateFile))
	_ = os.Remove(filepath.Join(s.dir, foundFile))
}

func (s *state) close() {
	if s.found != nil {
		_ = s.found.Close()
	}
}

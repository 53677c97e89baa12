package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/verify"
	"github.com/keyhaul/keyhaul/writer"
)

// repairer repairs keys for other commands than sync: it has the keyhaul do so that runs the haul on this machine, or, if
// the sync is stopped, goes on with it in this process until Close: what is only behind comes by itself then. It implements verify.Repairer, for one
// goroutine.
type repairer struct {
	log    zerolog.Logger
	remote *repairClient // nil if no keyhaul of this name runs here
	local  *stoppedSync  // nil if one does
}

var _ verify.Repairer = (*repairer)(nil)

// newRepairer finds out who can repair keys of the haul that cfg names.
func newRepairer(ctx context.Context, cfg config, log zerolog.Logger) (*repairer, error) {
	r := &repairer{log: log}
	var err error
	if r.remote, err = findRepairClient(ctx, cfg); err == nil && r.remote == nil {
		r.local, err = beginStopped(ctx, cfg)
	}
	return r, err
}

// Repair implements verify.Repairer. Keys that are refused for what they are go to the log, and stay as they are: the next
// look at them tells.
func (r *repairer) Repair(ctx context.Context, keys []haul.KeyName, prune bool) (written, pruned int, err error) {
	var once repairOnce
	if r.remote != nil {
		once = r.remote.repair
	} else {
		once = r.local.repair
	}
	written, pruned, refused, err := repairAll(ctx, once, keys, prune)
	for why, n := range refused {
		r.log.Warn().Int("keys", n).Str("cause", why).Msg("keys were not repaired")
	}
	return written, pruned, err
}

// Close ends what was begun to repair keys.
func (r *repairer) Close() error {
	if r.local == nil {
		return nil
	}
	return r.local.close()
}

// repairClient has a running keyhaul repair keys.
type repairClient struct{ addr, token string }

// findRepairClient returns one for the keyhaul that runs under the same name and state directory; nil if none does.
func findRepairClient(ctx context.Context, cfg config) (*repairClient, error) {
	if cfg.StateDir == "" {
		return nil, nil
	}
	dir := filepath.Join(cfg.StateDir, cfg.Name)
	addr, err := os.ReadFile(filepath.Join(dir, httpAddrFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var token []byte
	if err == nil {
		token, err = os.ReadFile(filepath.Join(dir, httpTokenFile))
	}
	c := &repairClient{strings.TrimSpace(string(addr)), strings.TrimSpace(string(token))}
	if len(addr) > 0 && !c.answers(ctx) { // its process was killed
		return nil, nil
	}
	if err != nil {
		return nil, haul.Errorf(haul.ExitUnreachable, "run this as the user who runs the sync, and with a sync of this version",
			"the keyhaul that runs this haul cannot be asked to repair keys: %w", err)
	}
	return c, nil
}

// answers reports whether a keyhaul is there.
func (c *repairClient) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+c.addr+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// repair is a repairOnce.
func (c *repairClient) repair(ctx context.Context, keys []haul.KeyName, prune bool) (repairAnswer, error) {
	q := repairRequest{Prune: prune, Keys: make([]repairKey, len(keys))}
	for i, k := range keys {
		q.Keys[i] = newRepairKey(k)
	}
	body, err := json.Marshal(q)
	if err != nil {
		return repairAnswer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*repairLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.addr+repairPath, bytes.NewReader(body))
	if err != nil {
		return repairAnswer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return repairAnswer{}, haul.Errorf(haul.ExitUnreachable, "look at the log of the sync, and run this again", "the keyhaul at %s does not repair keys any more: %w", c.addr, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	var f repairFailure
	text, err := io.ReadAll(io.LimitReader(resp.Body, repairBody))
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	switch {
	case err != nil:
		return repairAnswer{}, haul.Errorf(haul.ExitFailed, "run the same version as the sync", "the keyhaul at %s answers %s to a request to repair keys", c.addr, resp.Status)
	case resp.StatusCode == http.StatusOK:
		return f.repairAnswer, nil
	case f.Again:
		return f.repairAnswer, fmt.Errorf("%w: %s", writer.ErrRepairAgain, strings.TrimPrefix(f.Error, writer.ErrRepairAgain.Error()+": "))
	}
	return f.repairAnswer, haul.Errorf(haul.ExitFailed, f.Remedy, "the keyhaul at %s: %s", c.addr, f.Error)
}

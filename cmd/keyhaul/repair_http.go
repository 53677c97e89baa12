package main

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/writer"
)

// POST /api/v1/repair changes the target, so whoever asks has to know the token of this process, which is in a file that
// only this user can read.

const (
	repairPath  = "/api/v1/repair"
	repairBody  = 8 << 20 // bytes of a request
	repairLimit = time.Minute
)

type repairRequest struct {
	Keys  []repairKey `json:"keys"`
	Prune bool        `json:"prune"`
}

// repairKey names a key of the source. Base64 is for names that are not UTF-8.
type repairKey struct {
	DB     int32   `json:"db"`
	Key    *string `json:"key,omitempty"`
	Base64 []byte  `json:"key_base64,omitempty"`
}

func newRepairKey(k haul.KeyName) repairKey {
	if utf8.ValidString(k.Name) {
		return repairKey{DB: k.DB, Key: &k.Name}
	}
	return repairKey{DB: k.DB, Base64: []byte(k.Name)}
}

func (k repairKey) name() (haul.KeyName, error) {
	switch {
	case k.DB < 0:
		return haul.KeyName{}, fmt.Errorf("there is no database %d", k.DB)
	case k.Key != nil && k.Base64 == nil:
		return haul.KeyName{DB: k.DB, Name: *k.Key}, nil
	case k.Key == nil && k.Base64 != nil:
		return haul.KeyName{DB: k.DB, Name: string(k.Base64)}, nil
	}
	return haul.KeyName{}, errors.New("a key has either key or key_base64")
}

// repairFailure is the body of an answer that is no success. What was repaired is counted all the same.
type repairFailure struct {
	repairAnswer
	Error  string `json:"error"`
	Remedy string `json:"remedy,omitempty"`
	Again  bool   `json:"again"` // a later try may succeed
}

// makeToken makes the token of this process, and keeps it where those who may ask for repairs find it.
func (s stateDir) makeToken() (string, error) {
	if s.path == "" {
		return "", nil
	}
	token := rand.Text()
	s.forgetToken() // of a process that was killed
	f, err := os.OpenFile(s.file(httpTokenFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteString(token + "\n")
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return "", fmt.Errorf("state directory: %w", err)
	}
	return token, nil
}

// forgetToken ends what makeToken has said.
func (s stateDir) forgetToken() {
	if s.path != "" {
		_ = os.Remove(s.file(httpTokenFile))
	}
}

// authorized reports whether a request has the token.
func authorized(r *http.Request, token string) bool {
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return ok && token != "" && subtle.ConstantTimeCompare([]byte(got), []byte(token)) == 1
}

// serveRepair answers POST /api/v1/repair when the target has acknowledged what was written.
func (m *monitor) serveRepair(token string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var none repairAnswer
		if !authorized(r, token) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			answer(w, http.StatusUnauthorized, repairFailure{none, "the token of this process is needed", "send the content of http.token in the haul's state directory as Authorization: Bearer", false})
			return
		}
		keys, prune, err := readRepair(http.MaxBytesReader(w, r.Body, repairBody))
		if err != nil {
			code := http.StatusBadRequest
			if errors.As(err, new(*http.MaxBytesError)) {
				code = http.StatusRequestEntityTooLarge
			}
			answer(w, code, repairFailure{none, err.Error(), "ask for fewer keys at once", false})
			return
		}
		ctx, cancel := context.WithTimeoutCause(r.Context(), repairLimit,
			fmt.Errorf("%w: the target has not acknowledged it within %v", writer.ErrRepairAgain, repairLimit))
		defer cancel()
		done, err := m.repair(ctx, keys, prune)
		if err == nil {
			answer(w, http.StatusOK, done)
			return
		}
		f := repairFailure{repairAnswer: done, Error: err.Error(), Again: errors.Is(err, writer.ErrRepairAgain)}
		if e := (*haul.Error)(nil); errors.As(err, &e) {
			f.Remedy = e.Remedy
		}
		code := http.StatusInternalServerError
		if f.Again {
			code = http.StatusServiceUnavailable
		}
		answer(w, code, f)
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// readRepair reads the body of a request.
func readRepair(body interface{ Read(p []byte) (int, error) }) ([]haul.KeyName, bool, error) {
	var q repairRequest
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(&q); err != nil {
		return nil, false, fmt.Errorf("the body is no request to repair keys: %w", err)
	}
	keys := make([]haul.KeyName, len(q.Keys))
	for i, k := range q.Keys {
		var err error
		if keys[i], err = k.name(); err != nil {
			return nil, false, fmt.Errorf("key %d: %w", i, err)
		}
	}
	return keys, q.Prune, nil
}

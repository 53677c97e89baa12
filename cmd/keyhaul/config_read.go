package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/topology"
)

// The methods below read one setting each, and note a mistake if they cannot.

func (r *resolver) refuse(key, what string) {
	if !r.spoiled[key] {
		r.mistake(key, r.values[key].origin, what)
	}
}

func (r *resolver) bool(key string) bool {
	switch strings.ToLower(strings.TrimSpace(r.values[key].text())) {
	case "true", "yes", "on", "1":
		return true
	case "false", "no", "off", "0":
		return false
	}
	r.refuse(key, fmt.Sprintf("%q is neither true nor false", r.values[key].text()))
	return false
}

func (r *resolver) int(key string, least, most int) int {
	text := strings.TrimSpace(r.values[key].text())
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		r.refuse(key, fmt.Sprintf("%q is no number between %d and %d", text, least, most))
	}
	return n
}

func (r *resolver) duration(key string) time.Duration {
	text := strings.TrimSpace(r.values[key].text())
	d, err := time.ParseDuration(text)
	if _, numeric := strconv.ParseFloat(text, 64); err != nil && numeric == nil {
		r.refuse(key, fmt.Sprintf("%q has no unit: write %ss for seconds, or ms, m, h", text, text))
	} else if err != nil || d < 0 {
		r.refuse(key, fmt.Sprintf("%q is no time: write it like 500ms, 8s, 1m30s or 2h", text))
	}
	return d
}

// positive is a duration for which 0 makes no sense.
func (r *resolver) positive(key string) time.Duration {
	d := r.duration(key)
	if d == 0 {
		r.refuse(key, "must be more than 0")
	}
	return d
}

// bytes reads a size; 0 stays 0, and anything else is at least least.
func (r *resolver) bytes(key string, least int64) int64 {
	text := r.values[key].text()
	n, err := parseBytes(text)
	if err != nil {
		r.refuse(key, err.Error())
	} else if n != 0 && n < least {
		r.refuse(key, fmt.Sprintf("%q is too small: give at least %d bytes", text, least))
	}
	return n
}

func (r *resolver) enum(key string) string {
	text := strings.ToLower(strings.TrimSpace(r.values[key].text()))
	i := slices.IndexFunc(settings(), func(s setting) bool { return s.key == key })
	words := settings()[i].words
	if !slices.Contains(words, text) {
		shown := slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" })
		r.refuse(key, fmt.Sprintf("%q is none of %s", text, strings.Join(shown, ", ")))
	}
	return text
}

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (r *resolver) name(key string) string {
	text := r.values[key].text()
	if !nameForm.MatchString(text) {
		r.refuse(key, fmt.Sprintf("%q is no name: use up to 64 letters, digits, - _ . and begin with a letter or digit", text))
	}
	return text
}

func (r *resolver) listen(key string) string {
	text := strings.TrimSpace(r.values[key].text())
	if text == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(text)
	if n, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || n > math.MaxUint16 {
		r.refuse(key, fmt.Sprintf("%q is no address: write host:port, such as 127.0.0.1:9420, or nothing for none", text))
	}
	return text
}

// stateDir follows systemd (STATE_DIRECTORY, whose first folder counts) and the XDG base directory specification,
// by which a relative XDG_STATE_HOME is ignored.
func (r *resolver) stateDir(key string) string {
	if r.explicit(key) {
		dir := r.values[key].text()
		if dir == "" {
			r.refuse(key, "is empty: name a folder, or none for memory only")
		}
		if dir == "none" {
			return ""
		}
		return dir
	}
	if dir, _, _ := strings.Cut(r.env["STATE_DIRECTORY"], ":"); dir != "" {
		return dir
	}
	if dir := r.env["XDG_STATE_HOME"]; filepath.IsAbs(dir) {
		return filepath.Join(dir, "keyhaul")
	}
	if home := r.env["HOME"]; home != "" {
		return filepath.Join(home, ".local", "state", "keyhaul")
	}
	r.refuse(key, "has no default, because HOME is not set: name a folder, or none for memory only")
	return ""
}

func (r *resolver) addressMap(key string) map[string]string {
	if len(r.values[key].texts) == 0 {
		return nil
	}
	m := map[string]string{}
	for _, pair := range r.values[key].texts {
		from, to, err := addressPair(strings.TrimSpace(pair))
		if err != nil {
			r.refuse(key, fmt.Sprintf("%q: %v", pair, err))
			continue
		}
		m[from] = to
	}
	return m
}

// addressPair reads announced=reachable: both with a port, or both without.
func addressPair(pair string) (from, to string, err error) {
	from, to, found := strings.Cut(pair, "=")
	from, to = strings.TrimSpace(from), strings.TrimSpace(to)
	if !found || from == "" || to == "" {
		return "", "", errors.New("write announced=reachable, such as 10.0.0.1:6379=gate.example:7001")
	}
	if hasPort(from) != hasPort(to) {
		return "", "", errors.New("give a port on both sides or on neither")
	}
	for _, side := range []*string{&from, &to} {
		port := hasPort(*side)
		if !port && net.ParseIP(*side) != nil {
			continue // an IPv6 address needs no brackets where there is no port
		}
		addr, err := topology.NormalizeAddr(*side)
		if err != nil {
			return "", "", err
		}
		if *side = addr; !port {
			*side, _, _ = net.SplitHostPort(addr)
		}
	}
	return from, to, nil
}

func hasPort(addr string) bool {
	_, _, err := net.SplitHostPort(addr)
	return err == nil
}

// units of sizes: by IEC the ones with an i are powers of 1024, by SI the others of 1000.
func unit(name string) (int64, bool) {
	factor := int64(1000)
	name = strings.TrimSuffix(strings.ToLower(name), "b")
	if short, ok := strings.CutSuffix(name, "i"); ok {
		name, factor = short, 1024
	} else if name == "" {
		return 1, true
	}
	n := int64(1)
	for _, letter := range "kmgtp" {
		n *= factor
		if name == string(letter) {
			return n, true
		}
	}
	return 0, false
}

// parseBytes reads a size such as 64MiB, 1GB, 1.5g, 512k or 1048576.
func parseBytes(text string) (int64, error) {
	text = strings.TrimSpace(text)
	end := strings.IndexFunc(text, func(c rune) bool { return (c < '0' || c > '9') && c != '.' })
	if end < 0 {
		end = len(text)
	}
	bad := fmt.Errorf("%q is no size: write it like 64MiB, 1GB, 512k or 1048576", text)
	factor, ok := unit(strings.TrimSpace(text[end:]))
	if !ok {
		return 0, bad
	}
	if n, err := strconv.ParseInt(text[:end], 10, 64); err == nil {
		if n > math.MaxInt64/factor {
			return 0, fmt.Errorf("%q is too large", text)
		}
		return n * factor, nil
	}
	f, err := strconv.ParseFloat(text[:end], 64)
	if err != nil {
		return 0, bad
	}
	if f *= float64(factor); f >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", text)
	}
	return int64(f), nil
}

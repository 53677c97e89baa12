package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/verify"
)

// verifyMemory is what the comparison may use before Go collects more eagerly.
const verifyMemory = 48 << 20

func limitVerifyMemory() {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(verifyMemory)
	}
}

// reportLine is a key in the report. It has key or key_base64.
type reportLine struct {
	DB     int32       `json:"db"`
	Key    *string     `json:"key,omitempty"`
	Base64 []byte      `json:"key_base64,omitempty"`
	Kind   verify.Kind `json:"kind"`
	Source string      `json:"source,omitempty"`
	Target string      `json:"target,omitempty"`
}

func lineOf(d verify.Difference) reportLine {
	line := reportLine{DB: d.Key.DB, Kind: d.Kind, Source: d.Source, Target: d.Target}
	if utf8.ValidString(d.Key.Name) {
		line.Key = &d.Key.Name
	} else {
		line.Base64 = []byte(d.Key.Name)
	}
	return line
}

// writeReport writes what remains to the file of --report.
func (a *app) writeReport(r verify.Result) (err error) {
	if a.cfg.Verify.Report == "" {
		return nil
	}
	f, err := os.OpenFile(a.cfg.Verify.Report, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return haul.Errorf(haul.ExitUsage, "choose another --report", "report: %w", err)
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	w := bufio.NewWriter(f)
	lines := json.NewEncoder(w)
	for _, d := range r.Remaining {
		if err := lines.Encode(lineOf(d)); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	return w.Flush()
}

// verifySummary is what --format json prints.
type verifySummary struct {
	Equal       bool                  `json:"equal"`
	Keys        int64                 `json:"keys"`
	TargetKeys  int64                 `json:"target_keys"`
	Passes      int                   `json:"passes"`
	Seconds     float64               `json:"seconds"`
	KeysPerSec  float64               `json:"keys_per_second"`
	Differences map[verify.Kind]int64 `json:"differences"`
	Unlisted    int64                 `json:"unlisted"`
	Positions   bool                  `json:"positions_known"`
	Written     int                   `json:"written"`
	Pruned      int                   `json:"pruned"`
}

// shownKeys is how many keys a summary for people names.
const shownKeys = 20

// summarizeVerify prints what was found.
func (a *app) summarizeVerify(out io.Writer, r verify.Result) error {
	rate := float64(r.Keys) / r.Took.Seconds()
	if a.cfg.Verify.Format == formatJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(verifySummary{
			r.Equal(), r.Keys, r.TargetKeys, r.Passes, r.Took.Seconds(), rate, r.ByKind, r.Uncounted, !r.NoPositions, r.Written, r.Pruned,
		})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d keys of the source compared, %d of the target looked up, in %v (%.0f keys/s), %d passes\n",
		r.Keys, r.TargetKeys, r.Took.Round(10*time.Millisecond), rate, r.Passes)
	if r.NoPositions {
		b.WriteString("no haul of this name is known on the target: what differs has done so for --settle\n")
	}
	if r.Written+r.Pruned > 0 {
		fmt.Fprintf(&b, "repaired: %d keys written, %d removed\n", r.Written, r.Pruned)
	}
	for i, d := range r.Remaining {
		if i == shownKeys {
			fmt.Fprintf(&b, "  … and %d more: see --report\n", int64(len(r.Remaining)-i)+r.Uncounted)
			break
		}
		fmt.Fprintf(&b, "  %-11s db %d %q\n", d.Kind, d.Key.DB, d.Key.Name)
	}
	if r.Equal() {
		b.WriteString("equal: nothing differs, nothing is unsettled\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// kindsText names how many keys differ in what.
func kindsText(kinds map[verify.Kind]int64, uncounted int64) string {
	var parts []string
	for _, kind := range verify.Kinds {
		if n := kinds[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		}
	}
	if uncounted > 0 {
		parts = append(parts, fmt.Sprintf("%d more", uncounted))
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ", ")
}

package main

import (
	"strconv"
	"strings"
	"time"
)

// What verify compares.
const (
	verifyValues = "values"
	verifyKeys   = "keys"
	verifySample = "sample=" // and a part of the keys, as in sample=1%
)

// verifyConfig is how keyhaul verify compares.
type verifyConfig struct {
	KeysOnly  bool
	Sample    float64 // 1 for all keys
	BigValue  int64
	Tolerance time.Duration
	Settle    time.Duration
	Passes    int
	MaxRate   int
	Report    string
	Format    string
	Watch     bool
	Repair    bool
	Prune     bool
}

// verifySettings are those of keyhaul verify alone.
func verifySettings() []setting {
	of := func(s setting) setting {
		s.alias, s.key, s.of = s.key, "verify."+s.key, "verify"
		return s
	}
	return []setting{
		of(setting{key: "mode", kind: kindString, value: verifyValues, usage: "`what` to compare: values, keys (which keys there are, their types and deadlines), or sample=1% (the values of a part of the keys)"}),
		of(setting{key: "max-keys-per-second", kind: kindInt, value: "0", usage: "`number` of keys a second to look at; 0 for no limit but the servers' latency"}),
		of(setting{key: "passes", kind: kindInt, value: "2", usage: "`number` of passes at most; those after the first look only at what the one before has found"}),
		of(setting{key: "tolerance", kind: kindDuration, value: "1s", usage: "`time` by which deadlines may differ; at least 2s where a server is older than Redis 7.0"}),
		of(setting{key: "settle", kind: kindDuration, value: "2s", usage: "`time` for which a difference must last where the target knows of no haul under --name"}),
		of(setting{key: "big-value-bytes", kind: kindBytes, value: "1MiB", usage: "`size` in memory from which on a value is compared in pieces; 0 for never"}),
		of(setting{key: "report", kind: kindString, usage: "write what differs to this `file`, one JSON line for each key"}),
		of(setting{key: "format", kind: kindEnum, value: formatText, words: []string{formatText, formatJSON}, usage: "`format` of the summary: text or json"}),
		of(setting{key: "watch", kind: kindBool, value: "false", usage: "compare for ever, beside a sync that runs; status and metrics at --http"}),
		of(setting{key: "repair", kind: kindBool, value: "false", usage: "write what differs anew, in order with the sync; with --dry-run nothing is written"}),
		of(setting{key: "prune", kind: kindBool, value: "false", usage: "with --repair: remove keys that the source lacks"}),
	}
}

// formatText is a summary for people.
const formatText = "text"

func (r *resolver) verify() verifyConfig {
	c := verifyConfig{
		BigValue:  r.bytes("verify.big-value-bytes", 0),
		Tolerance: r.duration("verify.tolerance"),
		Settle:    r.positive("verify.settle"),
		Passes:    r.int("verify.passes", 1, 100),
		MaxRate:   r.int("verify.max-keys-per-second", 0, 1<<30),
		Report:    r.values["verify.report"].text(),
		Format:    r.enum("verify.format"),
		Watch:     r.bool("verify.watch"),
		Repair:    r.bool("verify.repair"),
		Prune:     r.bool("verify.prune"),
	}
	c.KeysOnly, c.Sample = r.verifyMode("verify.mode")
	if c.Prune && !c.Repair {
		r.refuse("verify.prune", "has no use without --repair")
	}
	if c.Watch && c.Repair {
		r.refuse("verify.watch", "cannot be combined with --repair: run that on its own")
	}
	return c
}

func (r *resolver) verifyMode(key string) (keysOnly bool, sample float64) {
	text := r.values[key].text()
	part, sampled := strings.CutPrefix(text, verifySample)
	switch {
	case text == verifyValues, text == verifyKeys:
		return text == verifyKeys, 1
	case sampled:
		n, err := strconv.ParseFloat(strings.TrimSuffix(part, "%"), 64)
		if strings.HasSuffix(part, "%") {
			n /= 100
		}
		if err == nil && n > 0 && n <= 1 {
			return false, n
		}
	}
	r.refuse(key, "is none of values, keys and sample=1%")
	return false, 1
}

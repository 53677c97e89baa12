// Package check looks for what would make a haul fail or hurt, before anything is written. Look asks both ends, Findings
// judges what they said; neither changes anything on a server.
package check

import (
	"slices"
	"strings"
)

// Severity says what a finding means for a haul.
type Severity string

// Severities.
const (
	Fatal Severity = "fatal" // as things are it cannot begin
	Warn  Severity = "warn"  // it begins, and may be hurt later
	Info  Severity = "info"  // good to know, or what could not be asked
)

// Finding is one thing that was found. It holds no values and no passwords.
type Finding struct {
	ID       string   `json:"id"` // stable, see docs/check.md
	Severity Severity `json:"severity"`
	Subject  string   `json:"subject"` // whom it is about: "target 10.0.0.7:6379"
	Evidence string   `json:"evidence"`
	Remedy   string   `json:"remedy,omitempty"`
}

// action is what sync does about a fatal finding.
type action uint8

const (
	refuses action = iota // it ends before anything is written
	begins                // the same where a haul begins; one that goes on waits at what is wrong
	waits                 // it waits until that is mended, or for its connect deadline
)

// kind is what is known of an id.
type kind struct {
	severities string // as docs/check.md has them
	fatal      action
}

// kinds are all ids that there are.
var kinds = map[string]kind{
	"unreachable":            {"fatal", waits},
	"login-refused":          {"fatal", waits},
	"protected-mode":         {"fatal", waits},
	"certificate-untrusted":  {"fatal", waits},
	"certificate-expired":    {"fatal, warn", waits},
	"certificate-expiring":   {"warn", waits},
	"loading":                {"warn", waits},
	"missing-permissions":    {"fatal", begins},
	"lesser-permissions":     {"warn", begins},
	"psync-refused":          {"fatal", begins},
	"source-cut-off":         {"warn", waits},
	"same-server":            {"fatal", refuses},
	"replicate-each-other":   {"fatal", refuses},
	"target-is-replica":      {"fatal", refuses},
	"target-too-old":         {"fatal", refuses},
	"databases-missing":      {"fatal", refuses},
	"db-map-refused":         {"fatal", refuses},
	"existing-keys":          {"fatal", begins},
	"eviction-policy":        {"fatal, warn", refuses},
	"transactions-missing":   {"fatal, warn", refuses},
	"client-list-missing":    {"fatal", refuses},
	"wait-refused":           {"fatal", refuses},
	"replicas-missing":       {"warn", waits},
	"type-missing":           {"fatal, warn", begins},
	"module-missing":         {"fatal, warn", begins},
	"command-missing":        {"warn", waits},
	"memory-short":           {"fatal", begins},
	"memory-tight":           {"warn", begins},
	"target-full":            {"fatal", waits},
	"persistence-failing":    {"fatal, warn", waits},
	"min-replicas-unmet":     {"fatal", waits},
	"output-buffer-small":    {"warn", waits},
	"backlog-small":          {"warn", waits},
	"repl-timeout-short":     {"warn", waits},
	"client-timeout-short":   {"warn", waits},
	"maxclients-low":         {"warn", waits},
	"cluster-down":           {"fatal", waits},
	"slots-uncovered":        {"fatal", waits},
	"slots-open":             {"warn", waits},
	"clock-skew":             {"warn", waits},
	"state-dir-unusable":     {"fatal", refuses},
	"state-disk-small":       {"warn", waits},
	"haul-running":           {"warn", waits},
	"haul-refused":           {"fatal", refuses},
	"sentinel-lists-keyhaul": {"info", waits},
	"estimate":               {"info", waits},
	"unknown-commands":       {"info", waits},
	"unknown-config":         {"info", waits},
	"unknown-slots":          {"info", waits},
	"unknown-state":          {"info", waits},
	"unknown-types":          {"info", waits},
}

// Kinds says of every id that there is which severities it has, and what sync does about the gravest, as docs/check.md has it.
func Kinds() map[string][2]string {
	all := make(map[string][2]string, len(kinds))
	for id, k := range kinds {
		does := "–"
		switch {
		case strings.Contains(k.severities, string(Fatal)):
			does = [...]string{"refuses", "refuses a new haul", "waits"}[k.fatal]
		case strings.Contains(k.severities, string(Warn)):
			does = "logs it"
		}
		all[id] = [2]string{k.severities, does}
	}
	return all
}

// Refuses tells whether sync ends because of a finding. goesOn says that the target knows the haul already.
func (f Finding) Refuses(goesOn bool) bool {
	how := kinds[f.ID].fatal
	return f.Severity == Fatal && (how == refuses || how == begins && !goesOn)
}

// sorted puts the fatal ones first and leaves each severity in its order.
func sorted(all []Finding) []Finding {
	rank := []Severity{Fatal, Warn, Info}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return slices.Index(rank, a.Severity) - slices.Index(rank, b.Severity)
	})
	return all
}

// Count returns how many of the findings have a severity.
func Count(all []Finding, s Severity) (n int) {
	for _, f := range all {
		if f.Severity == s {
			n++
		}
	}
	return n
}

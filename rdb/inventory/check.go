package inventory

import (
	"slices"
	"strings"

	"github.com/keyhaul/keyhaul/rdb"
)

// Check finds what a release could not hold.
type Check struct {
	release rdb.Release
	found   Compatible
	scratch []byte
}

// NewCheck returns a check for one report.
func NewCheck(release rdb.Release) *Check {
	return &Check{release: release, found: Compatible{Release: release.String(), Lacks: []Lack{}}}
}

// Compatible says what of a snapshot a release could not hold.
type Compatible struct {
	Release   string `json:"release"`
	Lacks     []Lack `json:"lacks"`
	Rewritten int64  `json:"rewritten_keys"` // keys that it holds, in another form than the snapshot's
}

// Lack is a feature that is used and that the release does not have.
type Lack struct {
	Feature  string   `json:"feature"`
	Outcome  string   `json:"outcome"` // degraded: the keys can be held without it; missing: they cannot
	Keys     int64    `json:"keys"`    // of functions: libraries
	Examples []string `json:"examples"`
}

// Outcomes of a Lack.
const (
	outcomeDegraded = "degraded"
	outcomeMissing  = "missing"
	outcomePossible = "possibly degraded" // the values are too large to be looked at for a report
)

// vectorSet is the name of the values of vector sets, which are those of a module that Redis 8.0 brings along. Whether a
// server has other modules its release does not tell.
const vectorSet = "vectorset"

// check looks at a key for the release in question. kept is the entry that the record is of, or the head of a large one.
func (s *scan) check(r *rdb.Record, name, kept []byte) {
	c := s.opts.For
	if c == nil {
		return
	}
	form, lacks := c.release.Form(r.Type, s.decoder.Valkey, r.Prefix.Len > 0)
	switch {
	case r.Type == rdb.TypeModule2 && !c.release.VectorSets() && rdb.ModuleName(kept[min(r.Value.Off, int64(len(kept))):]) == vectorSet:
		c.lack("vector sets", outcomeMissing, name)
	case form == rdb.FormAsItIs:
	case form == rdb.FormMissing:
		c.lack(lacks, outcomeMissing, name)
	case lacks == "":
		c.found.Rewritten++
	case s.decoder.Window().Large():
		c.lack(lacks, outcomePossible, name)
	default: // the type alone does not tell whether the value has it
		v := rdb.Value{Type: r.Type, Valkey: s.decoder.Valkey}
		var lost string
		var err error
		c.scratch, _, lost, err = c.release.Rewrite(c.scratch[:0], v, kept[r.Value.Off:r.Value.Off+r.Value.Len])
		if lost == "" && err == nil && r.Prefix.Len == 0 {
			c.found.Rewritten++
			return
		}
		c.lack(lacks, outcomeDegraded, name)
	}
}

// function looks at a library of functions, which are there since Redis 7.0.
func (c *Check) function(name string) {
	if c != nil && !c.release.Valkey && c.release.Major < 7 {
		c.lack("functions", outcomeMissing, []byte(name))
	}
}

func (c *Check) lack(feature, outcome string, name []byte) {
	const examples = 5
	i := slices.IndexFunc(c.found.Lacks, func(l Lack) bool { return l.Feature == feature && l.Outcome == outcome })
	if i < 0 {
		i = len(c.found.Lacks)
		c.found.Lacks = append(c.found.Lacks, Lack{Feature: feature, Outcome: outcome, Examples: []string{}})
	}
	l := &c.found.Lacks[i]
	l.Keys++
	if len(l.Examples) < examples {
		l.Examples = append(l.Examples, shown(name))
	}
}

func (c *Compatible) table(t table) {
	if c == nil {
		return
	}
	if len(c.Lacks) == 0 {
		t.line("\nFor %s: it can hold everything (keys that are rewritten for it: %d).", c.Release, c.Rewritten)
		return
	}
	t.section("For "+c.Release+": what it cannot hold", "keys\toutcome\t", "  what it lacks, such as in")
	for _, l := range c.Lacks {
		t.line("%d\t%s\t  %s: %s", l.Keys, l.Outcome, l.Feature, oneLine(strings.Join(l.Examples, ", ")))
	}
}

func (c *Compatible) csv(write func(cells ...string)) {
	if c == nil {
		return
	}
	for _, l := range c.Lacks {
		write("for", "", l.Feature, l.Outcome, number(l.Keys), "", "", "", "", "")
	}
}

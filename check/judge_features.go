package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/keyhaul/keyhaul/rdb"
	"github.com/keyhaul/keyhaul/writer"
)

// judgeFeatures judges whether the target has what the source uses.
func (p *Pair) judgeFeatures() (all []Finding) {
	severity := Fatal
	if p.cfg.LeavesOut {
		severity = Warn
	}
	const remedy = "use a target that has them, or --unsupported degrade (done without) or drop (left out), which list each key in unsupported.log"
	for _, t := range p.oldest() {
		if lacks := p.lacksTypes(t); len(lacks) > 0 {
			all = append(all, found("type-missing", severity, t.subject, remedy, "the source holds what the target (%s %s) has no form for: %s",
				t.node.Product, t.node.Version, strings.Join(lacks, ", ")))
		}
		for _, lacking := range p.lacksModules(t) {
			all = append(all, found("module-missing", severity, t.subject, "load the module on the target, or --unsupported drop (left out), which lists each key in unsupported.log",
				"the source uses a module that the target has not: %s", lacking))
		}
		if len(t.lacks) > 0 {
			all = append(all, found("command-missing", Warn, t.subject,
				"use a target that has them, do not rename them there, or have --on-error or --unsupported decide when they come",
				"clients of the source have run what the target does not know: %s", strings.Join(t.lacks, ", ")))
		}
	}
	return all
}

// oldest is one server of the target for each release and set of modules: what a hundred nodes lack is said once.
func (p *Pair) oldest() (some []*server) {
	for _, t := range p.target.servers {
		if t.node.Loading || slices.ContainsFunc(some, func(o *server) bool {
			return o.node.Release() == t.node.Release() && slices.Equal(o.modules, t.modules) && slices.Equal(o.lacks, t.lacks) && slices.Equal(o.lacksModules, t.lacksModules)
		}) {
			continue
		}
		some = append(some, t)
	}
	return some
}

// lacksTypes names what the source says that it holds, or has shown in the sample, and the target has no form for.
func (p *Pair) lacksTypes(t *server) (lacks []string) {
	to := t.node.Release()
	if to == (rdb.Release{}) {
		return nil
	}
	var deadlines, libraries int64
	types := map[string]int{}
	sampled := 0
	for _, s := range p.source.servers {
		deadlines += s.node.FieldDeadlines
		libraries += s.node.Libraries
		sampled += s.sampled
		for _, name := range s.strange {
			types[name]++
		}
	}
	if deadlines > 0 && !to.FieldTTLs() {
		lacks = append(lacks, fmt.Sprintf("hash field TTLs (%d hashes)", deadlines))
	}
	if libraries > 0 && !to.Functions() {
		lacks = append(lacks, fmt.Sprintf("functions (%d libraries)", libraries))
	}
	if n := types["vectorset"]; n > 0 && !to.VectorSets() {
		lacks = append(lacks, fmt.Sprintf("module for values of type \"vectorset\" (%d of %d keys that were looked at)", n, sampled))
	}
	if n := types["array"]; n > 0 && !to.Arrays() {
		lacks = append(lacks, fmt.Sprintf("arrays (%d of %d keys that were looked at)", n, sampled))
	}
	return lacks
}

// lacksModules names modules that the source uses, by keys of the sample or by commands of its clients.
func (p *Pair) lacksModules(t *server) (lacks []string) {
	if t.modules != nil {
		counts := map[string]int{}
		for _, s := range p.source.servers {
			for _, name := range s.strange {
				counts[name]++
			}
		}
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			has := func(m string) bool { return slices.Contains(t.modules, m) }
			if of := writer.ModulesOf(name); name != "array" && !slices.ContainsFunc(of, has) {
				lacks = append(lacks, fmt.Sprintf("%d keys of type %s are among those that were looked at", counts[name], name))
			}
		}
	}
	if len(t.lacksModules) > 0 {
		lacks = append(lacks, "commands "+strings.Join(t.lacksModules, ", "))
	}
	return lacks
}

// tight is the part of the room at the target from which on it is warned of.
const tight = 0.8

// judgeMemory judges whether the data fits. A cluster's keys are taken to be spread by slots.
func (p *Pair) judgeMemory() (all []Finding) {
	data := float64(p.data())
	for _, s := range p.target.servers {
		need := int64(data * s.share(p.target.cluster))
		used := s.node.UsedMemory
		if p.cfg.Flush {
			used -= s.data()
		}
		least := used // of which nothing goes
		if !p.cfg.MustBeEmpty && !p.cfg.Flush {
			least -= s.data() // what it holds may be what comes
		}
		most, whose, remedy := s.node.MaxMemory, "maxmemory", "raise `maxmemory` on the target"
		if most == 0 {
			most, whose, remedy = s.number("total_system_memory"), "the memory of its machine", "use a machine with more memory"
		}
		room := max(most-used, 0)
		switch {
		case most == 0:
		case need > max(most-least, 0) && s.node.MaxMemory > 0:
			all = append(all, found("memory-short", Fatal, s.subject, remedy, "the data of the source takes about %s there, and %s leaves %s", size(need), whose, size(room)))
		case float64(need) > tight*float64(room):
			all = append(all, found("memory-tight", Warn, s.subject, remedy, "the data of the source takes about %s there, and %s leaves %s", size(need), whose, size(room)))
		}
	}
	return all
}

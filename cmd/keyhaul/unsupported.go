package main

import (
	"fmt"
	"strings"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/rdb"
)

// mayHold refuses a source that says it holds what the target cannot, unless that is to be left out. What it does not say
// is met in the snapshot.
func (e *ends) mayHold(cfg config) error {
	if cfg.Unsupported != unsupportedFail || cfg.OnError == onErrorSkip {
		return nil
	}
	to := e.target.Release()
	if to == (rdb.Release{}) {
		return nil
	}
	var deadlines, libraries int64
	for _, n := range e.sources() {
		deadlines += n.FieldDeadlines
		libraries += n.Libraries
	}
	var lacks []string
	if deadlines > 0 && !to.FieldTTLs() {
		lacks = append(lacks, fmt.Sprintf("hash field TTLs (%d hashes)", deadlines))
	}
	if libraries > 0 && !to.Functions() {
		lacks = append(lacks, fmt.Sprintf("functions (%d libraries)", libraries))
	}
	if len(lacks) == 0 {
		return nil
	}
	return haul.Errorf(haul.ExitRefused,
		"use a target that has them, or --unsupported degrade (done without) or drop (left out), which list each key in unsupported.log",
		"the source holds what the target (%s %s) has no form for: %s", e.target.Product, e.target.Version, strings.Join(lacks, ", "))
}

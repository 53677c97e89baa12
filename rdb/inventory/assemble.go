package inventory

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/keyhaul/keyhaul/rdb"
)

// report puts together what was seen.
func (s *scan) report(name string) *Report {
	r := &Report{
		File: name, Format: s.format(), Read: s.decoder.Window().Offset(),
		Aux: append([]Aux{}, s.aux...), Functions: append([]Function{}, s.functions...), Databases: []Database{}, Modules: named(s.modules),
		Biggest: s.biggest.list(), Prefixes: s.tree.biggest(s.opts.Top),
		Expiry: s.expiry.list("never"), Idle: s.idle.list(""), Frequency: s.freq.list(""), tree: s.tree,
	}
	if s.made != s.opts.Now {
		r.Made = &s.made
	}
	for _, db := range s.dbs {
		d := Database{DB: db.db}
		types := map[string]*Totals{}
		for t, totals := range db.types {
			if totals.Keys == 0 {
				continue
			}
			name := rdb.TypeName(byte(t))
			if types[name] == nil {
				types[name] = new(Totals)
			}
			types[name].add(totals)
			d.add(totals)
		}
		d.Types = named(types)
		r.Databases = append(r.Databases, d)
		r.add(d.Totals)
	}
	slices.SortFunc(r.Databases, func(a, b Database) int { return cmp.Compare(a.DB, b.DB) })
	if s.opts.For != nil {
		r.For = &s.opts.For.found
	}
	return r
}

// format is the magic and version of the snapshot; empty if it has none.
func (s *scan) format() string {
	switch d := s.decoder; {
	case d.Version == 0:
		return ""
	case d.Valkey:
		return fmt.Sprintf("VALKEY%03d", d.Version)
	default:
		return fmt.Sprintf("REDIS%04d", d.Version)
	}
}

// named returns totals by name, those with most memory first.
func named(totals map[string]*Totals) []Named {
	all := []Named{}
	for name, t := range totals {
		all = append(all, Named{name, *t})
	}
	slices.SortFunc(all, func(a, b Named) int {
		return cmp.Or(cmp.Compare(b.Memory, a.Memory), cmp.Compare(a.Name, b.Name))
	})
	return all
}

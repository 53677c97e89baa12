package inventory

import (
	"encoding/csv"
	"io"
	"strconv"
)

// csvHead is the first line of what CSV writes.
var csvHead = []string{"section", "database", "name", "type", "keys", "keys_with_ttl", "bytes", "elements", "memory", "expire_at_ms"}

// CSV writes the report as one table whose first column says what a line is about: aux, function, type, module, key, prefix,
// expiry, idle, frequency, for, total, and error if the snapshot could not be read to its end.
func (r *Report) CSV(w io.Writer) error {
	c := csv.NewWriter(w)
	write := func(cells ...string) { _ = c.Write(cells) } // told by Error
	totals := func(section, db, name, kind string, t Totals) {
		write(section, db, name, kind, number(t.Keys), number(t.Expires), number(t.Bytes), number(t.Elements), number(t.Memory), "")
	}
	write(csvHead...)
	for _, a := range r.Aux {
		write("aux", "", a.Name+"="+a.Value, "", "", "", "", "", "", "")
	}
	for _, f := range r.Functions {
		write("function", "", f.Name, f.Engine, "", "", number(f.Bytes), "", "", "")
	}
	for _, d := range r.Databases {
		for _, t := range d.Types {
			totals("type", number(int64(d.DB)), "", t.Name, t.Totals)
		}
	}
	for section, list := range r.histograms() {
		for _, x := range list {
			totals(section, "", x.Name, "", x.Totals)
		}
	}
	for _, k := range r.Biggest {
		ttl, at := "0", ""
		if k.ExpireAt != 0 {
			ttl, at = "1", number(k.ExpireAt)
		}
		write("key", number(int64(k.DB)), k.Name, k.Type, "1", ttl, number(k.Bytes), number(k.Elements), number(k.Memory), at)
	}
	for _, p := range r.Prefixes {
		totals("prefix", number(int64(p.DB)), p.Name, "", p.Totals)
	}
	r.For.csv(write)
	totals("total", "", "", "", r.Totals)
	if !r.Complete {
		write("error", "", r.Error, "", "", "", "", "", "", "")
	}
	c.Flush()
	return c.Error()
}

// histograms yields the lists of names and totals in order.
func (r *Report) histograms() func(yield func(string, []Named) bool) {
	return func(yield func(string, []Named) bool) {
		_ = yield("module", r.Modules) && yield("expiry", r.Expiry) && yield("idle", r.Idle) && yield("frequency", r.Frequency)
	}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

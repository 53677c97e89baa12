package inventory

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/keyhaul/keyhaul/internal/jsontext"
)

// JSON writes the report as one JSON object.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	t := table{tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)}
	r.head(t)
	t.section("", "database\ttype\t", totalsHead)
	for _, d := range r.Databases {
		for _, x := range d.Types {
			t.row(fmt.Sprintf("%d\t%s\t", d.DB, x.Name), x.Totals)
		}
	}
	t.row("all\t\t", r.Totals)
	t.named("Modules", "module\t", r.Modules)
	if len(r.Biggest) > 0 {
		t.section("Biggest keys, by memory", "database\ttype\t", "elements\tin the file\tmemory\texpires\t  key")
		for _, k := range r.Biggest {
			t.line("%d\t%s\t%d\t%s\t%s\t%s\t  %s", k.DB, k.Type, k.Elements, human(k.Bytes), human(k.Memory), deadline(k.ExpireAt), oneLine(k.Name))
		}
	}
	if len(r.Prefixes) > 0 {
		t.section("Biggest prefixes, by memory", "database\t", totalsHead+"  prefix")
		for _, p := range r.Prefixes {
			t.line("%d\t%s  %s", p.DB, cells(p.Totals), oneLine(p.Name))
		}
	}
	t.named("Deadlines"+r.since(), "expires\t", r.Expiry)
	t.named("Not used for", "idle\t", r.Idle)
	t.named("Counter of accesses (LFU)", "counter\t", r.Frequency)
	if len(r.Functions) > 0 {
		t.section("Functions", "engine\tbytes\t", "  library")
		for _, f := range r.Functions {
			t.line("%s\t%d\t  %s", f.Engine, f.Bytes, f.Name)
		}
	}
	r.For.table(t)
	if !r.Complete {
		t.line("\nINCOMPLETE: this is what was read before the error below.")
		t.line("%s", r.Error)
	}
	return t.w.Flush()
}

func (r *Report) head(t table) {
	t.line("%s: %s, %s of snapshot, %d keys, some %s in memory", r.File, r.Format, human(r.Read), r.Keys, human(r.Memory))
	for _, a := range r.Aux {
		t.line("%s = %s", a.Name, oneLine(a.Value))
	}
}

// since says what deadlines are compared with.
func (r *Report) since() string {
	if r.Made == nil {
		return ", from now on"
	}
	return ", from " + r.Made.Format(time.RFC3339) + " on, when the snapshot was made"
}

const totalsHead = "keys\twith TTL\telements\tin the file\tmemory\t"

func cells(t Totals) string {
	return fmt.Sprintf("%d\t%d\t%d\t%s\t%s\t", t.Keys, t.Expires, t.Elements, human(t.Bytes), human(t.Memory))
}

// table writes lines of cells that end in tabs.
type table struct{ w *tabwriter.Writer }

func (t table) line(format string, args ...any) {
	_, _ = fmt.Fprintf(t.w, format+"\n", args...) // its errors stay, and Flush tells them
}

func (t table) section(title, left, right string) {
	_ = t.w.Flush() // its errors stay
	t.line("")
	if title != "" {
		t.line("%s", title)
		_ = t.w.Flush()
	}
	t.line("%s", left+right)
}

func (t table) row(left string, x Totals) { t.line("%s", left+cells(x)) }

func (t table) named(title, name string, list []Named) {
	if len(list) == 0 {
		return
	}
	t.section(title, name, totalsHead)
	for _, x := range list {
		t.row(x.Name+"\t", x.Totals)
	}
}

// oneLine shows a name without what would break a line or a terminal.
func oneLine(s string) string {
	if name, err := jsontext.Bytes(s); err == nil && jsontext.Marked(name) {
		s = strings.Trim(strconv.QuoteToASCII(string(name)), `"`)
	}
	const most = 100
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '·'
	}, s)
}

func deadline(ms int64) string {
	if ms == 0 {
		return "never"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05")
}

// human is a size for people.
func human(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	x := float64(n)
	for _, unit := range []string{"kB", "MB", "GB"} {
		if x /= 1000; x < 1000 {
			return fmt.Sprintf("%.1f %s", x, unit)
		}
	}
	return fmt.Sprintf("%.1f TB", x/1000)
}

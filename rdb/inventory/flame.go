package inventory

import (
	"bufio"
	"cmp"
	"encoding/xml"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"slices"
	"strings"
)

// Sizes of a flame graph, in its own units.
const (
	flameWidth  = 1200.0
	flameRow    = 18
	flameNarrow = 0.3 // what is narrower is left out
	flameLetter = 7.0 // width of a letter
)

// Flame writes memory by prefix as a flame graph: one SVG image that needs nothing beside it. The widths are those of the
// estimated memory; a box that is pointed at tells its numbers.
func (r *Report) Flame(w io.Writer) error {
	b := bufio.NewWriter(w)
	f := flame{w: b, scale: flameWidth / float64(max(r.Memory, 1))}
	height := (maxDepth + 4) * flameRow
	f.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %d" font-family="monospace" font-size="11">`+"\n", flameWidth, height)
	f.put(`<rect width="100%%" height="100%%" fill="white"/>` + "\n")
	title := "all keys of " + r.File
	if !r.Complete {
		title += " (INCOMPLETE)"
	}
	f.box(0, 0, title, title, r.Totals)
	x := 0.0
	for _, n := range r.tree.dbs {
		f.node(x, 1, n)
		x += f.width(n.total)
	}
	f.put("</svg>\n")
	return b.Flush()
}

type flame struct {
	w     *bufio.Writer
	scale float64
}

func (f *flame) put(format string, args ...any) {
	_, _ = fmt.Fprintf(f.w, format, args...) // its errors stay, and Flush tells them
}

func (f *flame) width(t Totals) float64 { return float64(t.Memory) * f.scale }

func (f *flame) node(x float64, depth int, n *node) {
	if f.width(n.total) < flameNarrow {
		return
	}
	name, whole := n.segment, n.name()
	if n.parent == nil {
		name = fmt.Sprintf("database %d", n.db)
		whole = name
	}
	f.box(x, depth, shown([]byte(name)), shown([]byte(whole)), n.total)
	children := slices.SortedFunc(maps.Values(n.children), func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.total.Memory, a.total.Memory), cmp.Compare(a.segment, b.segment))
	})
	for _, c := range children {
		f.node(x, depth+1, c)
		x += f.width(c.total)
	}
	if n.folded.Keys > 0 && f.width(n.folded) >= flameNarrow {
		f.box(x, depth+1, "(other)", whole+" (other prefixes)", n.folded)
	}
}

func (f *flame) box(x float64, depth int, label, title string, t Totals) {
	width := f.width(t)
	if depth == 0 {
		width = flameWidth
	}
	f.put(`<g><title>%s: %d keys, %s in memory, %s in the file</title>`, escaped(title), t.Keys, human(t.Memory), human(t.Bytes))
	f.put(`<rect x="%.2f" y="%d" width="%.2f" height="%d" fill="%s" stroke="white" stroke-width="0.5"/>`,
		x, depth*flameRow, width, flameRow, color(label))
	if letters := int(width/flameLetter) - 1; letters > 2 {
		text := []rune(oneLine(label))
		if len(text) > letters {
			text = append(text[:letters-1], '…')
		}
		f.put(`<text x="%.2f" y="%d">%s</text>`, x+3, depth*flameRow+13, escaped(string(text)))
	}
	f.put("</g>\n")
}

// color is a warm one that a name always has.
func color(name string) string {
	h := fnv.New32a()
	_, _ = io.WriteString(h, name)
	n := h.Sum32()
	return fmt.Sprintf("rgb(%d,%d,%d)", 205+n%50, 100+n/50%120, 40+n/6000%60)
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(oneLine(s))) // a strings.Builder takes everything
	return b.String()
}

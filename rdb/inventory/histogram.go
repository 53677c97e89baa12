package inventory

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
	"unicode/utf8"

	"github.com/keyhaul/keyhaul/internal/jsontext"
)

// limit names what is below a number.
type limit struct {
	below float64
	name  string
}

// Limits of histograms: seconds to a deadline, seconds since the last access, and the logarithmic counter of accesses.
var (
	expiryLimits = []limit{
		{0, "expired"},
		{60, "within a minute"},
		{3600, "within an hour"},
		{86400, "within a day"},
		{7 * 86400, "within a week"},
		{30 * 86400, "within 30 days"},
		{365 * 86400, "within a year"},
		{math.Inf(1), "later"},
	}
	idleLimits = []limit{
		{60, "under a minute"},
		{3600, "under an hour"},
		{86400, "under a day"},
		{7 * 86400, "under a week"},
		{30 * 86400, "under 30 days"},
		{math.Inf(1), "longer"},
	}
	freqLimits = []limit{
		{1, "0"},
		{5, "1 to 4"},
		{10, "5 to 9"},
		{50, "10 to 49"},
		{100, "50 to 99"},
		{math.Inf(1), "100 to 255"},
	}
)

// histogram adds keys up by a number.
type histogram struct {
	limits []limit
	counts []Totals
	never  Totals // keys that have no such number
}

func newHistogram(limits []limit) histogram {
	return histogram{limits: limits, counts: make([]Totals, len(limits))}
}

func (h *histogram) add(x float64, t Totals) {
	for i := range h.limits {
		if x < h.limits[i].below {
			h.counts[i].add(t)
			return
		}
	}
}

// list returns what was counted; nothing if that is nothing. Keys without the number come first, as never.
func (h *histogram) list(never string) []Named {
	all := []Named{}
	if h.never.Keys > 0 {
		all = append(all, Named{never, h.never})
	}
	for i, t := range h.counts {
		if t.Keys > 0 {
			all = append(all, Named{h.limits[i].name, t})
		}
	}
	return all
}

// heapOfKeys keeps those that need most memory, the smallest of them first.
type heapOfKeys struct {
	most int
	keys []Key
}

func (h *heapOfKeys) Len() int           { return len(h.keys) }
func (h *heapOfKeys) Less(i, j int) bool { return h.keys[i].Memory < h.keys[j].Memory }
func (h *heapOfKeys) Swap(i, j int)      { h.keys[i], h.keys[j] = h.keys[j], h.keys[i] }
func (h *heapOfKeys) Push(x any)         { h.keys = append(h.keys, x.(Key)) }

// Pop implements heap.Interface.
func (h *heapOfKeys) Pop() any {
	last := h.keys[len(h.keys)-1]
	h.keys = h.keys[:len(h.keys)-1]
	return last
}

// least is the memory that a key must exceed to be kept.
func (h *heapOfKeys) least() int64 {
	switch {
	case h.most == 0:
		return math.MaxInt64
	case len(h.keys) < h.most:
		return -1
	}
	return h.keys[0].Memory
}

func (h *heapOfKeys) add(k Key) {
	if len(h.keys) == h.most {
		heap.Pop(h)
	}
	heap.Push(h, k)
}

// list returns the keys, the biggest first.
func (h *heapOfKeys) list() []Key {
	all := slices.Clone(h.keys)
	slices.SortFunc(all, func(a, b Key) int {
		return cmp.Or(cmp.Compare(b.Memory, a.Memory), cmp.Compare(a.DB, b.DB), cmp.Compare(a.Name, b.Name))
	})
	return append([]Key{}, all...)
}

// shown is a name for people and for JSON, cut where it is long.
func shown(name []byte) string {
	if len(name) <= nameBytes {
		return jsontext.Text(name)
	}
	end := nameBytes
	for end > nameBytes-utf8.UTFMax && !utf8.RuneStart(name[end]) {
		end--
	}
	return jsontext.Text(name[:end]) + "…"
}

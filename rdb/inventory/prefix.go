package inventory

import (
	"bytes"
	"cmp"
	"slices"
)

const (
	maxNodes   = 16 << 10 // prefixes that are told apart at once
	maxDepth   = 10
	maxSegment = 128 // bytes of a part of a name that makes a prefix of its own
)

// tree adds keys up by the prefixes of their names, of which there may be more than memory should hold: when there are too
// many, the small ones are folded into those that they are part of, which then tell no new ones apart. So the totals of
// each prefix that is left are exact.
type tree struct {
	separator []byte
	dbs       []*node // by database, in the order of the snapshot
	last      *node
	nodes     int
}

// node is a prefix: that of its parent, and a segment more.
type node struct {
	db       int
	segment  string // with the separator; empty for a database
	parent   *node
	children map[string]*node
	total    Totals
	folded   Totals // of prefixes under this one that are not told apart
	closed   bool   // no new ones are
}

func newTree(separator string) *tree { return &tree{separator: []byte(separator)} }

// add counts a key with each of its prefixes.
func (t *tree) add(db int, name []byte, key Totals) {
	if t.nodes > maxNodes {
		t.fold()
	}
	n := t.database(db)
	n.total.add(key)
	if len(t.separator) == 0 {
		return
	}
	for range maxDepth {
		i := bytes.Index(name, t.separator)
		if i < 0 {
			return
		}
		i += len(t.separator)
		child := n.children[string(name[:i])]
		if child == nil {
			if n.closed || i > maxSegment {
				n.folded.add(key)
				return
			}
			child = t.grow(n, string(name[:i]))
		}
		child.total.add(key)
		n, name = child, name[i:]
	}
}

func (t *tree) database(db int) *node {
	if t.last != nil && t.last.db == db {
		return t.last
	}
	for _, n := range t.dbs {
		if n.db == db {
			t.last = n
			return n
		}
	}
	t.last = &node{db: db}
	t.dbs = append(t.dbs, t.last)
	return t.last
}

func (t *tree) grow(parent *node, segment string) *node {
	n := &node{db: parent.db, segment: segment, parent: parent}
	if parent.children == nil {
		parent.children = make(map[string]*node)
	}
	parent.children[segment] = n
	t.nodes++
	return n
}

// fold removes small prefixes until half of all are left: again and again the smaller half of those that have none under
// them.
func (t *tree) fold() {
	for t.nodes > maxNodes/2 {
		var leaves []*node
		for n := range t.all() {
			if n.parent != nil && len(n.children) == 0 {
				leaves = append(leaves, n)
			}
		}
		slices.SortFunc(leaves, func(a, b *node) int { return cmp.Compare(a.total.Memory, b.total.Memory) })
		for _, n := range leaves[:min((len(leaves)+1)/2, t.nodes-maxNodes/2)] {
			delete(n.parent.children, n.segment)
			n.parent.folded.add(n.total)
			n.parent.closed = true
			t.nodes--
		}
	}
}

// all yields every node, parents first.
func (t *tree) all() func(yield func(*node) bool) {
	return func(yield func(*node) bool) {
		var walk func(n *node) bool
		walk = func(n *node) bool {
			if !yield(n) {
				return false
			}
			for _, c := range n.children {
				if !walk(c) {
					return false
				}
			}
			return true
		}
		for _, n := range t.dbs {
			if !walk(n) {
				return
			}
		}
	}
}

// biggest returns the prefixes that need most memory.
func (t *tree) biggest(most int) []Prefix {
	var nodes []*node
	for n := range t.all() {
		if n.parent != nil {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b *node) int {
		return cmp.Or(cmp.Compare(b.total.Memory, a.total.Memory), cmp.Compare(a.db, b.db), cmp.Compare(a.name(), b.name()))
	})
	all := []Prefix{}
	for _, n := range nodes[:min(most, len(nodes))] {
		all = append(all, Prefix{DB: n.db, Name: shown([]byte(n.name())), Totals: n.total, Folded: n.folded.Keys})
	}
	return all
}

// name is the whole prefix.
func (n *node) name() string {
	if n.parent == nil {
		return ""
	}
	return n.parent.name() + n.segment
}

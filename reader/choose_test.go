package reader

import (
	"errors"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// ids are replication ids as INFO shows them.
func idOf(letter string) string { return strings.Repeat(letter, 40) }

// node is a server whose stream goes up to an offset under an id, and of whose backlog all is there.
func node(addr, id string, offset int64) Candidate {
	return Candidate{addr, topology.Node{
		Role: "master", RunID: "run of " + addr, ReplID: idOf(id), ReplID2: idOf("0"), MasterReplOffset: offset, SecondReplOffset: -1,
		Backlog: topology.Backlog{Active: true, First: 1, Length: offset},
	}}
}

// after says that the node was promoted at an offset of an earlier history.
func (c Candidate) after(id string, at int64) Candidate {
	c.Node.ReplID2, c.Node.SecondReplOffset = idOf(id), at+1
	return c
}

// of makes the node a replica.
func (c Candidate) of(host string, up bool) Candidate {
	c.Node.Role, c.Node.MasterHost, c.Node.MasterLinkUp = "slave", host, up
	return c
}

func TestChoose(t *testing.T) {
	read := &History{ID: idOf("a"), Offset: 100, Highest: 100}
	moved := &History{ID: idOf("b"), Earlier: []string{idOf("a")}, Offset: 100, Highest: 100}
	down := []error{errors.New("h9: connection refused")}
	loading := node("h1", "a", 200)
	loading.Node.Loading = true
	short := node("h1", "a", 200)
	short.Node.Backlog.First = 150
	for name, c := range map[string]struct {
		all     []Candidate
		silent  []error
		replica bool
		h       *History
		want    string // address, or a word of the error
		lost    bool
	}{
		"the primary":                              {all: []Candidate{node("h2", "a", 9).of("h1", true), node("h1", "a", 9)}, want: "h1"},
		"no primary":                               {all: []Candidate{node("h2", "a", 9).of("h1", true)}, silent: down, want: "no primary is found: h2 is a replica of h1:0; h9: connection refused"},
		"of two the promoted one":                  {all: []Candidate{node("h1", "a", 99), node("h2", "b", 9).after("a", 5)}, want: "h2"},
		"two of different data":                    {all: []Candidate{node("h1", "a", 9), node("h2", "b", 9)}, want: "different data"},
		"one server twice":                         {all: []Candidate{node("h1", "a", 9), {"name", node("h1", "a", 10).Node}}, want: "h1"},
		"one that loads":                           {all: []Candidate{loading}, want: "h1"},
		"a replica that is preferred":              {all: []Candidate{node("h1", "a", 9), node("h2", "a", 7).of("h1", true), node("h3", "a", 8).of("h1", true)}, replica: true, want: "h3"},
		"none that has lost its primary":           {all: []Candidate{node("h1", "a", 9), node("h2", "a", 7).of("h1", false)}, replica: true, want: "h1"},
		"none that lags behind":                    {all: []Candidate{node("h1", "a", 200), node("h2", "a", 99).of("h1", true)}, replica: true, h: read, want: "h1"},
		"goes on":                                  {all: []Candidate{node("h1", "a", 200)}, h: read, want: "h1"},
		"goes on at the promoted one":              {all: []Candidate{node("h1", "a", 900), node("h2", "b", 200).after("a", 150)}, h: read, want: "h2"},
		"goes on at the one that has more":         {all: []Candidate{node("h1", "b", 200).after("a", 150), node("h2", "c", 300).after("a", 150)}, h: read, want: "h2"},
		"the promoted one lacks what was read":     {all: []Candidate{node("h2", "b", 200).after("a", 99)}, silent: down, h: read, want: "h2", lost: true},
		"the old one while the new one is silent":  {all: []Candidate{node("h1", "a", 200)}, silent: down, h: moved, want: "an old primary"},
		"the old one comes back":                   {all: []Candidate{node("h1", "a", 200), node("h2", "b", 200).after("a", 50)}, h: moved, want: "h2"},
		"the old one alone":                        {all: []Candidate{node("h1", "a", 200)}, h: moved, want: "an old primary"},
		"an empty one while another is silent":     {all: []Candidate{node("h1", "x", 5)}, silent: down, h: read, want: "start what does not answer"},
		"an empty one, and a replica that has all": {all: []Candidate{node("h1", "x", 5), node("h2", "a", 200).of("h1", false)}, h: read, want: "another history"},
		"an empty one alone":                       {all: []Candidate{node("h1", "x", 5)}, h: read, lost: true},
		"a short backlog":                          {all: []Candidate{short, node("h2", "a", 200).of("h1", true)}, h: read, lost: true},
		"one that loads what was read":             {all: []Candidate{loading}, h: read, want: "is loading"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Choose(c.all, c.silent, c.replica, c.h)
			if lost := haul.ExitOf(err) == haul.ExitHistoryLost; lost != c.lost {
				t.Errorf("lost: %v, %v", lost, err)
			}
			if c.lost {
				if !errors.As(err, new(*topology.Permanent)) {
					t.Errorf("another try is made: %v", err)
				}
				return
			}
			if err == nil && got.Addr != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %v; want %s", got.Addr, err, c.want)
			}
		})
	}
}

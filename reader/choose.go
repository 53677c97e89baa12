package reader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/internal/topology"
)

// Candidate is a server that answers, of those that a source may be read from.
type Candidate struct {
	Addr string
	Node topology.Node
}

// History is what was read of a source before.
type History struct {
	ID      string   // replication id under which it goes on
	Earlier []string // replication ids that it had before: who still has one was left behind by a failover
	Offset  int64    // of the last byte that was received
	Highest int64    // of the last byte that is known, on the target or in the spool
}

// Find returns the address of the server to read from, as topology.ConnectOptions.Find does. One plain address is taken
// as it is, also if it is a replica's, and so are those of a cluster's nodes. Of several others, and of those that
// sentinels name, all are asked and one is chosen. h is nil if nothing was read before.
func Find(ctx context.Context, d *topology.Dialer, preferReplica bool, h *History) ([]string, error) {
	addrs, err := d.Servers(ctx)
	if err != nil || !d.Endpoint.Several() {
		return addrs, err
	}
	if preferReplica && d.Endpoint.Sentinels != nil {
		replicas, err := d.Replicas(ctx)
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, replicas...)
	}
	all, silent := survey(ctx, d, addrs)
	if slices.ContainsFunc(all, func(c Candidate) bool { return c.Node.Cluster }) {
		return addrs, nil
	}
	chosen, err := Choose(all, silent, preferReplica, h)
	if err != nil {
		return nil, err
	}
	return []string{chosen.Addr}, nil
}

// surveyTimeout bounds the question to one of several servers.
const surveyTimeout = 3 * time.Second

// survey asks all servers at once what they are. silent says why others do not answer, or cannot be read from yet.
func survey(ctx context.Context, d *topology.Dialer, addrs []string) (all []Candidate, silent []error) {
	ctx, cancel := context.WithTimeoutCause(ctx, surveyTimeout, fmt.Errorf("no answer within %v", surveyTimeout))
	defer cancel()
	nodes, errs := make([]topology.Node, len(addrs)), make([]error, len(addrs))
	var g errgroup.Group
	for i, addr := range addrs {
		g.Go(func() error {
			nodes[i], errs[i] = askAt(ctx, d, addr)
			return nil
		})
	}
	_ = g.Wait()
	for i, addr := range addrs {
		if errs[i] != nil {
			silent = append(silent, errs[i])
			continue
		}
		all = append(all, Candidate{addr, nodes[i]})
	}
	return all, silent
}

func askAt(ctx context.Context, d *topology.Dialer, addr string) (topology.Node, error) {
	c, err := d.Open(ctx, addr)
	if err != nil {
		return topology.Node{}, err
	}
	defer c.Close() //nolint:errcheck // one question
	return topology.Inspect(ctx, c)
}

// Choose returns the server to read from. all are the nodes of one shard that have answered, silent says why others have
// not.
//
// It is a primary that can continue h. Of two, the one that was promoted is taken before the one that it was promoted in
// place of, which has come back, and then the one that has more. A replica is taken only if it is preferred: the one
// that has most, of those that can continue h and are in touch with their primary.
//
// The error is one of haul.ExitHistoryLost if a primary shows that it lacks what was read. As long as that may still
// come from a server that is silent, or from a replica that may be promoted, it is an error that another try may mend.
func Choose(all []Candidate, silent []error, preferReplica bool, h *History) (Candidate, error) {
	var primaries, able, replicas, waiting []Candidate
	for i, c := range all {
		if twice(all[:i], c) {
			continue
		}
		continues := h == nil || h.left(c.Node) == nil
		switch {
		case c.Node.Role != "slave":
			primaries = append(primaries, c)
			if continues && !c.Node.Loading {
				able = append(able, c)
			}
		case continues:
			waiting = append(waiting, c)
			if c.Node.MasterLinkUp && !c.Node.Loading {
				replicas = append(replicas, c)
			}
		}
	}
	promotable := slices.ContainsFunc(waiting, func(c Candidate) bool {
		return !slices.ContainsFunc(primaries, func(p Candidate) bool { return p.Node.ReplID == c.Node.ReplID })
	})
	switch {
	case preferReplica && len(replicas) > 0:
		return slices.MaxFunc(replicas, byOffset), nil
	case h == nil:
		return chooseFirst(primaries, all, silent)
	case len(able) > 0:
		return slices.MaxFunc(able, func(a, b Candidate) int {
			return cmp.Or(promoted(a, h)-promoted(b, h), byOffset(a, b))
		}), nil
	case !promotable:
		if err := h.lost(primaries, silent); err != nil {
			return Candidate{}, &topology.Permanent{Err: err}
		}
	}
	return Candidate{}, noneOf("no primary is found that goes on where the stream was left", all, silent, h)
}

// twice tells whether one server has several addresses.
func twice(seen []Candidate, c Candidate) bool {
	return c.Node.RunID != "" && slices.ContainsFunc(seen, func(o Candidate) bool { return o.Node.RunID == c.Node.RunID })
}

func byOffset(a, b Candidate) int {
	return cmp.Compare(a.Node.MasterReplOffset, b.Node.MasterReplOffset)
}

// promoted is 1 for a node that goes on with h under an id of its own.
func promoted(c Candidate, h *History) int {
	if c.Node.ReplID != h.ID {
		return 1
	}
	return 0
}

// chooseFirst returns the primary that nothing was read from before: if there are several, the one that was promoted in
// place of the others. One that is loading will do, if there is no other.
func chooseFirst(primaries, all []Candidate, silent []error) (Candidate, error) {
	var left []Candidate
	for _, c := range primaries {
		replaced := slices.ContainsFunc(primaries, func(o Candidate) bool { return o.Node.ReplID2 == c.Node.ReplID && c.Node.ReplID != "" })
		if !replaced {
			left = append(left, c)
		}
	}
	switch len(left) {
	case 0:
		return Candidate{}, noneOf("no primary is found", all, silent, nil)
	case 1:
		return left[0], nil
	}
	return Candidate{}, noneOf("several of the addresses are primaries, with different data: name only one of them", all, silent, nil)
}

// left returns nil if n can continue the history.
func (h *History) left(n topology.Node) error { return historyLeft(n, h.ID, h.Offset, h.Highest) }

// lost returns the proof that the history is lost, or nil while it may still come back.
func (h *History) lost(primaries []Candidate, silent []error) error {
	for _, c := range primaries {
		before := slices.Contains(h.Earlier, c.Node.ReplID) // an old primary that was left behind proves nothing
		if c.Node.Loading || before || len(silent) > 0 && c.Node.ReplID2 != h.ID {
			continue
		}
		return h.left(c.Node)
	}
	return nil
}

// noneOf says what every server is, and why none will do.
func noneOf(what string, all []Candidate, silent []error, h *History) error {
	var parts []string
	for _, c := range all {
		is := "is a primary"
		switch {
		case c.Node.Role == "slave":
			is = fmt.Sprintf("is a replica of %s:%d", c.Node.MasterHost, c.Node.MasterPort)
		case c.Node.Loading:
			is = "is loading its data"
		case h != nil && slices.Contains(h.Earlier, c.Node.ReplID):
			is = "is an old primary, in whose place another one was promoted"
		case h != nil:
			is = "is a primary with another history"
		}
		parts = append(parts, c.Addr+" "+is)
	}
	for _, err := range silent {
		parts = append(parts, err.Error())
	}
	if len(silent) > 0 && h != nil {
		parts = append(parts, "start what does not answer, or take it out of the addresses")
	}
	return errors.New(what + ": " + strings.Join(parts, "; "))
}

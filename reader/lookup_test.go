package reader

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// newLookup returns a link that follows the history of a server, and what reads its keys.
func newLookup(t *testing.T, s *rt.Server) (*PSYNC, *KeyReader) {
	t.Helper()
	ep := topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{s.Addr}}
	p := NewPSYNC(PSYNCConfig{Dialer: topology.NewDialer(ep), ReplyTimeout: 10 * time.Second, Waits: &haul.Waits{}, Log: zerolog.Nop()})
	p.lineage = aof.Lineage{ReplID: s.Info("replication")["master_replid"]}
	k := p.Keys()
	t.Cleanup(k.Close)
	return p, k
}

func TestReadKeys(t *testing.T) {
	s, other := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
	other.ReplicaOf(s) // so that there is a history
	s.MustDo("SET", "a", "1")
	s.MustDo("SELECT", 2)
	s.MustDo("RPUSH", "l", "x", "y")
	s.MustDo("PEXPIREAT", "l", 99999999999999)
	s.MustDo("SELECT", 0)
	p, k := newLookup(t, s)
	ctx, least := context.Background(), s.Offset()
	keys := []haul.KeyName{{Name: "a"}, {Name: "none"}, {DB: 2, Name: "l"}}
	values, offset, err := k.ReadKeys(ctx, 1, keys)
	if err != nil || offset < least || offset > s.Offset() || len(values) != 3 {
		t.Fatalf("%v at %d, want offset %d or more: %v", values, offset, least, err)
	}
	late := values[2].ExpireAt - 99999999999999
	if values[0].ExpireAt != 0 || values[1].Payload != "" || late < -5 || late > 5 {
		t.Errorf("deadlines and what is missing: %+v", values)
	}
	for i, name := range map[int]string{0: "a", 2: "l"} {
		s.MustDo("RESTORE", "copy:"+name, 0, values[i].Payload)
	}
	if got := s.MustDo("LINDEX", "copy:l", 1).Text; got != "y" {
		t.Errorf("restored %q", got)
	}
	if p.highest != offset {
		t.Errorf("the link knows of %d, not of %d", p.highest, offset)
	}
	if _, _, err := k.ReadKeys(ctx, offset+1_000_000, keys); !errors.Is(err, errNotNow) {
		t.Errorf("a source that is behind: %v", err)
	}
	s.MustDo("ACL", "SETUSER", "default", "-dump")
	if _, _, err := k.ReadKeys(ctx, 1, keys); !errors.As(err, new(*resp.Error)) {
		t.Errorf("without permission: %v", err)
	}
	s.MustDo("ACL", "SETUSER", "default", "+dump")
	p.lineage.ReplID = "another"
	before := p.highest
	if _, _, err := k.ReadKeys(ctx, 1, keys); !errors.Is(err, errNotNow) || p.highest != before {
		t.Errorf("of another history: %v", err)
	}
	p.superseded.Store(true)
	if _, _, err := k.ReadKeys(ctx, 1, keys); !errors.Is(err, haul.ErrSuperseded) {
		t.Errorf("superseded: %v", err)
	}
}

// TestAheadOfTheNextSource: a source that is promoted with less than what was read from the last one is another history,
// also when keys are read while the link changes over.
func TestAheadOfTheNextSource(t *testing.T) {
	p := NewPSYNC(PSYNCConfig{Dialer: topology.NewDialer(topology.Endpoint{Addrs: []string{"nowhere:1"}})})
	p.lineage.ReplID = "old"
	if err := p.ahead(topology.Node{ReplID: "old", MasterReplOffset: 500}, 100); err != nil {
		t.Fatal(err)
	}
	promoted := topology.Node{
		ReplID: "new", ReplID2: "old", SecondReplOffset: 401, MasterReplOffset: 450,
		Backlog: topology.Backlog{Active: true, First: 1, Length: 450},
	}
	if err := historyLeft(promoted, "old", 300, max(300, p.highest)); haul.ExitOf(err) != haul.ExitHistoryLost {
		t.Errorf("a node with 400 of 500: %v", err)
	}
	if p.renamed("new", 300, 400) {
		t.Error("the link goes on with a node that was judged by less than what was read")
	}
	if !p.renamed("new", 300, 500) || p.lineage.ReplID != "new" {
		t.Error("the link does not go on")
	}
	if err := p.ahead(topology.Node{ReplID: "old", MasterReplOffset: 600}, 100); !errors.Is(err, errNotNow) || p.highest != 500 {
		t.Errorf("read from the last source: %v", err)
	}
}

// TestAheadMeanwhile: a source is not said to have lost what it was read of after it had told how far it is.
func TestAheadMeanwhile(t *testing.T) {
	p := NewPSYNC(PSYNCConfig{Dialer: topology.NewDialer(topology.Endpoint{Addrs: []string{"nowhere:1"}})})
	p.lineage.ReplID = "id"
	asked := topology.Node{ReplID: "id", MasterReplOffset: 450, Backlog: topology.Backlog{Active: true, First: 1, Length: 450}}
	p.node, p.known = asked, 400
	if err := p.ahead(topology.Node{ReplID: "id", MasterReplOffset: 500}, 100); err != nil {
		t.Fatal(err)
	}
	h, node := p.judged(300)
	if err := h.left(node); err != nil || h.Highest != 400 {
		t.Errorf("judged by %d: %v", h.Highest, err)
	}
	p.known = 460
	if h, node := p.judged(300); haul.ExitOf(h.left(node)) != haul.ExitHistoryLost {
		t.Error("a source with 450 of 460 goes on")
	}
}

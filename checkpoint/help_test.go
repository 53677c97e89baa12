package checkpoint

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

const limit = time.Minute

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// newStore returns the store of a worker of the haul "test".
func newStore(t *testing.T, ep redistest.Endpoint, cluster bool, worker string) *Store {
	t.Helper()
	d := topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: ep.Addrs, Username: ep.Username, Password: ep.Password})
	d.ClientName = "keyhaul:test:" + worker
	s := New(Config{Dialer: d, Name: "test", Cluster: cluster, Log: zerolog.New(io.Discard)})
	t.Cleanup(s.Close)
	return s
}

func standalone(t *testing.T, opts redistest.Options) (*redistest.Server, *Store) {
	t.Helper()
	server := redistest.Start(t, opts)
	return server, newStore(t, server.Endpoint(), false, "w1")
}

func cluster(t *testing.T, opts redistest.ClusterOptions) (*redistest.Cluster, *Store) {
	t.Helper()
	c := redistest.StartCluster(t, opts)
	return c, newStore(t, c.Endpoint(), true, "w1")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// at is a fence of generation 4.
func at(offset int64) Fence {
	return Fence{Generation: 4, At: haul.Position{Generation: 4, ReplID: "abc", Offset: offset, DB: 3}}
}

var streaming = Record{Generation: 4, Phase: PhaseStreaming, Began: BeganEmpty, Start: at(100).At}

// begun saves a record of generation 4 that streams, and fences at 100.
func begun(t *testing.T, s *Store) {
	t.Helper()
	ctx := testContext(t)
	must(t, s.Save(ctx, streaming))
	must(t, s.Spread(ctx, at(100)))
}

func load(t *testing.T, s *Store) *State {
	t.Helper()
	st, err := s.Load(testContext(t))
	must(t, err)
	return st
}

package main

import (
	"errors"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/checkpoint"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// TestExpiry: how deadlines are held back is decided by what the target holds, can and allows.
func TestExpiry(t *testing.T) {
	const grace = time.Hour
	lost := errors.New("lost")
	for name, x := range map[string]struct {
		release string
		cluster bool   // so it says
		deny    string // right of the user on the target
		mode    string
		state   checkpoint.State
		began   checkpoint.Began
		want    checkpoint.Record
	}{
		"empty target":       {mode: expirySource, began: checkpoint.BeganEmpty, want: checkpoint.Record{Grace: grace.Milliseconds()}},
		"others' keys":       {mode: expirySource, began: checkpoint.BeganReplace},
		"the target's clock": {mode: expiryTarget, began: checkpoint.BeganEmpty},
		"resumed": {
			mode: expiryTarget, state: checkpoint.State{Found: true, Record: checkpoint.Record{Grace: 5}}, began: checkpoint.BeganEmpty,
			want: checkpoint.Record{Grace: 5},
		},
		"finished": {mode: expirySource, state: checkpoint.State{Found: true, Record: checkpoint.Record{Finished: 1}}, want: checkpoint.Record{Finished: 1}},
		"history lost in a finish": {
			mode: expirySource, began: checkpoint.BeganEmpty,
			state: checkpoint.State{Found: true, Lost: lost, Record: checkpoint.Record{Grace: 5, Finishing: "lower", Finished: 1}},
			want:  checkpoint.Record{Grace: grace.Milliseconds()},
		},
		"import mode": {
			release: "valkey-8.1", mode: expirySource, began: checkpoint.BeganEmpty, want: checkpoint.Record{Import: true},
		},
		"import mode, others' keys": {
			release: "valkey-8.1", mode: expirySource, began: checkpoint.BeganReplace, want: checkpoint.Record{Import: true},
		},
		"a cluster": {
			release: "valkey-8.1", cluster: true, mode: expirySource, began: checkpoint.BeganEmpty, want: checkpoint.Record{Grace: grace.Milliseconds()},
		},
		"a cluster, others' keys": {
			release: "valkey-8.1", cluster: true, mode: expirySource, began: checkpoint.BeganReplace, want: checkpoint.Record{Import: true},
		},
		"import mode forbidden": {
			release: "valkey-8.1", deny: "-config", mode: expirySource, began: checkpoint.BeganEmpty, want: checkpoint.Record{Grace: grace.Milliseconds()},
		},
		"import mode forbidden, others' keys": {release: "valkey-8.1", deny: "-config", mode: expirySource, began: checkpoint.BeganReplace},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := &app{cfg: config{ExpiryMode: x.mode, ExpiryGrace: grace}}
			e := &ends{target: topology.Node{Product: "redis"}}
			if x.release != "" {
				rt.Require(t, x.release)
				server := rt.Start(t, rt.Options{Release: x.release})
				server.MustDo("ACL", "SETUSER", "writer", "on", ">secret", "~*", "&*", "+@all")
				if x.deny != "" {
					server.MustDo("ACL", "SETUSER", "writer", x.deny)
				}
				a.target = topology.NewDialer(topology.Endpoint{
					Scheme: topology.SchemeTCP, Addrs: server.Endpoint().Addrs, Username: "writer", Password: "secret",
				})
				conn := server.Dial()
				defer conn.Close()
				var err error
				if e.target, err = topology.Inspect(t.Context(), conn); err != nil {
					t.Fatal(err)
				}
				a.openStore(e.target.Cluster, nil)
				defer a.store.Close()
				e.target.Cluster = x.cluster
			}
			l := &ledger{first: x.state.Record}
			l.first.Began = x.began
			if err := a.expiry(t.Context(), e, &x.state, l); err != nil {
				t.Fatal(err)
			}
			got, want := l.first, x.want
			if got.Grace != want.Grace || got.Import != want.Import || got.Finishing != want.Finishing || got.Finished != want.Finished {
				t.Errorf("%+v, want %+v", got, want)
			}
		})
	}
}

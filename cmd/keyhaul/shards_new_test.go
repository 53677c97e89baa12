package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// TestShardsBegin: a link that learns its history while the source is compared with the links does not get a second one
// beside it.
func TestShardsBegin(t *testing.T) {
	const addr = "127.0.0.1:7000"
	v := &survey{Cluster: &topology.Cluster{}, nodes: map[string]topology.Node{addr: {ReplID: "1234", ReplID2: strings.Repeat("0", 40)}}}
	s := &shards{}
	l := &shard{all: s, number: 1, addr: addr}
	at, others := v.linksOf([]*shard{l})
	if len(at) != 0 {
		t.Errorf("a link without a history is taken for that of a primary: %v", at)
	}
	l.id = "1234"
	if s.isNew(others, addr, v) {
		t.Error("the shard would get two links")
	}
	if at, others = v.linksOf([]*shard{l}); at[addr] != l || len(others) != 0 {
		t.Errorf("links by addresses %v, others %v", at, others)
	}
}

// TestReleaseAgain: a slot that was taken from its link is not passed over before the link's record says so, and a record
// is not written to a server that came back with less until the link has read what it has.
func TestReleaseAgain(t *testing.T) {
	target := rt.Start(t, rt.Options{})
	s := &shards{app: &app{log: zerolog.Nop()}, losers: map[int32]bool{}}
	store := checkpoint.New(checkpoint.Config{Dialer: topology.NewDialer(topology.Endpoint{Scheme: topology.SchemeTCP, Addrs: []string{target.Addr}}), Name: "default", Link: "abc"})
	defer store.Close()
	l := &shard{all: s, number: 1, link: link{app: s.app, name: "abc", store: store}}
	s.links = []*shard{l}
	s.slots.Give(7, 1)
	s.slots.Give(8, 1)
	if err := store.Save(t.Context(), checkpoint.Record{Generation: 1, Phase: checkpoint.PhaseStreaming, Began: checkpoint.BeganEmpty, Slots: l.known()}); err != nil {
		t.Fatal(err)
	}
	load := func() *topology.SlotSet {
		st, err := store.Load(t.Context())
		if err != nil || !st.Found {
			t.Fatal(st, err)
		}
		return st.Record.Slots
	}
	load()
	target.MustDo("SAVE")
	target.Kill()
	target.Restart()
	for range 2 {
		if err := s.release(t.Context(), []uint16{7}); !errors.Is(err, checkpoint.ErrRestarted) {
			t.Fatalf("released: %v", err)
		}
	}
	if slots := load(); slots.Len() != 2 {
		t.Fatalf("a record was written: %v", slots)
	}
	if err := s.release(t.Context(), []uint16{7}); err != nil {
		t.Fatal(err)
	}
	if slots := load(); slots.String() != "8" {
		t.Errorf("the link's slots are %v", slots)
	}
}

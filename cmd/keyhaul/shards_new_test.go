package main

import (
	"strings"
	"testing"

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

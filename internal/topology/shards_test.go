package topology

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/internal/resp"
)

func decodeReply(t *testing.T, wire string) resp.Reply {
	t.Helper()
	r, _, err := resp.Decode([]byte(strings.ReplaceAll(wire, " ", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Redis 7.0.15, three nodes, one replica, one slot away; as captured, ids shortened.
const slots70 = "*4 " +
	"*4 :0 :99 *4 $9 127.0.0.1 :7001 $2 aa *0 *4 $9 127.0.0.1 :7004 $2 dd *0 " +
	"*4 :101 :5460 *4 $9 127.0.0.1 :7001 $2 aa *0 *4 $9 127.0.0.1 :7004 $2 dd *0 " +
	"*3 :10923 :16383 *4 $9 127.0.0.1 :7003 $2 cc *0 " +
	"*3 :5461 :10922 *4 $9 127.0.0.1 :7002 $2 bb *0 "

func TestParseSlots(t *testing.T) {
	c, err := ParseSlots(decodeReply(t, slots70), "seed")
	if err != nil {
		t.Fatal(err)
	}
	want := []Shard{
		{ID: "aa", Primary: "127.0.0.1:7001", Replicas: []string{"127.0.0.1:7004"}, Slots: []SlotRange{{0, 99}, {101, 5460}}},
		{ID: "bb", Primary: "127.0.0.1:7002", Slots: []SlotRange{{5461, 10922}}},
		{ID: "cc", Primary: "127.0.0.1:7003", Slots: []SlotRange{{10923, 16383}}},
	}
	if !reflect.DeepEqual(c.Shards, want) {
		t.Errorf("got %+v", c.Shards)
	}
	if got := c.Covered(); got != SlotCount-1 {
		t.Errorf("covered %d", got)
	}
	for slot, addr := range map[uint16]string{0: "127.0.0.1:7001", 100: "", 5460: "127.0.0.1:7001", 5461: "127.0.0.1:7002", 16383: "127.0.0.1:7003", 16384: ""} {
		got, ok := c.Owner(slot)
		if got != addr || ok != (addr != "") {
			t.Errorf("slot %d: %q %v, want %q", slot, got, ok, addr)
		}
	}
}

func TestParseSlotsEndpoints(t *testing.T) {
	for name, c := range map[string]struct{ node, want, err string }{
		"null":                {"*4 $-1 :7001 $2 aa *2 $2 ip $7 1.2.3.4", "seed:7001", ""},
		"empty":               {"*4 $0  :7001 $2 aa *0", "seed:7001", ""},
		"before 4.0":          {"*2 $7 1.2.3.4 :7001", "1.2.3.4:7001", ""},
		"ipv6":                {"*3 $3 ::1 :7001 $2 aa", "[::1]:7001", ""},
		"host name":           {"*4 $6 node-1 :7001 $2 aa *2 $2 ip $7 1.2.3.4", "node-1:7001", ""},
		"unknown host name":   {"*4 $1 ? :7001 $2 aa *2 $2 ip $7 1.2.3.4", "1.2.3.4:7001", ""},
		"nothing known":       {"*4 $1 ? :7001 $2 aa *0", "", "cluster-announce-hostname"},
		"port of plain, none": {"*3 $7 1.2.3.4 :0 $2 aa", "", "no valid port"},
	} {
		got, err := ParseSlots(decodeReply(t, "*1 *3 :0 :1 "+c.node+" "), "seed")
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if addr, _ := got.Owner(1); addr != c.want {
			t.Errorf("%s: %s, want %s", name, addr, c.want)
		}
	}
}

func TestParseSlotsPassesOverAReplicaWithoutAddress(t *testing.T) {
	c, err := ParseSlots(decodeReply(t, "*1 *4 :0 :1 *3 $1 a :1 $1 x *4 $1 ? :2 $1 y *0 "), "seed")
	if err != nil || len(c.Shards[0].Replicas) != 0 {
		t.Errorf("%+v %v", c, err)
	}
}

func TestParseSlotsRefusesNonsense(t *testing.T) {
	for _, wire := range []string{
		"+OK ", "*1 +OK ", "*1 *2 :0 :1 ", "*1 *3 :0 :16384 *2 $1 a :1 ", "*1 *3 :5 :4 *2 $1 a :1 ",
		"*1 *3 :-1 :4 *2 $1 a :1 ", "*1 *3 :0 :1 *1 $1 a ", "*1 *3 $1 0 :1 *2 $1 a :1 ",
	} {
		if _, err := ParseSlots(decodeReply(t, wire), "seed"); err == nil {
			t.Errorf("%q was accepted", wire)
		}
	}
	c, err := ParseSlots(decodeReply(t, "*0 "), "seed")
	if err != nil || c.Covered() != 0 {
		t.Errorf("an empty cluster: %v", err)
	}
}

func FuzzParseSlots(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(slots70, " ", "\r\n")))
	f.Fuzz(func(t *testing.T, wire []byte) {
		r, _, err := resp.Decode(wire)
		if err != nil {
			return
		}
		if c, err := ParseSlots(r, "seed"); err == nil {
			for slot := range uint16(SlotCount) {
				if addr, ok := c.Owner(slot); ok && addr == "" {
					t.Fatal("an owner without an address")
				}
			}
		}
	})
}

func TestDiscoverTakesTheWidestAnswer(t *testing.T) {
	n := newFakeNet(t)
	n.serve("gone:1", nil)
	n.serve("alone:1", scripted(map[string]string{"CLUSTER": "*1 *3 :0 :1 *2 $5 alone :1 "}))
	n.serve("member:1", scripted(map[string]string{"CLUSTER": slots70}))
	d := n.dialer("")
	c, err := Discover(t.Context(), d, []string{"gone:1", "alone:1", "member:1"})
	if err != nil || c.Seed != "member:1" {
		t.Errorf("%+v %v", c, err)
	}
	n.serve("single:1", scripted(map[string]string{"CLUSTER": "-ERR|This|instance|has|cluster|support|disabled "}))
	_, err = Discover(t.Context(), d, []string{"gone:1", "single:1"})
	if !errors.Is(err, ErrNotCluster) || !strings.Contains(err.Error(), "gone:1: dial: connection refused; single:1: CLUSTER SLOTS: ") {
		t.Errorf("got %v", err)
	}
	if _, err = Discover(t.Context(), d, nil); err == nil {
		t.Error("no seeds were accepted")
	}
}

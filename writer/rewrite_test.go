package writer

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// nodeOf is what a server of a release says of itself: "redis 7.0".
func nodeOf(t testing.TB, release string) topology.Node {
	t.Helper()
	var n topology.Node
	if release == "" {
		return n
	}
	if _, err := fmt.Sscanf(release, "%s %d.%d", &n.Product, &n.Major, &n.Minor); err != nil {
		t.Fatal(err)
	}
	n.Version = fmt.Sprintf("%d.%d.1", n.Major, n.Minor)
	n.RedisVersion = n.Version
	if n.Product == "redict" {
		n.RedisVersion = "7.2.4"
	}
	return n
}

// received is when the commands of these tests were.
const received = 1_700_000_000_000

// newRewriteBatch is an empty batch of a stream.
func newRewriteBatch(t testing.TB) *batch {
	t.Helper()
	b := &batch{&rig{t: t}, haul.NewOwn(1, func() {})}
	b.b.Own = false
	b.b.Received = func(int64) time.Time { return time.UnixMilli(received) }
	return b
}

// apply rewrites a batch for a target.
func apply(cfg Config, b *haul.Batch) error {
	cfg.Log = zerolog.Nop()
	return newDispatcher(cfg).rewriter.apply(b)
}

// rewritten is what becomes of commands that are one entry for a target.
func rewritten(t testing.TB, cfg Config, commands ...[]string) (*haul.Batch, string, error) {
	t.Helper()
	b := newRewriteBatch(t)
	e := haul.Entry{Kind: haul.KindCommand, N: uint32(len(commands))}
	if len(commands) > 1 {
		e.Kind = haul.KindTransaction
	}
	for _, c := range commands {
		b.command(0, c)
	}
	b.b.Buf = append(b.b.Buf, "*3\r\nbytes that the reader has left"...)
	b.entry(e)
	err := apply(cfg, b.b)
	return b.b, describe(b.b), err
}

// describe prints the commands of a batch, or why they are not written.
func describe(b *haul.Batch) string {
	var all []string
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Drop != haul.DropNone {
			all = append(all, "<"+e.Drop.String()+">")
			continue
		}
		cmds := b.CommandsOf(e)
		for j := range cmds {
			n, arg, _ := argsOf(b, e, &cmds[j])
			var words []string
			for k := range n {
				if words = append(words, string(arg(k))); k == 1 && words[0] == "EVAL" {
					words[1] = "script"
				}
			}
			if e.Big == nil && string(b.Bytes(cmds[j].Raw)) != string(resp.AppendCommand(nil, wireOf(n, arg)...)) {
				all = append(all, fmt.Sprintf("(wire form %q)", b.Bytes(cmds[j].Raw)))
			}
			all = append(all, strings.Join(words, " "))
		}
	}
	return strings.Join(all, " | ")
}

func wireOf(n int, arg func(int) []byte) (words []string) {
	for i := range n {
		words = append(words, string(arg(i)))
	}
	return words
}

func TestRewrite(t *testing.T) {
	tests := []struct{ target, command, want string }{
		{"redis 8.0", "SET k v", "SET k v"},
		{"redis 8.0", "SET k v PXAT 5", "SET k v PXAT 5"},
		{"redis 8.0", "set k v NX", "set k v NX"},
		{"redis 8.0", "set k v XX GET", "set k v XX GET"},
		{"redis 6.2", "set k v XX GET", "SET k v"},
		{"redis 8.0", "SET k v EX 10", "SET k v PXAT 1700000010000"},
		{"redis 8.0", "SET k v NX PX 10", "SET k v PXAT 1700000000010"},
		{"", "SET k v NX PX 10", "SET k v | PEXPIREAT k 1700000000010"},
		{"", "SET k v PXAT 5", "SET k v PXAT 5"},
		{"redis 6.0", "SET k v PXAT 5", "SET k v | PEXPIREAT k 5"},
		{"redis 6.0", "SET k v EXAT 5", "SET k v | PEXPIREAT k 5000"},
		{"redis 6.0", "SET k v KEEPTTL", "SET k v KEEPTTL"},
		{"redis 5.0", "SET k v KEEPTTL", "EVAL script 1 k v"},
		{"redis 8.0", "SET k v IFEQ old", "SET k v"},
		{"redis 8.0", "SET k v IFEQ old KEEPTTL", "SET k v KEEPTTL"},
		{"valkey 8.1", "SET k v IFEQ old", "SET k v IFEQ old"},
		{"redis 8.4", "SET k v IFDNE 00", "SET k v IFDNE 00"},
		{"valkey 9.1", "SET k v IFDNE 00", "SET k v"},
		{"redis 7.0", "SET k EX EX nonsense", "SET k EX EX nonsense"},
		{"redis 7.0", "SETEX k 10 v", "SET k v PXAT 1700000010000"},
		{"keydb 6.3", "PSETEX k 10 v", "SET k v PXAT 1700000000010"},
		{"redis 6.0", "PSETEX k 10 v", "SET k v | PEXPIREAT k 1700000000010"},
		{"valkey 9.1", "EXPIRE k 10", "PEXPIREAT k 1700000010000"},
		{"valkey 9.1", "PEXPIRE k 10 GT", "PEXPIREAT k 1700000000010 GT"},
		{"redis 6.0", "EXPIRE k 10 NX", "PEXPIREAT k 1700000010000"},
		{"redis 6.0", "PEXPIREAT k 10 NX", "PEXPIREAT k 10"},
		{"redis 6.0", "EXPIREAT k 10", "EXPIREAT k 10"},
		{"redis 7.0", "PEXPIREAT k 10 NX", "PEXPIREAT k 10 NX"},
		{"valkey 9.1", "MSETEX 2 a 1 b 2 PXAT 5", "MSETEX 2 a 1 b 2 PXAT 5"},
		{"valkey 9.0", "MSETEX 2 a 1 b 2 NX PXAT 5", "SET a 1 PXAT 5 | SET b 2 PXAT 5"},
		{"redis 8.0", "MSETEX 2 a 1 b 2 KEEPTTL", "SET a 1 KEEPTTL | SET b 2 KEEPTTL"},
		{"redis 6.0", "MSETEX 2 a 1 b 2 PXAT 5", "SET a 1 | PEXPIREAT a 5 | SET b 2 | PEXPIREAT b 5"},

		{"redis 8.0", "HSETEX h FNX PXAT 5 FIELDS 1 f v", "HSETEX h FNX PXAT 5 FIELDS 1 f v"},
		{"redis 8.0", "HSETEX h XX PXAT 5 FIELDS 1 f v", "HSETEX h PXAT 5 FIELDS 1 f v"},
		{"redis 8.0", "HSETEX h NX FIELDS 1 f v", "HSETEX h FIELDS 1 f v"},
		{"valkey 9.1", "HSETEX h NX KEEPTTL FIELDS 1 f v", "HSETEX h NX KEEPTTL FIELDS 1 f v"},
		{"redis 7.4", "HSETEX h PXAT 5 FIELDS 2 f 1 g 2", "HSET h f 1 g 2 | HPEXPIREAT h 5 FIELDS 2 f g"},
		{"redis 7.4", "HSETEX h FIELDS 1 f 1", "HSET h f 1"},
		{"redis 7.4", "HSETEX h KEEPTTL FIELDS 1 f 1", "HSET h f 1"},
		{"redis 7.0", "HSETEX h KEEPTTL FIELDS 1 f 1", "HSET h f 1"},
		{"redis 7.0", "HSETEX h PXAT 5 FIELDS 1 f 1", "HSET h f 1"},
		{"redis 7.0", "HPEXPIREAT h 5 FIELDS 1 f", "<unsupported>"},
		{"redis 7.4", "HPEXPIREAT h 5 FIELDS 1 f", "HPEXPIREAT h 5 FIELDS 1 f"},
		{"redis 8.0", "HPEXPIREAT h 70368744177664 FIELDS 1 f", "HPEXPIREAT h 70368744177663 FIELDS 1 f"},
		{"redis 8.0", "HPEXPIREAT h 70368744177663 FIELDS 1 f", "HPEXPIREAT h 70368744177663 FIELDS 1 f"},
		{"redis 8.0", "HSETEX h PXAT 99999999999999 FIELDS 1 f v", "HSETEX h PXAT 70368744177663 FIELDS 1 f v"},
		{"redis 7.4", "HSETEX h PXAT 99999999999999 FIELDS 1 f v", "HSET h f v | HPEXPIREAT h 70368744177663 FIELDS 1 f"},
		{"valkey 9.1", "HSETEX h PXAT 99999999999999 FIELDS 1 f v", "HSETEX h PXAT 99999999999999 FIELDS 1 f v"},
		{"valkey 8.1", "HPERSIST h FIELDS 1 f", "<unsupported>"},
		{"redis 7.0", "HGETDEL h FIELDS 2 f g", "HDEL h f g"},
		{"valkey 9.1", "HGETDEL h FIELDS 2 f g", "HGETDEL h FIELDS 2 f g"},

		{"redis 8.0", "xadd x MAXLEN = 2 LIMIT 10 1-1 f LIMIT", "XADD x MAXLEN = 2 1-1 f LIMIT"},
		{"redis 8.0", "XADD x MAXLEN 2 1-1 f v", "XADD x MAXLEN 2 1-1 f v"},
		{"", "XTRIM x MINID = 5-0 LIMIT 10", "XTRIM x MINID = 5-0"},
		{"redis 6.0", "XADD x NOMKSTREAM 1-1 f v", "XADD x 1-1 f v"},
		{"redis 6.0", "XADD x MINID = 5-1 6-0 f v", "EVAL script 1 x 5-0 | XADD x 6-0 f v"},
		{"redis 6.0", "XTRIM x MINID = 5 LIMIT 0", "EVAL script 1 x 4-18446744073709551615"},
		{"redis 8.6", "XADD x IDMP p i MAXLEN = 5 1-1 f v", "XADD x MAXLEN = 5 1-1 f v"},
		{"redis 8.6", "XADD x IDMPAUTO p 1-1 f v", "XADD x 1-1 f v"},
		{"redis 8.6", "XIDMPRECORD x p i 1-1", "<needless>"},
		{"valkey 9.1", "XCFGSET x IDMP-DURATION 5", "<needless>"},
		{"redis 8.2", "XADD x DELREF MAXLEN = 5 1-1 f v", "XADD x DELREF MAXLEN = 5 1-1 f v"},
		{"redis 8.0", "XADD x KEEPREF MAXLEN = 5 1-1 f v", "XADD x MAXLEN = 5 1-1 f v"},
		{"redis 8.0", "XADD x DELREF MAXLEN = 5 1-1 f v", "XADD x MAXLEN = 5 1-1 f v"},
		{"redis 8.0", "XDELEX x ACKED IDS 1 1-1", "<unsupported>"},
		{"redis 7.0", "XGROUP CREATE x g 0 ENTRIESREAD 3", "XGROUP CREATE x g 0 ENTRIESREAD 3"},
		{"redis 6.0", "XGROUP CREATE x g 0 MKSTREAM ENTRIESREAD 3", "XGROUP CREATE x g 0 MKSTREAM"},
		{"redis 6.0", "xgroup setid x g 5-1 ENTRIESREAD 3", "XGROUP setid x g 5-1"},
		{"redis 6.2", "XGROUP CREATECONSUMER x g c", "XGROUP CREATECONSUMER x g c"},
		{"redis 6.0", "XGROUP CREATECONSUMER x g c", "XREADGROUP GROUP g c COUNT 1 STREAMS x 0"},
		{"redis 6.0", "XSETID x 5-1 ENTRIESADDED 9 MAXDELETEDID 1-1", "XSETID x 5-1"},
		{"redis 6.0", "XCLAIM x g c 0 1-1 TIME 5 RETRYCOUNT 1 FORCE JUSTID LASTID 1-1", "XCLAIM x g c 0 1-1 TIME 5 RETRYCOUNT 1 FORCE JUSTID LASTID 1-1"},

		{"redis 6.0", "LPOP l 2", "LTRIM l 2 -1"},
		{"redis 6.0", "RPOP l 2", "LTRIM l 0 -3"},
		{"redis 6.0", "RPOP l", "RPOP l"},
		{"redis 7.0", "RPOP l 2", "RPOP l 2"},
		{"redis 6.0", "LMOVE a b RIGHT LEFT", "RPOPLPUSH a b"},
		{"redis 6.0", "lmove a b left RIGHT", "EVAL script 2 a b LEFT RIGHT"},
		{"redis 6.0", "COPY a b REPLACE", "EVAL script 2 a b"},
		{"redis 6.0", "COPY a b DB 3", "EVAL script 2 a b 3"},
		{"redis 6.0", "FLUSHALL SYNC", "FLUSHALL"},
		{"redis 6.0", "FLUSHDB ASYNC", "FLUSHDB ASYNC"},
		{"redis 6.0", "ZADD z NX CH 5 a", "ZADD z NX CH 5 a"},
		{"redis 6.0", "ZADD z GT CH 5 a", "ZADD z 5 a"},
		{"redis 6.0", "ZADD z XX LT INCR -5 a", "ZINCRBY z -5 a"},
		{"redis 6.0", "ZADD z GT XX 5 a 6 b", "EVAL script 1 z GT XX 5 a 6 b"},
		{"redis 6.0", "ZRANGESTORE a b 0 -1", "EVAL script 2 a b ZRANGE 0 -1"},
		{"redis 6.0", "ZRANGESTORE a b (5 2 BYSCORE REV LIMIT 1 2", "EVAL script 2 a b ZREVRANGEBYSCORE (5 2 LIMIT 1 2"},
		{"redis 6.0", "ZDIFFSTORE a 2 b c", "EVAL script 3 a b c"},
		{"redis 6.0", "GEOSEARCHSTORE a b FROMLONLAT 1 2 BYRADIUS 3 km ASC COUNT 1", "GEORADIUS b 1 2 3 km ASC COUNT 1 STORE a"},
		{"redis 6.0", "GEOSEARCHSTORE a b BYRADIUS 3 km FROMMEMBER m STOREDIST", "GEORADIUSBYMEMBER b m 3 km STOREDIST a"},
		{"redis 6.0", "GEOSEARCHSTORE a b FROMLONLAT 1 2 BYBOX 3 4 km", "<unsupported>"},
		{"redis 7.0", "GEOSEARCHSTORE a b FROMLONLAT 1 2 BYBOX 3 4 km", "GEOSEARCHSTORE a b FROMLONLAT 1 2 BYBOX 3 4 km"},

		{"redis 6.0", "GEORADIUS a 1 2 3 km COUNT 5 ANY STORE b", "<unsupported>"},
		{"redis 6.0", "GEORADIUS a 1 2 3 km COUNT 5 STORE any", "GEORADIUS a 1 2 3 km COUNT 5 STORE any"},
		{"redis 6.2", "GEORADIUS a 1 2 3 km COUNT 5 ANY STORE b", "GEORADIUS a 1 2 3 km COUNT 5 ANY STORE b"},

		{"redis 6.0", "SPUBLISH c m", "PUBLISH c m"},
		{"redict 7.3", "SPUBLISH c m", "SPUBLISH c m"},
		{"redis 6.2", "FUNCTION DELETE lib", "<unsupported>"},
		{"redis 7.0", "FUNCTION DELETE lib", "FUNCTION DELETE lib"},
		{"redict 7.3", "HPEXPIREAT h 5 FIELDS 1 f", "<unsupported>"},
		{"valkey 9.1", "VADD v VALUES 1 1 e", "<unsupported>"},
		{"redis 8.0", "VADD v VALUES 1 1 e", "VADD v VALUES 1 1 e"},
		{"redis 8.0", "ARSET a 1 v", "<unsupported>"},
	}
	for _, tt := range tests {
		cfg := Config{Node: nodeOf(t, tt.target), Unsupported: UnsupportedDegrade}
		if _, got, err := rewritten(t, cfg, strings.Fields(tt.command)); got != tt.want || err != nil {
			t.Errorf("to %s: %s: %s, %v, want %s", tt.target, tt.command, got, err, tt.want)
		}
	}
}

// TestRewriteTransaction: commands keep their order and the others their form; what is left out is not in the way.
func TestRewriteTransaction(t *testing.T) {
	words := func(lines ...string) (all [][]string) {
		for _, line := range lines {
			all = append(all, strings.Fields(line))
		}
		return all
	}
	tests := []struct {
		how  Unsupported
		in   [][]string
		want string
	}{
		{UnsupportedDegrade, words("INCR a", "SET b v PXAT 5", "INCR c"), "INCR a | SET b v | PEXPIREAT b 5 | INCR c"},
		{UnsupportedDegrade, words("INCR a", "HPEXPIREAT h 5 FIELDS 1 f", "HSETEX h PXAT 5 FIELDS 1 f v"), "INCR a | HSET h f v"},
		{UnsupportedDrop, words("INCR a", "HSETEX h PXAT 5 FIELDS 1 f v", "COPY a b"), "INCR a | EVAL script 2 a b"},
		{UnsupportedDrop, words("HPERSIST h FIELDS 1 f", "FUNCTION FLUSH"), "<unsupported>"},
		{UnsupportedDrop, words("XIDMPRECORD x p i 1-1", "XIDMPRECORD x p j 2-1"), "<needless>"},
		{UnsupportedFail, words("INCR a", "INCR b"), "INCR a | INCR b"},
	}
	for _, tt := range tests {
		b, got, err := rewritten(t, Config{Node: nodeOf(t, "redis 6.0"), Unsupported: tt.how}, tt.in...)
		if got != tt.want || err != nil || len(b.Entries) != 1 || b.Entries[0].Kind != haul.KindTransaction {
			t.Errorf("%s: %s, %v, want %s", tt.in, got, err, tt.want)
		}
	}
}

// TestRewriteOfRest: a transaction of which other commands were left out before is left out when nothing remains.
func TestRewriteOfRest(t *testing.T) {
	b := newRewriteBatch(t)
	b.tx(0, "INCR a", "XIDMPRECORD x p i 1-1")
	b.b.Commands[0].Skip = true
	if err := apply(Config{Node: nodeOf(t, "redis 7.0")}, b.b); err != nil || describe(b.b) != "<needless>" {
		t.Errorf("%s, %v", describe(b.b), err)
	}
}

// TestRewriteBatch: others in the batch stay what they are, and its buffer has no more than what is written.
func TestRewriteBatch(t *testing.T) {
	var lines, want []string
	for i := range 200 {
		lines = append(lines, fmt.Sprintf("HSET h %d v", i), fmt.Sprintf("EXPIRE k%d 10", i), fmt.Sprintf("XIDMPRECORD x p %d 1-1", i))
		want = append(want, fmt.Sprintf("HSET h %d v", i), fmt.Sprintf("PEXPIREAT k%d 1700000010000", i), "<needless>")
	}
	b := newRewriteBatch(t)
	for _, line := range lines {
		b.words(line)
	}
	r := newDispatcher(Config{Node: nodeOf(t, "redis 7.0"), Log: zerolog.Nop()}).rewriter
	for range 2 { // it may be done again, and is nothing new then
		if err := r.apply(b.b); err != nil || describe(b.b) != strings.Join(want, " | ") {
			t.Fatalf("%.300s, %v", describe(b.b), err)
		}
		size := 0
		for i := range b.b.Commands {
			size += int(b.b.Commands[i].Raw.Len)
		}
		if len(b.b.Buf) != size {
			t.Errorf("%d bytes in the buffer, commands have %d", len(b.b.Buf), size)
		}
	}
	full := newRewriteBatch(t)
	full.words("EXPIRE k 10")
	full.b.Buf = append(full.b.Buf, make([]byte, haul.BatchBytes)...)
	buf := &full.b.Buf[0]
	if err := r.apply(full.b); err != nil || &full.b.Buf[0] != buf {
		t.Errorf("another buffer was taken although there was room: %v", err)
	}
}

// TestRewriteNeedsNoMemory: commands that pass cost nothing.
func TestRewriteNeedsNoMemory(t *testing.T) {
	b := newRewriteBatch(t)
	for range 100 {
		b.words("SET k v PXAT 1700000010000")
		b.words("HSET h f v")
		b.words("XADD x 1-1 f v")
		b.words("PEXPIREAT k 5")
	}
	r := newDispatcher(Config{Node: nodeOf(t, "redis 8.0"), Log: zerolog.Nop()}).rewriter
	if n := testing.AllocsPerRun(100, func() { _ = r.apply(b.b) }); n > 0 {
		t.Errorf("%v allocations for 400 commands", n)
	}
}

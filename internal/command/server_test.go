package command

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// serverPrograms finds the servers that scripts/servers.sh installs, else whatever redis-server is on PATH.
func serverPrograms(t *testing.T) (programs []string) {
	dir := os.Getenv("KEYHAUL_SERVERS")
	if home, err := os.UserHomeDir(); dir == "" && err == nil {
		dir = filepath.Join(home, ".cache", "keyhaul", "servers")
	}
	for _, name := range []string{"redis-8.0", "valkey-9.1"} {
		path := filepath.Join(dir, "bin", name+"-server")
		if _, err := os.Stat(path); err == nil {
			programs = append(programs, path)
		}
	}
	if path, err := exec.LookPath("redis-server"); err == nil && len(programs) == 0 {
		programs = append(programs, path)
	}
	if len(programs) == 0 {
		t.Skip("no server to compare with: scripts/servers.sh installs them")
	}
	return programs
}

// freeAddr finds a port that is free, as is the one for the cluster bus, 10000 above it.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().(*net.TCPAddr)
		bus, err := net.ListenTCP("tcp", &net.TCPAddr{IP: addr.IP, Port: (addr.Port + 10000) % (1 << 16)})
		_ = l.Close()
		if err != nil {
			continue
		}
		_ = bus.Close()
		if addr.Port+10000 < 1<<16 {
			return addr.String()
		}
	}
	t.Fatal("no two free ports")
	return ""
}

// startServer starts a server of one node in cluster mode, so that it knows slots, and stops it when the test ends.
func startServer(t *testing.T, program string) *resp.Conn {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	var log bytes.Buffer
	cmd := exec.Command(program, "--port", port, "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", "",
		"--daemonize", "no", "--cluster-enabled", "yes")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	for range 100 {
		if c, err := net.Dial("tcp", addr); err == nil {
			t.Cleanup(func() { _ = c.Close() })
			return resp.NewConn(c)
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("%s did not start", program)
	return nil
}

func ask(t *testing.T, c *resp.Conn, argv ...[]byte) (resp.Reply, error) {
	t.Helper()
	args := make([]string, len(argv))
	for i, a := range argv {
		args[i] = string(a)
	}
	return c.Do(context.Background(), 5*time.Second, args...)
}

// agreed are commands of whose keys the servers must say what we say. Left out are SPUBLISH and its like, whose channels
// are no keys to them.
var agreed = []string{
	"SET k v PX 5", "GET k", "XADD k 1-1 f v", "RESTORE-ASKING k 0 p", "HSET k f v", "HSETEX k FIELDS 1 f v", "ZADD k 1 m",
	"RENAME a b", "COPY a b DB 3", "SMOVE a b m", "LMOVE a b LEFT LEFT", "RPOPLPUSH a b", "LCS a b", "ZRANGESTORE a b 0 1",
	"GEOSEARCHSTORE d s FROMMEMBER m BYRADIUS 1 m", "DEL a", "UNLINK a b c", "BLPOP a b 0", "BZPOPMIN a b 0", "MGET a b",
	"BITOP AND d a b", "BITOP NOT d a", "SUNIONSTORE d a b", "PFMERGE d a", "PFCOUNT a b", "MSET a 1 b 2", "MSETNX a 1",
	"ZUNIONSTORE d 2 a b WEIGHTS 1 2", "ZINTERSTORE d 1 a", "ZDIFF 1 a WITHSCORES", "SINTERCARD 2 a b LIMIT 1",
	"LMPOP 2 a b LEFT", "ZMPOP 1 a MIN", "BLMPOP 0 2 a b LEFT", "BZMPOP 0 1 a MIN", "EVAL s 2 a b arg", "EVALSHA s 1 a",
	"FCALL f 1 a", "XGROUP CREATE k g 0", "XGROUP SETID k g 0", "XINFO STREAM k", "OBJECT ENCODING k", "MEMORY USAGE k",
	"SORT k", "SORT k BY w* LIMIT 0 5 GET # GET p* DESC ALPHA STORE d", "SORT k STORE a STORE b", "SORT k GET STORE STORE d",
	"SORT_RO k GET STORE", "GEORADIUS k 1 1 1 m", "GEORADIUS k 1 1 1 m COUNT 3 ANY STOREDIST d",
	"GEORADIUSBYMEMBER k m 1 m STORE d", "MIGRATE h 1 k 0 1 COPY", `MIGRATE h 1 "" 0 1 COPY AUTH keys KEYS a b`,
	`MIGRATE h 1 "" 0 1 AUTH2 keys pw REPLACE KEYS KEYS a`, "XREAD STREAMS a b 0 0", "XREAD COUNT 1 BLOCK 0 STREAMS a $",
	"XREADGROUP GROUP streams STREAMS COUNT 1 NOACK STREAMS streams b > >", "XCLAIM k g c 0 1-1", "XAUTOCLAIM k g c 0 0",
	"VADD k VALUES 1 1 e", "MSETEX 2 a 1 b 2 PXAT 5", "DELIFEQ k v", "DELEX k", "INCREX k", "XDELEX k KEEPREF IDS 1 1-1",
}

func TestAgainstServers(t *testing.T) {
	for _, program := range serverPrograms(t) {
		t.Run(filepath.Base(program), func(t *testing.T) {
			c := startServer(t, program)
			t.Run("keys", func(t *testing.T) { compareKeys(t, c) })
			t.Run("slots", func(t *testing.T) { compareSlots(t, c) })
			t.Run("fixed", func(t *testing.T) { compareFirstKeys(t, c) })
		})
	}
}

func compareKeys(t *testing.T, c *resp.Conn) {
	for _, line := range agreed {
		argv := words(line)
		if known, err := ask(t, c, []byte("COMMAND"), []byte("INFO"), argv[0]); err != nil {
			t.Fatal(err)
		} else if len(known.Array[0].Array) == 0 {
			t.Logf("%s: unknown to this server", argv[0])
			continue
		} else if len(known.Array[0].Array) < 10 {
			t.Skip("a server older than 7.0, which takes options of MIGRATE for keys")
		}
		reply, err := ask(t, c, append([][]byte{[]byte("COMMAND"), []byte("GETKEYS")}, argv...)...)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		var want, got []string
		for _, k := range reply.Array {
			want = append(want, k.Text)
		}
		keys, err := keysOf(nil, argv)
		for _, k := range keys {
			got = append(got, string(argv[k]))
		}
		slices.Sort(want) // ZUNIONSTORE: sources first
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v; the server says %q", line, got, err, want)
		}
	}
}

func compareSlots(t *testing.T, c *resp.Conn) {
	for _, key := range []string{"", "foo", "{user1000}.following", "foo{}{bar}", "foo{{bar}}zap", "{}", "}{", "a{b", "a}b{c}"} {
		reply, err := ask(t, c, []byte("CLUSTER"), []byte("KEYSLOT"), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		if got := Slot([]byte(key)); int64(got) != reply.Int {
			t.Errorf("Slot(%q) = %d; the server says %d", key, got, reply.Int)
		}
	}
}

// compareFirstKeys holds the whole table against the older, simpler fields of COMMAND: where first, last and step tell
// of one fixed key and keys do not move, so must FirstKey.
func compareFirstKeys(t *testing.T, c *resp.Conn) {
	reply, err := ask(t, c, []byte("COMMAND"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reply.Array {
		f := r.Array
		s := Lookup([]byte(f[0].Text))
		if s == nil || len(f) < 10 { // older servers say of XGROUP what newer ones say of XGROUP CREATE
			t.Logf("%s: nothing to compare", f[0].Text)
			continue
		}
		movable := slices.ContainsFunc(f[2].Array, func(r resp.Reply) bool { return r.Text == "movablekeys" })
		want := 0
		if !movable && f[3].Int == f[4].Int {
			want = int(f[3].Int)
		}
		if got := s.FirstKey(); got != want {
			t.Errorf("%s: the only key is argument %d; the server says %d", s.Name, got, want)
		}
	}
}

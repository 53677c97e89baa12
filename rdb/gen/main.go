// Command gen writes the golden snapshots of package rdb and what is known of their keys from running servers. It is
// run by scripts/gen-golden.sh:
//
//	gen -out rdb/testdata
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

func main() {
	out := flag.String("out", "", "directory to write to")
	flag.Parse()
	err := redistest.Run(func(format string, args ...any) { fmt.Printf(format+"\n", args...) }, func(tb redistest.TB) {
		for _, g := range goldens {
			write(tb, *out, g)
		}
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// golden is one snapshot.
type golden struct {
	name    string
	release string
	config  map[string]string
	fill    func(s *server)
}

var goldens = []golden{
	{"redis-6.0", "redis-6.0", nil, fillAll},
	{"redis-7.0", "redis-7.0", nil, fillAll},
	{"redis-8.0", "redis-8.0", nil, fillAll},
	{"valkey-8.1", "valkey-8.1", nil, fillAll},
	{"valkey-9.1", "valkey-9.1", nil, fillAll},
	{"redis-8.0-empty", "redis-8.0", nil, func(*server) {}},
	{"redis-6.0-lru", "redis-6.0", map[string]string{"maxmemory-policy": "allkeys-lru"}, fillIdle},
	{"valkey-9.1-lfu", "valkey-9.1", map[string]string{"maxmemory-policy": "volatile-lfu"}, fillFreq},
	{"redis-8.0-cluster", "redis-8.0", map[string]string{"cluster-enabled": "yes"}, fillCluster},
	{"redis-7.0-plain", "redis-7.0", map[string]string{"rdbcompression": "no", "rdbchecksum": "no"}, fillCluster},
}

// server is a running server that is being filled.
type server struct {
	*redistest.Server
	tb redistest.TB
}

func write(tb redistest.TB, dir string, g golden) {
	s := &server{redistest.Start(tb, redistest.Options{Release: g.release, Config: g.config}), tb}
	g.fill(s)
	s.MustDo("SELECT", 0)
	s.MustDo("SAVE")
	m := manifest{Version: s.Version.String(), Policy: g.config["maxmemory-policy"], Keys: []key{}, Functions: s.functions()}
	for db := range 16 {
		if g.config["cluster-enabled"] == "" {
			s.MustDo("SELECT", db)
		} else if db > 0 {
			break
		}
		for _, name := range s.MustDo("KEYS", "*").Array {
			m.Keys = append(m.Keys, s.describe(db, name.Text, m.Policy))
		}
	}
	snapshot, err := os.ReadFile(filepath.Join(s.Dir, "dump.rdb"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, g.name+".rdb"), snapshot, 0o600)
	}
	var text []byte
	if err == nil {
		text, err = json.MarshalIndent(m, "", " ")
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, g.name+".json"), append(text, '\n'), 0o600)
	}
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Logf("%s: %d bytes, %d keys", g.name, len(snapshot), len(m.Keys))
	s.Stop()
}

// manifest is what the server says about the data that it has saved.
type manifest struct {
	Version   string `json:"version"`
	Policy    string `json:"maxmemory_policy,omitempty"`
	Functions int    `json:"functions"`
	Keys      []key  `json:"keys"`
}

type key struct {
	DB       int    `json:"db"`
	Name     []byte `json:"name"`
	Text     string `json:"text"` // the name for people
	Type     string `json:"type"`
	Encoding string `json:"encoding"`
	ExpireAt int64  `json:"expire_at_ms,omitempty"`
	Idle     int64  `json:"idle_s,omitempty"`
	Freq     int64  `json:"freq,omitempty"`
}

func (s *server) describe(db int, name, policy string) key {
	k := key{DB: db, Name: []byte(name), Text: strconv.QuoteToASCII(name)}
	if len(k.Text) > 60 {
		k.Text = k.Text[:60] + "…"
	}
	switch {
	case strings.HasSuffix(policy, "-lru"):
		k.Idle = s.MustDo("OBJECT", "IDLETIME", name).Int
	case strings.HasSuffix(policy, "-lfu"):
		k.Freq = s.MustDo("OBJECT", "FREQ", name).Int
	}
	k.Type, k.Encoding = s.MustDo("TYPE", name).Text, s.MustDo("OBJECT", "ENCODING", name).Text
	if strings.HasPrefix(name, "expires") {
		k.ExpireAt = deadline
	}
	if s.MustDo("PTTL", name).Int > 0 != (k.ExpireAt > 0) {
		s.tb.Fatalf("%s: is its name right about its deadline?", k.Text)
	}
	return k
}

func (s *server) functions() int {
	if !s.Version.AtLeast(7, 0) {
		return 0
	}
	return len(s.MustDo("FUNCTION", "LIST").Array)
}

// deadline is that of every key that has one; it lies in the year 2100.
const deadline = 4102444800123

// do sends a command given as one text, in which words are separated by single spaces.
func (s *server) do(command string) resp.Reply {
	words := strings.Split(command, " ")
	args := make([]any, len(words))
	for i, w := range words {
		args[i] = w
	}
	return s.MustDo(args...)
}

// waitUntilWritable waits until a new cluster of one node serves.
func (s *server) waitUntilWritable() {
	redistest.Eventually(s.tb, time.Minute, func() error { return s.Do("SET", "{a}string", "").Err() })
}

package topology

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// Node is what a server says about itself in INFO. A field that the server does not tell is zero.
type Node struct {
	Product      string // redis, valkey, redict, keydb, dragonfly, kvrocks, garnet
	Version      string // of the product
	RedisVersion string // the version of Redis that it claims to be compatible with
	Major, Minor int    // of Version
	RunID        string
	TCPPort      int
	Cluster      bool // runs in cluster mode

	Role             string // "master" or "slave", the server's own words
	ReplID           string // master_replid: of the history that this node has now
	ReplID2          string // master_replid2: of the history before the last failover; 40 zeroes for none
	MasterReplOffset int64
	SecondReplOffset int64 // where ReplID2 ends; -1 for none
	Backlog          Backlog
	Replicas         int // connected ones

	MasterHost   string // of a replica
	MasterPort   int
	MasterLinkUp bool

	Loading    bool
	LoadingETA time.Duration

	UsedMemory      int64 // bytes
	MaxMemory       int64 // bytes; 0 for no limit
	MaxMemoryPolicy string

	Keyspace map[int]int64 // keys of each database that has any

	FieldDeadlines int64 // hashes some of whose fields have deadlines, in all databases (since Redis 7.4 and Valkey 9.0)
	Libraries      int64 // of functions (since 7.0)
}

// Backlog is the stretch of replication history that a server can still send: Length bytes from offset First on.
type Backlog struct {
	Active bool
	Size   int64
	First  int64
	Length int64
}

// Keys returns the number of keys in all databases.
func (n Node) Keys() int64 {
	var sum int64
	for _, keys := range n.Keyspace {
		sum += keys
	}
	return sum
}

// AtLeast tells whether the product's version is major.minor or later.
func (n Node) AtLeast(major, minor int) bool {
	return n.Major > major || n.Major == major && n.Minor >= minor
}

// Inspect asks the server behind c what it is. INFO is answered while LOADING (protocol.md 8). A server that has no
// INFO at all gives the zero Node.
func Inspect(ctx context.Context, c *resp.Conn) (Node, error) {
	r, err := c.Do(ctx, defaultReplyTimeout, "INFO")
	if e := (*resp.Error)(nil); errors.As(err, &e) && Missing(e) {
		return Node{}, nil
	}
	if err != nil {
		return Node{}, failed(remote(c), "INFO", err)
	}
	return ParseInfo(r.Text), nil
}

// Missing tells whether an error reply says that the server, a proxy perhaps, does not have a command.
func Missing(e *resp.Error) bool {
	for _, text := range []string{"unknown command", "unsupported command", "not supported"} {
		if strings.Contains(e.Text, text) {
			return true
		}
	}
	return false
}

func remote(c *resp.Conn) string {
	if a := c.RemoteAddr(); a != nil {
		return a.String()
	}
	return "server"
}

// ParseInfo reads the text of INFO. Lines that it does not know or cannot read are passed over: servers add fields,
// and proxies leave them out.
func ParseInfo(text string) Node {
	info := InfoFields(text)
	n := Node{
		RedisVersion:     info["redis_version"],
		RunID:            info["run_id"],
		TCPPort:          int(number(info["tcp_port"])),
		Cluster:          info["cluster_enabled"] == "1" || info["redis_mode"] == "cluster",
		Role:             info["role"],
		ReplID:           info["master_replid"],
		ReplID2:          info["master_replid2"],
		MasterReplOffset: number(info["master_repl_offset"]),
		SecondReplOffset: number(info["second_repl_offset"]),
		Replicas:         int(number(info["connected_slaves"])),
		MasterHost:       info["master_host"],
		MasterPort:       int(number(info["master_port"])),
		MasterLinkUp:     info["master_link_status"] == "up",
		Loading:          info["loading"] == "1",
		UsedMemory:       number(info["used_memory"]),
		MaxMemory:        number(info["maxmemory"]),
		MaxMemoryPolicy:  info["maxmemory_policy"],
		Libraries:        number(info["number_of_libraries"]),
		Keyspace:         map[int]int64{},
		Backlog: Backlog{
			Active: info["repl_backlog_active"] == "1",
			Size:   number(info["repl_backlog_size"]),
			First:  number(info["repl_backlog_first_byte_offset"]),
			Length: number(info["repl_backlog_histlen"]),
		},
	}
	n.LoadingETA = time.Duration(min(max(number(info["loading_eta_seconds"]), 0), 1<<32)) * time.Second
	n.Product, n.Version = product(info)
	n.Major, n.Minor = majorMinor(n.Version)
	for key, value := range info {
		if db, keys, ok := keyspaceLine(key, value); ok {
			n.Keyspace[db] = keys
			n.FieldDeadlines += keyspaceField(value, "subexpiry=") + keyspaceField(value, "keys_with_volatile_items=")
		}
	}
	return n
}

// InfoFields reads the lines of INFO as they are, by name.
func InfoFields(text string) map[string]string {
	info := make(map[string]string, 200)
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if _, seen := info[key]; ok && !seen && !strings.HasPrefix(key, "#") {
			info[key] = value
		}
	}
	return info
}

// product tells the server software from its own version field. Valkey keeps redis_version at the release that it
// forked from; KeyDB has no such field, and is known by what only it prints.
func product(info map[string]string) (name, version string) {
	for _, name := range []string{"valkey", "redict", "dragonfly", "kvrocks", "garnet"} {
		if v := info[name+"_version"]; v != "" {
			return name, strings.TrimPrefix(v, "df-")
		}
	}
	version = info["redis_version"]
	_, mvcc := info["mvcc_depth"]
	if mvcc || strings.Contains(info["executable"], "keydb") {
		return "keydb", version
	}
	if name := info["server_name"]; name != "" {
		return name, version
	}
	return "redis", version
}

func majorMinor(version string) (major, minor int) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	major = int(leadingNumber(parts[0]))
	if len(parts) > 1 {
		minor = int(leadingNumber(parts[1]))
	}
	return major, minor
}

func leadingNumber(s string) int64 {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	return number(s[:end])
}

// keyspaceLine reads "db0" and "keys=12,expires=1,avg_ttl=0".
func keyspaceLine(key, value string) (db int, keys int64, ok bool) {
	digits, ok := strings.CutPrefix(key, "db")
	if !ok {
		return 0, 0, false
	}
	db, err := strconv.Atoi(digits)
	if err != nil || db < 0 {
		return 0, 0, false
	}
	if !strings.HasPrefix(value, "keys=") {
		return 0, 0, false
	}
	return db, keyspaceField(value, "keys="), true
}

// keyspaceField returns the number behind a name, 0 if it is not there.
func keyspaceField(value, name string) int64 {
	for field := range strings.SplitSeq(value, ",") {
		if n, ok := strings.CutPrefix(field, name); ok {
			return number(n)
		}
	}
	return 0
}

func number(s string) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

package topology

import (
	"strings"
	"testing"
	"time"
)

func TestParseInfo(t *testing.T) {
	n := ParseInfo(strings.ReplaceAll(`# Server
redis_version:7.2.4
server_name:valkey
valkey_version:9.1.0
redis_mode:cluster
run_id:0123456789012345678901234567890123456789
tcp_port:7001
executable:/usr/bin/valkey-server

# Memory
used_memory:1048576
maxmemory:2097152
maxmemory_policy:allkeys-lru
# Persistence
loading:1
loading_eta_seconds:12
# Replication
role:slave
master_host:10.0.0.1
master_port:6379
master_link_status:up
master_replid:aaaa
master_replid2:bbbb
master_repl_offset:1234
second_repl_offset:-1
connected_slaves:2
slave0:ip=1.2.3.4,port=1,state=online
repl_backlog_active:1
repl_backlog_size:1048576
repl_backlog_first_byte_offset:1000
repl_backlog_histlen:235
# Cluster
cluster_enabled:1
# Keyspace
db0:keys=10,expires=1,avg_ttl=0
db15:keys=5,expires=0,avg_ttl=0,subexpiry=3
dbx:keys=5
nonsense
`, "\n", "\r\n"))
	if n.Product != "valkey" || n.Version != "9.1.0" || n.RedisVersion != "7.2.4" || n.Major != 9 || n.Minor != 1 {
		t.Errorf("product: %+v", n)
	}
	if !n.Cluster || !n.Loading || n.LoadingETA != 12*time.Second || n.TCPPort != 7001 || len(n.RunID) != 40 {
		t.Errorf("server: %+v", n)
	}
	if n.Role != "slave" || n.MasterHost != "10.0.0.1" || n.MasterPort != 6379 || !n.MasterLinkUp || n.ReplID != "aaaa" ||
		n.ReplID2 != "bbbb" || n.MasterReplOffset != 1234 || n.SecondReplOffset != -1 || n.Replicas != 2 {
		t.Errorf("replication: %+v", n)
	}
	if n.Backlog != (Backlog{true, 1 << 20, 1000, 235}) || n.UsedMemory != 1<<20 || n.MaxMemory != 2<<20 || n.MaxMemoryPolicy != "allkeys-lru" {
		t.Errorf("memory: %+v", n)
	}
	if len(n.Keyspace) != 2 || n.Keyspace[0] != 10 || n.Keyspace[15] != 5 || n.Keys() != 15 || n.FieldDeadlines != 3 {
		t.Errorf("keyspace: %v", n.Keyspace)
	}
}

func TestProduct(t *testing.T) {
	for info, want := range map[string]string{
		"redis_version:7.0.15":                                "redis 7.0.15",
		"redis_version:255.255.255":                           "redis 255.255.255",
		"redis_version:6.3.4\nmvcc_depth:0":                   "keydb 6.3.4",
		"redis_version:7.4.0\ndragonfly_version:df-v1.21.2":   "dragonfly v1.21.2",
		"redis_version:7.2.4\nserver_name:redict":             "redict 7.2.4",
		"redis_version:7.2.4\nredict_version:7.3.0":           "redict 7.3.0",
		"redis_version:4.0.0\nkvrocks_version:2.9.0":          "kvrocks 2.9.0",
		"redis_version:7.2.4\nserver_name:valkey\nvalkey_ve:": "valkey 7.2.4",
		"": "redis ",
	} {
		n := ParseInfo(info)
		if got := n.Product + " " + n.Version; got != want {
			t.Errorf("%q: %s, want %s", info, got, want)
		}
	}
	n := ParseInfo("redis_version:8.4-rc1")
	if !n.AtLeast(8, 4) || !n.AtLeast(7, 9) || n.AtLeast(8, 5) || n.AtLeast(9, 0) {
		t.Errorf("%d.%d", n.Major, n.Minor)
	}
}

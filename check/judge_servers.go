package check

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/resp"
)

func codeOf(err error) string {
	if e := (*resp.Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// judgeSource judges a server that is read from.
func (p *Pair) judgeSource(s *server) (all []Finding) {
	add := func(id string, severity Severity, remedy, format string, args ...any) {
		all = append(all, found(id, severity, s.subject, remedy, format, args...))
	}
	if s.node.Loading {
		add("loading", Warn, "none needed: keyhaul waits for it", "it is loading its data")
		return all
	}
	switch code := codeOf(s.psync); {
	case s.psync == nil || strings.Contains(s.psync.Error(), "pending output") || strings.Contains(s.psync.Error(), "integer"):
	case code == "NOPERM":
		add("psync-refused", Fatal, aclLine(p.source.dialer.Endpoint.Username, p.sourceNeeds(s)), "the user of the source may not run PSYNC: %v", s.psync)
	case code == "NOMASTERLINK":
		add("source-cut-off", Warn, "bring back its primary, or read from that", "it is a replica of %s:%d, and not in touch with it: it gives no stream",
			s.node.MasterHost, s.node.MasterPort)
	case slices.Contains([]string{"LOADING", "MASTERDOWN", "BUSY", "MISCONF"}, code):
		add("source-cut-off", Warn, "wait for it, and look at its log", "it gives no stream now: %v", s.psync)
	default:
		add("psync-refused", Fatal, "let the source's user run PSYNC and REPLCONF (ACL SETUSER … +psync +replconf); managed services often forbid them; their snapshots will do: --source rdb://…",
			"the source refuses PSYNC: %v", s.psync)
	}
	if s.info["rdb_last_bgsave_status"] == "err" {
		add("persistence-failing", Warn, "look at its log, disk and memory (vm.overcommit_memory): keyhaul needs a snapshot from it", "its last snapshot has failed")
	}
	all = append(all, p.judgeStream(s)...)
	all = append(all, p.judgeClients(s, 1)...)
	return all
}

// judgeStream judges whether the stream of a source can be kept up.
func (p *Pair) judgeStream(s *server) (all []Finding) {
	add := func(id, remedy, format string, args ...any) {
		all = append(all, found(id, Warn, s.subject, remedy, format, args...))
	}
	backlog := s.node.Backlog.Size
	quiet := p.cfg.ReplyTimeout.Seconds()
	if need := int64(s.written * quiet); s.measured && backlog > 0 && need > backlog {
		add("backlog-small", fmt.Sprintf("CONFIG SET repl-backlog-size %d on the source, or more for longer interruptions", roundUp(need)),
			"its clients write %s a second, and repl-backlog-size is %s: that lasts %s, and a dead connection is noticed after %s (reply-timeout)",
			size(int64(s.written)), size(backlog), roughly(time.Duration(float64(backlog)/s.written*float64(time.Second))), p.cfg.ReplyTimeout)
	}
	if f, ok := s.judgeBuffer(); ok {
		all = append(all, f)
	}
	timeout, ok := s.setting("repl-timeout")
	pings, ok2 := s.setting("repl-ping-replica-period")
	switch {
	case ok && timeout > 0 && timeout < leastReplTimeout:
		add("repl-timeout-short", "CONFIG SET repl-timeout 60 on the source", "repl-timeout is %d s: a pause as short as that cuts keyhaul off", timeout)
	case ok2 && float64(pings) >= quiet:
		add("repl-timeout-short", "CONFIG SET repl-ping-replica-period 10 on the source, or raise --reply-timeout",
			"repl-ping-replica-period is %d s: a quiet source is taken for dead after %s (reply-timeout)", pings, p.cfg.ReplyTimeout)
	}
	return all
}

// leastReplTimeout is in seconds. keyhaul answers every second; a snapshot that meets a busy disk may pause for longer.
const leastReplTimeout = 10

// What servers have for client-output-buffer-limit replica unless they are told otherwise.
const (
	usualHard = 256 << 20
	usualSoft = 64 << 20
)

// What a source that is idle now may write to a replica's buffer all the same, where the limits are lower than is usual.
const (
	burst = 8 << 20          // in a busy second or two
	pause = 10 * time.Second // for which a snapshot or a disk may hold a replica up
)

// judgeBuffer judges whether a server keeps for a replica what is written while the snapshot is made: at the rate that was
// measured; and, where the limits are lower than is usual, a burst, as much as its backlog holds, and a tenth of its data.
func (s *server) judgeBuffer() (Finding, bool) {
	hard, soft, seconds, ok := s.bufferLimit()
	if !ok {
		return Finding{}, false
	}
	during := s.copyTime()
	stream := int64(s.written * during.Seconds())
	least := int64(0)
	if hard > 0 && hard < usualHard || soft > 0 && soft < usualSoft {
		least = max(burst, s.node.Backlog.Size, s.data()/10)
	}
	overSoft := time.Duration(0) // how long the soft limit is passed, at this rate
	if soft > 0 && stream > soft {
		overSoft = during - time.Duration(float64(soft)/s.written*float64(time.Second))
	}
	low := hard > 0 && (hard < stream || hard <= least) || overSoft > time.Duration(seconds)*time.Second || soft > 0 && soft <= least && seconds < int64(max(during, pause).Seconds())
	if !low {
		return Finding{}, false
	}
	want := max(roundUp(max(2*stream, 2*least)), usualHard)
	return found("output-buffer-small", Warn, s.subject,
		fmt.Sprintf("CONFIG SET client-output-buffer-limit \"replica %d %d 60\" on the source", want, want/4),
		"client-output-buffer-limit for replicas is %s, or %s for %d s: while the snapshot is made (about %s) its clients write about %s, its backlog holds %s",
		size(hard), size(soft), seconds, roughly(max(during, time.Second)), size(stream), size(s.node.Backlog.Size)), true
}

// bufferLimit reads client-output-buffer-limit for replicas: "normal 0 0 0 slave 268435456 67108864 60 pubsub …".
func (s *server) bufferLimit() (hard, soft, seconds int64, ok bool) {
	words := strings.Fields(s.config["client-output-buffer-limit"])
	for i := 0; i+3 < len(words); i += 4 {
		if words[i] != "slave" && words[i] != "replica" {
			continue
		}
		var errs [3]error
		hard, errs[0] = strconv.ParseInt(words[i+1], 10, 64)
		soft, errs[1] = strconv.ParseInt(words[i+2], 10, 64)
		seconds, errs[2] = strconv.ParseInt(words[i+3], 10, 64)
		return hard, soft, seconds, errors.Join(errs[:]...) == nil
	}
	return 0, 0, 0, false
}

// roundUp is the next power of two.
func roundUp(n int64) int64 {
	up := int64(1 << 20)
	for up < n {
		up *= 2
	}
	return up
}

// judgeClients judges whether a server has room for so many connections more.
func (p *Pair) judgeClients(s *server, more int64) []Finding {
	most := s.number("maxclients")
	if n, ok := s.setting("maxclients"); ok {
		most = n
	}
	now := s.number("connected_clients")
	if most == 0 || now+more <= most {
		return nil
	}
	return []Finding{found("maxclients-low", Warn, s.subject, fmt.Sprintf("CONFIG SET maxclients %d there", now+2*more),
		"maxclients is %d, %d are connected, and keyhaul needs about %d connections", most, now, more)}
}

// judgeTarget judges a server that is written to.
func (p *Pair) judgeTarget(s *server) (all []Finding) {
	add := func(id string, severity Severity, remedy, format string, args ...any) {
		all = append(all, found(id, severity, s.subject, remedy, format, args...))
	}
	n := s.node
	switch {
	case n.Loading:
		add("loading", Warn, "none needed: keyhaul waits for it", "it is loading its data")
		return all
	case n.Role == "slave" && !n.Cluster: // any node of a cluster names the others
		add("target-is-replica", Fatal, "name its primary as the target", "the target is a replica of %s:%d", n.MasterHost, n.MasterPort)
		return all
	case n.Product == "redis" && n.Version != "" && !n.AtLeast(5, 0):
		add("target-too-old", Fatal, "use a target of Redis 5.0 or later", "the target is Redis %s, which cannot take absolute deadlines", n.Version)
	}
	all = append(all, p.judgeWrites(s)...)
	all = append(all, p.judgeGuarantee(s)...)
	if timeout, ok := s.setting("timeout"); ok && timeout > 0 && (!p.cfg.Pings || timeout < leastTimeout) {
		add("client-timeout-short", Warn, "CONFIG SET timeout 0 on the target, or 30 at least; leave keepalive.enabled at true",
			"timeout is %d s: connections of keyhaul that are idle for so long are closed", timeout)
	}
	return append(all, p.judgeClients(s, int64(p.cfg.Connections))...)
}

// leastTimeout is in seconds: idle connections are pinged three times as often, but once a second at most.
const leastTimeout = 3

// judgeWrites judges how the target has answered commands that write.
func (p *Pair) judgeWrites(s *server) (all []Finding) {
	add := func(id string, severity Severity, remedy, format string, args ...any) {
		all = append(all, found(id, severity, s.subject, remedy, format, args...))
	}
	said := map[string]*resp.Error{}
	for _, e := range s.refused {
		said[e.Code] = e
	}
	if e := said["OOM"]; e != nil {
		add("target-full", Fatal, "raise `maxmemory` on the target", "it takes no writes: %v", e)
	}
	if e := said["MISCONF"]; e != nil {
		add("persistence-failing", Fatal, "free its disk, and look at its log; or CONFIG SET stop-writes-on-bgsave-error no", "it takes no writes: %v", e)
	} else if s.info["rdb_last_bgsave_status"] == "err" || s.info["aof_last_write_status"] == "err" || s.info["aof_last_bgrewrite_status"] == "err" {
		add("persistence-failing", Warn, "free its disk, and look at its log: when it begins to refuse writes, keyhaul waits", "it could not write to its disk the last time")
	}
	least, set := s.setting("min-replicas-to-write")
	good := s.number("min_slaves_good_slaves")
	if e := said["NOREPLICAS"]; e != nil || set && least > 0 && s.info["min_slaves_good_slaves"] != "" && good < least {
		add("min-replicas-unmet", Fatal, "bring its replicas back, or lower min-replicas-to-write on the target",
			"it takes no writes: fewer replicas keep up (%d) than min-replicas-to-write asks for", good)
	}
	if n := s.node.Replicas; n < p.cfg.WaitReplicas {
		add("replicas-missing", Warn, "bring its replicas back, or lower --wait-replicas",
			"a node of the target has %d replicas, and --wait-replicas asks for %d: nothing counts as applied there until it has them", n, p.cfg.WaitReplicas)
	}
	if s.noWait != nil {
		add("wait-refused", Fatal, "let the target's user run it (ACL SETUSER … +wait), or leave --wait-replicas out", "--wait-replicas needs WAIT on the target %s: %v", s.addr, s.noWait)
	}
	return all
}

// judgeGuarantee judges whether the target lets keyhaul keep what it guarantees.
func (p *Pair) judgeGuarantee(s *server) (all []Finding) {
	add := func(id string, severity Severity, remedy, format string, args ...any) {
		all = append(all, found(id, severity, s.subject, remedy, format, args...))
	}
	exact := func() Severity {
		if p.cfg.ExactlyOnce {
			return Fatal
		}
		return Warn
	}
	policy := s.node.MaxMemoryPolicy
	switch evicts := policy != "" && policy != "noeviction"; {
	case evicts && s.node.MaxMemory > 0:
		add("eviction-policy", exact(), "CONFIG SET maxmemory-policy noeviction on the target, or use --delivery at-least-once",
			"the target may evict keys (maxmemory-policy %s): it would lose data, and what keyhaul must know of it", policy)
	case evicts:
		add("eviction-policy", Warn, "CONFIG SET maxmemory-policy noeviction on the target",
			"the target would evict keys (maxmemory-policy %s) as soon as maxmemory is set, keyhaul's own among them", policy)
	}
	if s.noTransactions != nil {
		text := "the target has no transactions over several keys: those of the source are not atomic there, and two keyhauls of this name must not be started at the same moment: %v"
		if p.cfg.ExactlyOnce {
			text = "exactly-once delivery needs MULTI and EXEC with several keys on the target: %v"
		}
		add("transactions-missing", exact(), "use --delivery at-least-once; for a cluster leave --target-mode at auto", text, s.noTransactions)
	}
	if e := (*clientError)(nil); errors.As(s.noClientList, &e) {
		if codeOf(e) == "NOPERM" {
			add("client-list-missing", Fatal, "let the target's user run it (ACL SETUSER … +client|list +client|kill +client|id +client|setname), or use --delivery at-least-once",
				"exactly-once delivery needs CLIENT %s on the target %s: %v", e.sub, s.addr, e.err)
		} else {
			add("client-list-missing", Fatal, "use --delivery at-least-once, or name the server itself as the target",
				"exactly-once delivery needs CLIENT %s, which the target %s does not have: %v", e.sub, s.addr, e.err)
		}
	}
	return all
}

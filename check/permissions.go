package check

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/internal/resp"
)

// need is a permission that keyhaul uses.
type need struct {
	rules   string   // as ACL SETUSER takes them
	try     []string // a call that needs it, and changes nothing if it is carried out; nil if there is none
	without string   // what goes wrong without it; empty: everything
}

// allKeys is the rule without which some keys cannot be read or written.
const allKeys = "~*"

// sourceNeeds are the permissions of the source's user.
func (p *Pair) sourceNeeds(s *server) []need {
	key := s.key(p.cfg.Name)
	needs := []need{
		{"+psync", nil, ""}, // tried alone
		{"+replconf", []string{"REPLCONF", "capa", "eof"}, ""},
		{"+info", nil, ""}, // without it there is no server to ask
		{"+ping", []string{"PING"}, "refusals in its ACL LOG"},
	}
	toCluster := p.target != nil && p.target.cluster
	if !p.source.cluster && !toCluster {
		return needs
	}
	read := "commands whose keys span slots of the target are refused"
	if p.source.cluster {
		read = "slots that move between its shards are not settled"
		needs = append(
			needs, need{"+cluster|slots", nil, ""}, need{"+cluster|nodes", []string{"CLUSTER", "NODES"}, ""},
			need{"+cluster|getkeysinslot", []string{"CLUSTER", "GETKEYSINSLOT", "0", "1"}, read},
		)
	}
	needs = append(
		needs, need{allKeys, nil, read},
		need{"+multi +exec", []string{"MULTI"}, read}, need{"", []string{"EXEC"}, read},
		need{"+select", []string{"SELECT", "0"}, read}, need{"+dump", []string{"DUMP", key}, read},
		need{"+pttl", []string{"PTTL", key}, read}, need{"+time", []string{"TIME"}, read},
	)
	if s.since(7, 0) {
		needs = append(needs, need{"+pexpiretime", []string{"PEXPIRETIME", key}, read})
	}
	if s.since(7, 2) {
		needs = append(needs, need{"+client|no-touch", []string{"CLIENT", "NO-TOUCH", "OFF"}, "a key that is read counts as used"})
	}
	return needs
}

// targetNeeds are the permissions of the target's user.
func (p *Pair) targetNeeds(s *server) []need {
	key := s.key(p.cfg.Name)
	needs := []need{{allKeys, nil, ""}}
	if s.since(6, 2) {
		needs = append(needs, need{"&*", nil, "messages of the source are refused"})
	}
	needs = append(needs, writeNeeds(key)...)
	needs = append(
		needs, need{"+watch", []string{"WATCH", key}, ""},
		need{"+multi +exec +discard", []string{"MULTI"}, ""}, // in which nobody hears the message
		need{"+publish", []string{"PUBLISH", key, ""}, "it waits at the first message of the source"},
		need{"", []string{"DISCARD"}, ""},
		need{"", []string{"MULTI"}, ""}, need{"", []string{"EXEC"}, ""},
		need{"+get", []string{"GET", key}, ""}, need{"+mget", []string{"MGET", key}, ""},
		need{"+exists", []string{"EXISTS", key}, ""}, need{"+lrange", []string{"LRANGE", key, "0", "0"}, ""},
		need{"+smembers", []string{"SMEMBERS", key}, ""}, need{"+info", nil, ""},
		need{"+scan", []string{"SCAN", "0", "COUNT", "1"}, "keyhaul finish and the end of --until caught-up wait there"},
		need{"+select", []string{"SELECT", "0"}, "databases other than 0 are refused"},
		need{"+ping", []string{"PING"}, "refusals in its ACL LOG"},
		need{"+config|get", []string{"CONFIG", "GET", "timeout"}, "pings come every 30 s, whatever `timeout` is"},
		need{"+module|list", []string{"MODULE", "LIST"}, "values of modules may be refused"},
	)
	if s.since(7, 0) {
		needs = append(needs, need{"+pexpiretime", []string{"PEXPIRETIME", key}, "keyhaul finish waits there"})
		needs = append(
			needs, need{"", []string{"MULTI"}, ""}, need{"+spublish", []string{"SPUBLISH", key, ""}, "it waits at the first message of the source"},
			need{"", []string{"DISCARD"}, ""},
		)
	} else {
		needs = append(needs, need{"+pttl", []string{"PTTL", key}, "keyhaul finish waits there"}, need{"+time", []string{"TIME"}, "keyhaul finish waits there"})
	}
	return append(needs, p.kindNeeds(s, key)...)
}

// kindNeeds are those that depend on what the ends are and on what is asked for.
func (p *Pair) kindNeeds(s *server, key string) (needs []need) {
	if p.cfg.ExactlyOnce { // tried alone: see Pair.tryClients
		needs = append(needs, need{"+client|id +client|list +client|kill +client|setname", nil, ""})
	}
	if p.target.cluster {
		needs = append(
			needs, need{"+cluster|slots", nil, ""}, need{"+hgetall", []string{"HGETALL", key}, ""},
			need{"+asking", []string{"ASKING"}, "it waits while a slot moves"},
		)
		if p.source != nil && p.source.cluster {
			needs = append(needs, need{"+cluster|getkeysinslot", []string{"CLUSTER", "GETKEYSINSLOT", "0", "1"}, "slots that move between shards of the source are not settled"})
		}
	}
	if p.cfg.WaitReplicas > 0 { // tried alone: it refuses with words of its own
		needs = append(needs, need{"+wait", nil, ""})
	}
	return needs
}

// writeNeeds try commands that write, each in a way that does nothing to a key that is not there.
func writeNeeds(key string) []need {
	calls := [][]string{
		{"SET", key, "", "XX"},
		{"DEL", key},
		{"UNLINK", key},
		{"PEXPIREAT", key, "1"},
		{"RESTORE", key, "0", ""},
		{"RPUSHX", key, ""},
		{"SREM", key, ""},
		{"ZREM", key, ""},
		{"HDEL", key, ""},
		{"XTRIM", key, "MAXLEN", "0"},
	}
	needs := make([]need, len(calls))
	for i, call := range calls {
		needs[i] = need{"+@write", call, ""}
	}
	return needs
}

// dryRuns are commands of +@write that only ACL DRYRUN can try.
var dryRuns = [][]string{
	{"RPUSH", "", ""},
	{"SADD", "", ""},
	{"ZADD", "", "1", ""},
	{"HSET", "", "", ""},
	{"XADD", "", "*", "", ""},
	{"XGROUP", "CREATE", "", "", "0"},
	{"RENAME", "", ""},
	{"INCR", ""},
	{"FLUSHALL"},
	{"FLUSHDB"},
	{"SWAPDB", "0", "1"},
	{"FUNCTION", "LOAD", ""},
	{"FUNCTION", "DELETE", ""},
}

// seldom are those of dryRuns without which a haul does well for as long as the source does not run them.
var seldom = []string{"FLUSHALL", "FLUSHDB", "SWAPDB", "FUNCTION"}

// since tells whether a server is of a release of Redis, or later; a server that does not say so is.
func (s *server) since(major, minor int) bool {
	r := s.node.Release()
	return r.Major == 0 || r.Valkey || r.Major > major || r.Major == major && r.Minor >= minor
}

// tryNeeds tries the permissions one by one and remembers what was refused, by the first word of the call.
func (s *server) tryNeeds(ctx context.Context, c *resp.Conn, needs []need) error {
	s.refused = map[string]*resp.Error{}
	var calls [][]string
	for _, n := range needs {
		if n.try != nil {
			calls = append(calls, n.try)
		}
	}
	replies, err := c.DoAll(ctx, questionTimeout, calls...)
	if err != nil {
		return err
	}
	for i, r := range replies {
		if e := refusal(r); e != nil {
			s.refused[strings.Join(calls[i], " ")] = e
		}
	}
	return nil
}

// refusal is the error in a reply, or nil.
func refusal(r resp.Reply) *resp.Error {
	if r.Kind != resp.KindError {
		return nil
	}
	return resp.NewError(r.Text)
}

// tryDry asks a target since 7.0 what its user may do that cannot be tried, if it may ask that.
func (s *server) tryDry(ctx context.Context, c *resp.Conn, key string) (denied []string) {
	who, err := c.Do(ctx, questionTimeout, "ACL", "WHOAMI")
	if err != nil || !s.since(7, 0) {
		return nil
	}
	calls := make([][]string, len(dryRuns))
	for i, run := range dryRuns {
		calls[i] = append([]string{"ACL", "DRYRUN", who.Text}, run...)
		for j, arg := range calls[i] {
			if arg == "" {
				calls[i][j] = key
			}
		}
	}
	if _, err := c.Do(ctx, questionTimeout, calls[0]...); err != nil {
		return nil
	}
	replies, err := c.DoAll(ctx, questionTimeout, calls...)
	if err != nil {
		return nil
	}
	for i, r := range replies {
		if r.Kind == resp.KindBulk && strings.Contains(r.Text, "no permission") {
			denied = append(denied, dryRuns[i][0])
		}
	}
	return slices.Compact(denied)
}

// judgeNeeds names what the user lacks. denied is what tryDry has found; flush says that the target is to be emptied.
func (s *server) judgeNeeds(user, end string, needs []need, denied []string, flush bool) {
	line := aclLine(user, needs)
	var must, may, lost []string
	for _, name := range denied {
		if !slices.Contains(seldom, name) || flush && name == "FLUSHALL" {
			must = append(must, name)
			continue
		}
		may = append(may, name)
		lost = append(lost, "it waits at the first one of the source")
	}
	for _, n := range needs {
		e := s.refused[strings.Join(n.try, " ")]
		if n.try == nil || e == nil || e.Code != "NOPERM" {
			continue
		}
		name := n.try[0]
		if slices.Contains([]string{"CLUSTER", "CLIENT", "CONFIG", "MODULE"}, name) {
			name += " " + n.try[1]
		}
		if strings.Contains(e.Text, " key") {
			name += " on every key"
		} else if strings.Contains(e.Text, " channel") {
			name += " on every channel"
		}
		if n.without == "" {
			must = append(must, name)
			continue
		}
		may = append(may, name)
		lost = append(lost, n.without)
	}
	if len(must) > 0 {
		s.find("missing-permissions", Fatal, line, "the user of the %s may not run %s", end, strings.Join(unique(must), ", "))
	}
	if len(may) > 0 {
		s.find("lesser-permissions", Warn, line, "the user of the %s may not run %s: %s", end, strings.Join(unique(may), ", "), strings.Join(unique(lost), "; "))
	}
}

// aclLine is what gives a user everything that is needed. Names of users are not shown: USER stands for them.
func aclLine(user string, needs []need) string {
	name := "USER"
	if user == "" {
		name = "default"
	}
	var rules []string
	for _, n := range needs {
		if n.rules != "" {
			rules = append(rules, n.rules)
		}
	}
	return "ACL SETUSER " + name + " " + strings.Join(unique(rules), " ")
}

// unique leaves out what is there twice.
func unique(all []string) []string {
	var once []string
	for _, one := range all {
		if !slices.Contains(once, one) {
			once = append(once, one)
		}
	}
	return once
}

// nobody is the id of a connection that no server has.
var nobody = strconv.Itoa(math.MaxInt64)

package command

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// The model: one slot, its commands applied in order. One that is not replay-safe commits a fence with itself. A crash
// after any number of commands is followed by a replay from behind the last fence. Whatever the crashes, the end must be
// the same as without any.
type model struct {
	t    *testing.T
	conn *resp.Conn
	gen  *generator
	also map[string]bool // commands taken for safe although they are not
	sha  string
	buf  []byte

	version redistest.Version
}

const modelDatabases = 64

// readState returns all that a database holds as one text, sorted where the order of elements has no meaning. Deadlines
// are in full hours from ARGV[1], as the same time to live ends at another millisecond each time. Of streams it leaves
// out what hangs on the time of the call or on memory.
const readState = `
local skip = {['seen-time']=1, ['active-time']=1, ['radix-tree-keys']=1, ['radix-tree-nodes']=1, inactive=1, idle=1}
local now = redis.call('TIME')
local function hours(ttl)
  if ttl < 0 then return ttl end
  return math.floor((now[1] * 1000 + math.floor(now[2] / 1000) + ttl - ARGV[1]) / 3600000)
end
local function text(v)
  if type(v) ~= 'table' then return tostring(v) end
  local out, i = {}, 1
  while i <= #v do
    if skip[v[i]] then i = i + 2 else out[#out + 1] = text(v[i]); i = i + 1 end
  end
  return '[' .. table.concat(out, ' ') .. ']'
end
local out = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  if kind == 'string' then value = redis.call('GET', key)
  elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'stream' then value = redis.call('XINFO', 'STREAM', key, 'FULL', 'COUNT', 0)
  elseif kind == 'set' then value = redis.call('SMEMBERS', key); table.sort(value)
  else
    value = {}
    local flat = redis.call('HGETALL', key)
    for i = 1, #flat, 2 do
      local ttl = redis.pcall('HPTTL', key, 'FIELDS', 1, flat[i])
      value[#value + 1] = flat[i] .. '=' .. flat[i + 1] .. '@' .. (ttl.err and -1 or hours(ttl[1]))
    end
    table.sort(value)
  end
  out[#out + 1] = key .. ' ' .. kind .. ' ' .. text(value) .. ' @' .. hours(redis.call('PTTL', key))
end
table.sort(out)
return table.concat(out, '\n')`

func newModel(t *testing.T, also ...string) *model {
	s := redistest.Start(t, redistest.Options{Config: map[string]string{"databases": strconv.Itoa(modelDatabases)}})
	m := &model{t: t, conn: s.Dial(), also: make(map[string]bool), version: s.Version}
	for _, name := range also {
		m.also[name] = true
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("KEYHAUL_MODEL_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%v, KEYHAUL_MODEL_SEED=%d", s.Version, seed)
	m.gen = &generator{Rand: rand.New(rand.NewPCG(seed, 0)), base: time.Now().Truncate(time.Second)}
	m.sha = s.MustDo("SCRIPT", "LOAD", readState).Text
	m.gen.payloads = payloads(s)
	return m
}

// payloads are what DUMP says of a value of each type.
func payloads(s *redistest.Server) (dumped []string) {
	for _, lines := range [][]string{
		{"SET p 5"},
		{"SET p text"},
		{"RPUSH p a b"},
		{"SADD p a b"},
		{"HSET p a 1 b 2"},
		{"ZADD p 1 a 2 b"},
		{"PFADD p a b c"},
		{"XGROUP CREATE p g 0 MKSTREAM", "XADD p 1-0 f v", "XADD p 3-0 f v"},
	} {
		for _, line := range lines {
			var args []any
			for _, w := range strings.Fields(line) {
				args = append(args, w)
			}
			s.MustDo(args...)
		}
		dumped = append(dumped, s.MustDo("DUMP", "p").Text)
		s.MustDo("DEL", "p")
	}
	return dumped
}

// safe is what ReplaySafe says of each command, and what the test adds.
func (m *model) safe(commands [][][]byte) []bool {
	safe := make([]bool, len(commands))
	for i, argv := range commands {
		safe[i] = m.also[string(argv[0])] || safeOf(argv)
	}
	return safe
}

// A run is a sequence of commands as one history of crashes has them applied: after the first crash[0] commands comes
// the first crash, and so on; the last replay runs to the end.
type run struct{ crashes []int }

func (r run) apply(commands [][][]byte, safe []bool) (applied [][][]byte) {
	fence := 0
	for _, end := range append(slices.Clone(r.crashes), len(commands)) {
		if end < fence {
			end = fence
		}
		applied = append(applied, commands[fence:end]...)
		for i := fence; i < end; i++ {
			if !safe[i] {
				fence = i + 1
			}
		}
	}
	return applied
}

// runs are histories of one crash, all of them or a few, and some of two. Those that repeat nothing are left out.
func (m *model) runs(commands [][][]byte, safe []bool, all bool) (runs []run) {
	for c := range len(commands) + 1 {
		if (all || m.gen.IntN(3) == 0) && c > 0 && safe[c-1] {
			runs = append(runs, run{[]int{c}})
		}
	}
	if !all {
		for range 2 {
			runs = append(runs, run{[]int{m.gen.IntN(len(commands) + 1), m.gen.IntN(len(commands) + 1)}})
		}
	}
	return runs
}

// states applies each list of commands to an empty database and reads what it holds then, all in one round trip.
func (m *model) states(lists [][][][]byte) []string {
	if len(lists) > modelDatabases {
		m.t.Fatalf("%d lists for %d databases", len(lists), modelDatabases)
	}
	m.buf = m.buf[:0]
	base := strconv.FormatInt(m.gen.base.UnixMilli(), 10)
	for db, commands := range lists {
		m.buf = resp.AppendCommand(m.buf, "SELECT", strconv.Itoa(db))
		m.buf = resp.AppendCommand(m.buf, "FLUSHDB")
		for _, argv := range commands {
			m.buf = resp.AppendArray(m.buf, len(argv))
			for _, a := range argv {
				m.buf = resp.AppendBulk(m.buf, a)
			}
		}
		m.buf = resp.AppendCommand(m.buf, "EVALSHA", m.sha, "0", base)
	}
	if _, err := m.conn.Write(m.buf); err != nil {
		m.t.Fatal(err)
	}
	states := make([]string, len(lists))
	for db, commands := range lists {
		var last resp.Reply
		for range len(commands) + 3 { // errors, such as WRONGTYPE, are part of the game
			var err error
			if last, err = m.conn.ReadReply(); err != nil {
				m.t.Fatal(err)
			}
		}
		if last.Kind == resp.KindError {
			m.t.Fatal(last.Text)
		}
		states[db] = last.Text
	}
	return states
}

// check returns an error that tells of the first run whose end differs from that of no crash, nil if there is none.
func (m *model) check(commands [][][]byte, runs []run) error {
	safe := m.safe(commands)
	if runs == nil {
		runs = m.runs(commands, safe, true)
	}
	lists := [][][][]byte{commands}
	for _, r := range runs {
		lists = append(lists, r.apply(commands, safe))
	}
	states := m.states(lists)
	for i, got := range states[1:] {
		if got == states[0] {
			continue
		}
		var b strings.Builder
		for i, argv := range commands {
			fmt.Fprintf(&b, "%3d %-6s %.200q\n", i+1, map[bool]string{true: "safe", false: "fence"}[safe[i]], argv)
		}
		fmt.Fprintf(&b, "without a crash:\n%q\ncrashed after %v:\n%q", states[0], runs[i].crashes, got)
		return errors.New(b.String())
	}
	return nil
}

// shrink drops commands for as long as some crash still makes a difference.
func (m *model) shrink(commands [][][]byte, found error) error {
	for i := 0; i < len(commands); {
		shorter := slices.Delete(slices.Clone(commands), i, i+1)
		if err := m.check(shorter, nil); err != nil {
			commands, found, i = shorter, err, 0
		} else {
			i++
		}
	}
	return found
}

// search tries sequences until one makes a difference or the time is up.
func (m *model) search(limit time.Duration) (sequences int, found error) {
	var always []string
	for name := range m.also {
		always = append(always, name)
	}
	slices.Sort(always)
	histories := 0
	for end := time.Now().Add(limit); time.Now().Before(end); sequences++ {
		commands := m.gen.sequence(always)
		safe := m.safe(commands)
		runs := m.runs(commands, safe, false)
		histories += len(runs)
		if err := m.check(commands, runs); err != nil {
			return sequences, m.shrink(commands, err)
		}
	}
	m.t.Logf("%d sequences, %d histories of crashes", sequences, histories)
	return sequences, nil
}

func (m *model) mustFind(limit time.Duration) {
	m.t.Helper()
	sequences, found := m.search(limit)
	if found == nil {
		m.t.Fatal("no difference found")
	}
	m.t.Logf("after %d sequences:\n%v", sequences, found)
}

// modelTime is how long a search may take: KEYHAUL_MODEL_TIME, such as 60s, if set.
func modelTime(t *testing.T, otherwise time.Duration) time.Duration {
	text := os.Getenv("KEYHAUL_MODEL_TIME")
	if text == "" {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestReplayModel(t *testing.T) {
	m := newModel(t)
	sequences, found := m.search(modelTime(t, 4*time.Second))
	if found != nil {
		t.Fatal(found)
	}
	if sequences < 100 {
		t.Errorf("only %d sequences", sequences)
	}
}

// TestReplayModelFindsTheUnsafe holds the model itself to account: of commands that are taken for safe it must find out
// that they are not. SETNX and XCLAIM are missing, for each alone does no harm between safe commands: those either add to
// what the key is, or replace it whatever it is. They are fenced because they ask what is there: XCLAIM, for one, claims
// what a later XDEL deletes, and repeated it finds that gone.
func TestReplayModelFindsTheUnsafe(t *testing.T) {
	for _, names := range []string{
		"INCR", "SREM", "HDEL", "ZREM", "PEXPIREAT", "SET", "MSETNX", "RENAME", "XCLAIM+XDEL", "XCLAIM+XGROUP", "PFADD",
	} {
		t.Run(names, func(t *testing.T) {
			m := newModel(t, strings.Split(names, "+")...)
			if names == "XCLAIM+XDEL" && !m.version.AtLeast(7, 0) {
				t.Skip("older servers claim deleted entries too")
			}
			m.mustFind(time.Minute)
		})
	}
}

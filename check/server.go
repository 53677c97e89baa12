package check

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// server is one server that is read from or written to, and what it said.
type server struct {
	addr, subject string
	hosts         []string // addresses of its machine
	primary       []string // and of the machine of its primary, if it is a replica
	node          topology.Node
	info          map[string]string
	calls         map[string]int64 // of commands since its start, in lower case; a subcommand as "xgroup|create"
	at            time.Time        // of info, by our clock
	ahead         time.Duration    // its clock before ours
	unsure        time.Duration    // by how much that may be wrong
	timed         bool             // it tells its clock
	written       float64          // bytes of replication stream a second
	measured      bool

	config   map[string]string // settings that it tells
	noConfig bool              // it does not let us ask
	modules  []string          // nil if it does not tell
	slots    []topology.SlotRange
	open     []uint16 // slots that are being moved
	noSlots  bool     // it does not tell which are
	watched  bool     // by sentinels
	psync    error    // why it gives no stream; nil if it does
	refused  map[string]*resp.Error
	strange  []string // types in the sample that not every server has
	sampled  int      // keys

	noTypes, noCommands bool     // they cannot be asked for
	lacks               []string // commands in use that this target has not
	lacksModules        []string // the same, of modules
	noTransactions      error
	noClientList        error
	noWait              error
	running             bool // another keyhaul of this name is connected
	noDatabase          error

	findings []Finding
}

// inform reads INFO. A server without it, a proxy perhaps, is known by nothing.
func (s *server) inform(ctx context.Context, c *resp.Conn) error {
	about, err := c.Do(ctx, questionTimeout, "INFO") // alone: who refuses it may close the connection
	s.at = time.Now()
	if refused := (*resp.Error)(nil); err != nil && !(errors.As(err, &refused) && topology.Missing(refused)) {
		return &topology.Error{Addr: s.addr, Op: "INFO", Err: err}
	}
	if err != nil {
		return nil
	}
	s.node, s.info = topology.ParseInfo(about.Text), topology.InfoFields(about.Text)
	stats, err := c.Do(ctx, questionTimeout, "INFO", "commandstats")
	if _, failed := refusedOf(stats, err); failed != nil {
		return &topology.Error{Addr: s.addr, Op: "INFO", Err: failed}
	}
	s.calls = callsOf(stats.Text)
	return nil
}

// callsOf reads how often each command was called.
func callsOf(text string) map[string]int64 {
	calls := map[string]int64{}
	for name, value := range topology.InfoFields(text) {
		if name, ok := strings.CutPrefix(name, "cmdstat_"); ok {
			n, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			if calls[name], _ = strconv.ParseInt(n, 10, 64); calls[name] == 0 {
				delete(calls, name)
			}
		}
	}
	return calls
}

// answered compares clocks: the server read its own between began and now.
func (s *server) answered(began time.Time) {
	micros := s.number("server_time_usec")
	if s.timed = micros > 0; s.timed {
		s.unsure = s.at.Sub(began) / 2
		s.ahead = time.UnixMicro(micros).Sub(began.Add(s.unsure))
	}
}

// number is a number of INFO, 0 if it is not there.
func (s *server) number(name string) int64 {
	n, _ := strconv.ParseInt(s.info[name], 10, 64)
	return n
}

// setting is a number of the configuration.
func (s *server) setting(name string) (n int64, ok bool) {
	n, err := strconv.ParseInt(s.config[name], 10, 64)
	return n, err == nil
}

// data is what the keys of the server take in memory, without what it needs for itself and its clients.
func (s *server) data() int64 {
	buffers := s.number("mem_total_replication_buffers") // since 7.0, the backlog among them
	if buffers == 0 {
		buffers = s.number("mem_replication_backlog") + s.number("mem_clients_slaves")
	}
	return max(s.node.UsedMemory-s.number("used_memory_startup")-s.number("mem_clients_normal")-s.number("mem_aof_buffer")-buffers, 0)
}

func (s *server) owns(slots []topology.SlotRange) {
	s.slots = slots
}

// share is the part of all slots that the server has.
func (s *server) share(cluster bool) float64 {
	if !cluster {
		return 1
	}
	n := 0
	for _, r := range s.slots {
		n += int(r.To-r.From) + 1
	}
	return float64(n) / topology.SlotCount
}

// key is the name of a key that nobody has, in a slot of the server.
func (s *server) key(haul string) string {
	name := "keyhaul:" + haul + ":check"
	if len(s.slots) == 0 {
		return name
	}
	for i := 0; ; i++ {
		tagged := name + ":{" + strconv.Itoa(i) + "}"
		slot := command.Slot([]byte(tagged))
		for _, r := range s.slots {
			if slot >= r.From && slot <= r.To {
				return tagged
			}
		}
	}
}

// ask puts the questions that need to know nothing of the other end.
func (s *server) ask(ctx context.Context, of *side, cfg Config) {
	if s.node.Loading {
		return
	}
	c, err := of.dialer.Open(ctx, s.addr)
	if err != nil {
		s.findings = append(s.findings, of.reach(s.addr, err))
		return
	}
	defer c.Close() //nolint:errcheck // only asked
	s.addresses(ctx, of)
	if err := s.describe(ctx, c, of); err != nil {
		s.findings = append(s.findings, of.reach(s.addr, err))
		return
	}
	if of.name == "target" {
		return
	}
	s.tryPSYNC(ctx, of)
	s.measure(ctx, c, cfg.Sample)
}

// settings are those that are looked at.
var settings = map[string][]string{
	"source": {"client-output-buffer-limit", "repl-timeout", "repl-ping-replica-period", "maxclients"},
	"target": {"timeout", "min-replicas-to-write", "maxclients"},
}

// describe asks for settings, modules and slots.
func (s *server) describe(ctx context.Context, c *resp.Conn, of *side) error {
	calls := [][]string{{"MODULE", "LIST"}, {"CLIENT", "LIST", "TYPE", "pubsub"}} // sentinels subscribe
	if of.cluster {
		calls = append(calls, []string{"CLUSTER", "NODES"})
	}
	for _, name := range settings[of.name] {
		calls = append(calls, []string{"CONFIG", "GET", name})
	}
	replies, err := c.DoAll(ctx, questionTimeout, calls...)
	if err != nil {
		return err
	}
	if replies[0].Err() == nil {
		s.modules = moduleNames(replies[0])
	}
	s.watched = strings.Contains(replies[1].Text, " name=sentinel-")
	replies = replies[2:]
	if of.cluster {
		if s.noSlots = replies[0].Err() != nil; !s.noSlots {
			s.open = topology.OpenSlots(replies[0].Text)
		}
		replies = replies[1:]
	}
	s.config = map[string]string{}
	for i, name := range settings[of.name] {
		if len(replies[i].Array) == 2 {
			s.config[name] = replies[i].Array[1].Text
		}
		s.noConfig = s.noConfig || replies[i].Err() != nil
	}
	return nil
}

// moduleNames reads MODULE LIST.
func moduleNames(r resp.Reply) []string {
	names := []string{}
	for _, m := range r.Array {
		for i := 0; i+1 < len(m.Array); i += 2 {
			if m.Array[i].Text == "name" {
				names = append(names, m.Array[i+1].Text)
			}
		}
	}
	return names
}

// tryPSYNC finds out whether the server gives its stream, and begins none: behind the PING, whose reply still waits to be
// sent, every release refuses it, since 7.0 for its offset before that.
func (s *server) tryPSYNC(ctx context.Context, of *side) {
	c, err := of.dialer.Open(ctx, s.addr)
	if err != nil {
		return // it shows itself again when it matters
	}
	defer c.Close() //nolint:errcheck // only asked
	replies, err := c.DoAll(ctx, questionTimeout, []string{"PING"}, []string{"PSYNC", "?", "none"})
	if err == nil {
		s.psync = replies[1].Err()
	}
}

// measure finds how much the server's clients write. A server that has a backlog counts the bytes of its stream; for one
// that has none yet it is what came in, times the part of commands that write.
func (s *server) measure(ctx context.Context, c *resp.Conn, sample time.Duration) {
	select {
	case <-time.After(time.Until(s.at.Add(sample))):
	case <-ctx.Done():
		return
	}
	later := &server{}
	if err := later.inform(ctx, c); err != nil {
		return
	}
	seconds := later.at.Sub(s.at).Seconds()
	s.measured = seconds > 0
	if s.node.Backlog.Active {
		s.written = float64(later.node.MasterReplOffset-s.node.MasterReplOffset) / seconds
		return
	}
	var writes, all int64
	for name, n := range later.calls {
		n -= s.calls[name]
		all += n
		if writesBy(name) {
			writes += n
		}
	}
	if all > 0 {
		in := float64(later.number("total_net_input_bytes") - s.number("total_net_input_bytes"))
		s.written = max(in*float64(writes)/float64(all), shortest*float64(writes)) / seconds
	}
}

// shortest is how many bytes of the stream a command that writes takes at least: SET of one byte to a key of one.
const shortest = 27

// writesBy tells whether a command of INFO commandstats writes, as far as it is known.
func writesBy(name string) bool {
	name, sub, _ := strings.Cut(strings.ToUpper(name), "|")
	spec := command.Lookup([]byte(name))
	if spec != nil && sub != "" {
		spec = spec.Resolve([]byte(sub))
	}
	return spec != nil && spec.Write || strings.HasPrefix(name, "EVAL") || name == "FCALL"
}

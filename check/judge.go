package check

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/internal/topology"
)

// State is what the target knows of the haul.
type State struct {
	Known   bool  // the haul goes on: what holds for its beginning is not looked at
	Own     int64 // keys of keyhaul's own
	Refused error // why it cannot go on
	Remedy  string
	Unread  error // why nothing is known
}

// Findings judges what both ends said, the gravest first. It asks nobody.
func (p *Pair) Findings(st State) []Finding {
	var all []Finding
	add := func(more ...Finding) { all = append(all, more...) }
	for _, side := range p.sides() {
		add(side.findings...)
		for _, s := range side.servers {
			add(s.findings...)
		}
	}
	if p.source != nil && p.target != nil {
		add(p.together()...)
	}
	if p.source != nil {
		for _, s := range p.source.servers {
			add(p.judgeSource(s)...)
		}
	}
	if p.target != nil {
		for _, s := range p.target.servers {
			add(p.judgeTarget(s)...)
		}
		add(p.judgeState(st)...)
	}
	if p.source != nil && p.target != nil && !st.Known {
		add(p.judgeFeatures()...)
		add(p.judgeMemory()...)
	}
	for _, s := range p.sides() {
		add(s.judgeCluster()...)
		add(s.judgeSentinels()...)
	}
	add(p.judgeDisk(st.Known)...)
	add(p.judgeClocks()...)
	add(p.unknown()...)
	add(p.estimate()...)
	return sorted(once(all))
}

// once leaves out findings that are the same.
func once(all []Finding) []Finding {
	var left []Finding
	for _, f := range all {
		if !slices.Contains(left, f) {
			left = append(left, f)
		}
	}
	return left
}

func (p *Pair) sides() (all []*side) {
	for _, s := range []*side{p.source, p.target} {
		if s != nil {
			all = append(all, s)
		}
	}
	return all
}

func found(id string, severity Severity, subject, remedy, format string, args ...any) Finding {
	return Finding{ID: id, Severity: severity, Subject: subject, Remedy: remedy, Evidence: fmt.Sprintf(format, args...)}
}

// databases returns those of the source that hold keys, in order.
func (p *Pair) databases() (all []int) {
	for _, s := range p.source.servers {
		for db, keys := range s.node.Keyspace {
			if keys > 0 && !slices.Contains(all, db) {
				all = append(all, db)
			}
		}
	}
	slices.Sort(all)
	return all
}

// highest is the highest database of the target that is written to.
func (p *Pair) highest() (most int) {
	if p.source == nil {
		return 0
	}
	for _, db := range p.databases() {
		most = max(most, int(p.cfg.DBs.Of(int32(db))))
	}
	return most
}

// together judges what source and target are to each other.
func (p *Pair) together() (all []Finding) {
	for _, a := range p.source.servers {
		for _, b := range p.target.servers {
			if f, ok := p.related(a, b); ok {
				all = append(all, f)
			}
		}
	}
	if p.source.cluster && len(p.cfg.DBs) > 0 {
		all = append(all, found("db-map-refused", Fatal, "source", "leave --db-map out", "databases of a source that is a cluster keep their numbers"))
	}
	dbs := p.databases()
	for _, db := range dbs {
		if p.cfg.DBs.Taken(int32(db)) {
			all = append(all, found("db-map-refused", Fatal, "source",
				fmt.Sprintf("say where database %d goes, too: %d=%d puts the two together, %d=drop leaves it out", db, db, db, db),
				"--db-map sends another database to %d, and the source has keys in its own database %d", db, db))
		}
	}
	for _, s := range p.target.servers {
		if e := s.noDatabase; e != nil && codeOf(e) == "NOPERM" {
			all = append(all, found("missing-permissions", Fatal, s.subject, "let the target's user run SELECT (ACL SETUSER … +select)", "the source has keys in databases %v: %v", dbs, e))
		} else if e != nil {
			all = append(all, found("databases-missing", Fatal, s.subject,
				"raise `databases` on the target (Valkey 9 clusters: `cluster-databases`), or send databases elsewhere or nowhere by --db-map; other clusters hold database 0 only",
				"the source has keys in databases %v and the target has no database %d: %v", dbs, p.highest(), e))
		}
	}
	return all
}

// related tells whether two servers are one, or replicate each other or the same primary.
func (p *Pair) related(a, b *server) (Finding, bool) {
	const remedy = "check the two addresses: nothing was written"
	with := b.subject
	none := func(id string) bool { return strings.Trim(id, "0") == "" }
	follows := func(x, y *server) bool {
		return x.node.Role == "slave" && x.node.MasterPort == y.node.TCPPort && y.node.TCPPort > 0 &&
			slices.ContainsFunc(x.primary, func(host string) bool { return slices.Contains(y.hosts, host) })
	}
	siblings := a.node.Role == "slave" && b.node.Role == "slave" && a.node.MasterPort == b.node.MasterPort &&
		slices.ContainsFunc(a.primary, func(host string) bool { return slices.Contains(b.primary, host) })
	switch {
	case !none(a.node.RunID) && a.node.RunID == b.node.RunID:
		return found("same-server", Fatal, with, remedy, "source and target (%s) are one server", b.addr), true
	case !none(a.node.ReplID) && a.node.ReplID == b.node.ReplID:
		return found("replicate-each-other", Fatal, with, remedy, "source and target (%s) are one server, or one replicates the other: they have one history", b.addr), true
	case follows(a, b):
		return found("replicate-each-other", Fatal, with, remedy, "the source %s is a replica of the target (%s)", a.addr, b.addr), true
	case follows(b, a):
		return found("replicate-each-other", Fatal, with, remedy, "the target %s is a replica of the source (%s)", b.addr, a.addr), true
	case siblings: // whether or not they are in touch with it
		return found("replicate-each-other", Fatal, with, remedy, "source and target (%s) are replicas of one primary, port %d", b.addr, b.node.MasterPort), true
	}
	return Finding{}, false
}

// judgeState judges what the target knows of the haul.
func (p *Pair) judgeState(st State) (all []Finding) {
	var keys int64
	for _, s := range p.target.servers {
		keys += s.node.Keys()
	}
	subject := "target " + p.target.dialer.Endpoint.String()
	if st.Unread != nil && len(p.target.servers) > 0 {
		all = append(all, found("unknown-state", Info, subject, "", "what the target knows of the haul cannot be read: %v", st.Unread))
	}
	if st.Refused != nil {
		all = append(all, found("haul-refused", Fatal, subject, st.Remedy, "%v", st.Refused))
	}
	if keys = max(keys-st.Own, 0); !st.Known && keys > 0 && p.cfg.MustBeEmpty {
		all = append(all, found("existing-keys", Fatal, subject,
			"say what to do with them: --existing flush (delete them first), replace (overwrite keys of the same name), or skip (keep them)",
			"the target %s holds %d keys already", p.target.dialer.Endpoint.String(), keys))
	}
	if slices.ContainsFunc(p.target.servers, func(s *server) bool { return s.running }) {
		all = append(all, found("haul-running", Warn, subject, "stop the other one, or give this haul another --name; a daemon waits for it and takes over",
			"another keyhaul runs the haul %q", p.cfg.Name))
	}
	return all
}

// judgeCluster judges whether the slots of a cluster can be used.
func (s *side) judgeCluster() (all []Finding) {
	if !s.cluster {
		return nil
	}
	if s.covered < topology.SlotCount {
		all = append(all, found("slots-uncovered", Fatal, s.name+" "+s.dialer.Endpoint.String(), "assign every slot (redis-cli --cluster fix)",
			"only %d of %d slots of the %s cluster are covered", s.covered, topology.SlotCount, s.name))
	}
	for _, one := range s.servers {
		for _, e := range one.refused {
			if e.Code == "CLUSTERDOWN" {
				all = append(all, found("cluster-down", Fatal, one.subject, "look at CLUSTER NODES there (redis-cli --cluster fix)", "it answers for no keys: %v", e))
				break
			}
		}
		if len(one.open) == 0 {
			continue
		}
		slices.Sort(one.open)
		what := "their keys wait, and after open-slot-timeout the haul ends"
		if s.name == "source" {
			what = "what the target has of them may be old until they are settled"
		}
		all = append(all, found("slots-open", Warn, one.subject, "let the migration end, or call it off: CLUSTER SETSLOT … STABLE on both nodes, or redis-cli --cluster fix",
			"%d slots are being moved (the first is %d): %s", len(one.open), one.open[0], what))
	}
	return all
}

// judgeSentinels says what sentinels will make of keyhaul.
func (s *side) judgeSentinels() []Finding {
	if s.name != "source" || s.dialer.Endpoint.Sentinels == nil && !slices.ContainsFunc(s.servers, func(one *server) bool { return one.watched }) {
		return nil
	}
	return []Finding{found("sentinel-lists-keyhaul", Info, "source "+s.dialer.Endpoint.String(), "do not run FAILOVER without TO on the source; SENTINEL RESET afterwards forgets keyhaul",
		"its sentinels will list keyhaul as a replica, with port 0: they never promote it")}
}

// judgeDisk judges whether the spool has room.
func (p *Pair) judgeDisk(goesOn bool) []Finding {
	subject := "state directory " + p.cfg.StateDir
	switch {
	case p.cfg.StateDir == "" || p.source == nil:
		return nil
	case p.disk.err != nil:
		return []Finding{found("state-dir-unusable", Fatal, subject, "choose another --state-dir, or none to keep everything in memory", "%v", p.disk.err)}
	}
	room, most := SpoolRoom(p.disk.free), SpoolRoom(math.MaxInt64)
	if p.cfg.SpoolMax > 0 {
		room, most = p.disk.free, p.cfg.SpoolMax
	}
	need, written := int64(0), 0.0
	if !goesOn {
		need = p.data()
	}
	for _, s := range p.source.servers {
		written += s.written
	}
	need = min(need+int64(written*p.copyTime().Seconds()), most) // it takes no more, whatever there is
	var text string
	switch {
	case room < need:
		text = fmt.Sprintf("the spool has room for %s (%s are free), and may need %s", size(room), size(p.disk.free), size(need))
	case p.cfg.SpoolMax > p.disk.free:
		text = fmt.Sprintf("the spool may grow to %s (spool.max-bytes), and %s are free", size(p.cfg.SpoolMax), size(p.disk.free))
	case p.disk.free < aof.SegmentBytes:
		text = fmt.Sprintf("%s are free, which is not one segment of the spool", size(p.disk.free))
	default:
		return nil
	}
	return []Finding{found("state-disk-small", Warn, subject,
		"free the disk, or choose another --state-dir; without room keyhaul stops reading, and the source's output buffer for replicas fills", "%s", text)}
}

// skewed is how much clocks may differ. What keeps them together keeps them closer than that.
const skewed = time.Second

// judgeClocks compares the clocks of all servers with ours, and so with each other.
func (p *Pair) judgeClocks() (all []Finding) {
	for _, side := range p.sides() {
		for _, s := range side.servers {
			if s.timed && s.ahead.Abs()-s.unsure > skewed {
				way := "ahead of"
				if s.ahead < 0 {
					way = "behind"
				}
				all = append(all, found("clock-skew", Warn, s.subject, "set both clocks by NTP: keys that expire go that much too early or too late",
					"its clock is %s %s the one of this machine", s.ahead.Abs().Round(time.Millisecond), way))
			}
		}
	}
	return all
}

// data is what the keys that are hauled take in the memory of the source.
func (p *Pair) data() (bytes int64) {
	for _, s := range p.source.servers {
		var hauled int64
		for db, keys := range s.node.Keyspace {
			if p.cfg.DBs.Of(int32(db)) >= 0 {
				hauled += keys
			}
		}
		if all := s.node.Keys(); hauled > 0 {
			bytes += int64(float64(s.data()) * float64(hauled) / float64(all))
		}
	}
	return bytes
}

// copied is how much of its memory a server takes to a snapshot in a second, at a low estimate.
const copied = 50 << 20

// copyTime is how long a snapshot takes: what the source needed for its last one, or an estimate by its data.
func (p *Pair) copyTime() (longest time.Duration) {
	for _, s := range p.source.servers {
		longest = max(longest, s.copyTime())
	}
	return longest
}

func (s *server) copyTime() time.Duration {
	last := time.Duration(max(s.number("rdb_last_bgsave_time_sec"), 0)) * time.Second
	return max(last, time.Duration(float64(s.data())/copied*float64(time.Second)))
}

// unknown says what could not be asked.
func (p *Pair) unknown() (all []Finding) {
	for _, side := range p.sides() {
		subject := side.name + " " + side.dialer.Endpoint.String()
		add := func(id, rule, format string, has func(*server) bool) {
			if slices.ContainsFunc(side.servers, has) {
				all = append(all, found(id, Info, subject, "let the user run it for keyhaul check ("+rule+"), or look yourself", "%s", format))
			}
		}
		add("unknown-config", "+config|get", "its settings cannot be read: "+strings.Join(settings[side.name], ", "), func(s *server) bool { return s.noConfig })
		add("unknown-slots", "+cluster|nodes", "whether slots are being moved cannot be read", func(s *server) bool { return s.noSlots })
		add("unknown-types", "+scan +type +select", "the types of its keys cannot be looked at", func(s *server) bool { return s.noTypes })
		add("unknown-commands", "+command|info, at both ends", "whether it has all commands of modules that the source's clients run cannot be asked", func(s *server) bool { return s.noCommands })
	}
	return all
}

// estimate says how much there is to copy.
func (p *Pair) estimate() []Finding {
	if p.source == nil || len(p.source.servers) == 0 {
		return nil
	}
	var keys int64
	for _, s := range p.source.servers {
		keys += s.node.Keys()
	}
	about := cmp.Or(p.copyTime(), time.Second)
	return []Finding{found("estimate", Info, "source "+p.source.dialer.Endpoint.String(), "", "%d keys, about %s in memory; its snapshot takes about %s; this machine has %d CPUs",
		keys, size(p.data()), roughly(max(about, time.Second)), runtime.NumCPU())}
}

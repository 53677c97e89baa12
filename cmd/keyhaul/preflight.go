package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/reader"
)

// ends is what source and target said of themselves before the first write.
type ends struct {
	source   topology.Node // zero if it is no server
	survey   *survey       // of a cluster source; else nil
	input    *reader.Input // of a source that is files; else nil
	target   topology.Node
	primary  []string // addresses of the target's primaries
	keys     int64    // on the target, in all databases
	shards   int
	sourceDB []int // databases of the source that hold keys
	capacity       // of every primary of the target

	noTransactions error // why the target, which is no cluster, takes no transaction over several keys; nil if it does
}

const questionTimeout = 10 * time.Second

// close lets go of files.
func (e *ends) close() {
	if e.input != nil {
		e.input.Close()
	}
}

// openEnds opens ends that are files. The caller closes them.
func openEnds(ctx context.Context, cfg config) (*ends, error) {
	e := &ends{}
	var err error
	if cfg.Source.Files != nil {
		e.input, err = cfg.Source.Files.Open(ctx)
	}
	return e, err
}

// meet waits until those ends that are servers are ready and asks what they are. Past the deadline it fails with
// ExitUnreachable.
func (e *ends) meet(ctx context.Context, cfg config, source, target *topology.Dialer, waits *haul.Waits, log zerolog.Logger) error {
	began := time.Now()
	if err := e.greet(ctx, cfg, source, target, waits, log); err != nil {
		return err
	}
	if e.source.Cluster {
		look := func(ctx context.Context) error { return e.lookAtSource(ctx, source) }
		if err := patiently(ctx, cfg, "source "+source.Endpoint.String(), began, look, waits, log); err != nil {
			return err
		}
	}
	e.listDatabases()
	if target == nil {
		return nil
	}
	look := func(ctx context.Context) error { return e.look(ctx, target) }
	return patiently(ctx, cfg, "target "+target.Endpoint.String(), began, look, waits, log)
}

// look finds the target's primaries and what they hold.
func (e *ends) look(ctx context.Context, target *topology.Dialer) error {
	e.keys, e.shards = 0, 1
	if e.target.Cluster {
		topo, err := topology.Discover(ctx, target, target.Endpoint.Addrs)
		if err != nil {
			return &notYet{fmt.Errorf("the target cluster cannot be read: %w", err), "look at CLUSTER NODES on the target"}
		}
		if n := topo.Covered(); n < topology.SlotCount {
			return &notYet{fmt.Errorf("only %d of %d slots of the target cluster are covered", n, topology.SlotCount), "assign every slot (redis-cli --cluster fix)"}
		}
		e.primary = nil
		for _, s := range topo.Shards {
			e.primary = append(e.primary, s.Primary)
		}
		e.shards = len(e.primary)
	} else if e.primary = target.Endpoint.Addrs; e.target.Role != "slave" { // a replica is refused later
		addr, err := target.Primary(ctx)
		if err != nil {
			return &notYet{fmt.Errorf("target: %w", err), "start the target's primary, or correct its address"}
		}
		e.primary = []string{addr}
	}
	for i, addr := range e.primary {
		node, err := inspectAt(ctx, target, addr)
		if err != nil {
			return &notYet{fmt.Errorf("target %s: %w", addr, err), "let keyhaul reach every primary of the target (address-map helps behind NAT)"}
		}
		e.keys += node.Keys()
		has := askCapacity(ctx, target, addr)
		if i > 0 {
			has = has.least(e.capacity)
		}
		e.capacity = has
	}
	return nil
}

// listDatabases notes which databases of the source hold keys.
func (e *ends) listDatabases() {
	for _, node := range e.sources() {
		for db := range node.Keyspace {
			if !slices.Contains(e.sourceDB, db) {
				e.sourceDB = append(e.sourceDB, db)
			}
		}
	}
	slices.Sort(e.sourceDB)
}

// lookAtSource finds the shards of a cluster source.
func (e *ends) lookAtSource(ctx context.Context, source *topology.Dialer) error {
	look := surveyor{dialer: source}
	defer look.close()
	v, err := look.look(ctx)
	if err == nil {
		err = errors.Join(v.whole(), v.missing)
	}
	if err != nil {
		return &notYet{fmt.Errorf("the source cluster cannot be read: %w", err), "look at CLUSTER NODES on the source, and let keyhaul reach every primary (address-map helps behind NAT)"}
	}
	e.survey = v
	return nil
}

// sources returns the servers that are read from: one, the primaries of a cluster, or none.
func (e *ends) sources() []topology.Node {
	switch {
	case e.input != nil:
		return nil
	case e.survey == nil:
		return []topology.Node{e.source}
	}
	return slices.Collect(maps.Values(e.survey.nodes))
}

func inspectAt(ctx context.Context, d *topology.Dialer, addr string) (topology.Node, error) {
	c, err := d.Open(ctx, addr)
	if err != nil {
		return topology.Node{}, err
	}
	defer c.Close() //nolint:errcheck // only asked
	return topology.Inspect(ctx, c)
}

// plan says what is going to happen.
func (e *ends) plan(cfg config, st *checkpoint.State) []string {
	mode := "one server"
	if e.target.Cluster {
		mode = fmt.Sprintf("a cluster of %d primaries", e.shards)
	}
	end := "until stopped"
	if cfg.OneShot() {
		end = "until " + cfg.Until
	}
	existing := "which is empty"
	if e.keys > 0 {
		existing = fmt.Sprintf("which holds %d keys: --existing %s", e.keys, cfg.Existing)
	}
	then, deadlines := ", then the stream of writes", "by the "+cfg.ExpiryMode+"'s clock"
	if e.input != nil && !e.input.AOF() {
		then, deadlines = "", "true at once"
	}
	does := "full copy" + then
	switch {
	case st.Found && st.Lost == nil && st.Record.Phase == checkpoint.PhaseStreaming:
		does = "goes on where it stopped"
		if e.survey == nil {
			does += fmt.Sprintf(", at offset %d", st.Base.Offset)
		}
		existing = fmt.Sprintf("which holds %d keys", e.keys)
	case st.Found:
		does = "repeats its full copy" + then
		existing = fmt.Sprintf("which holds %d keys", e.keys)
	}
	lines := []string{
		fmt.Sprintf("source  %s: %s", cfg.Source, e.origin()),
		fmt.Sprintf("target  %s: %s %s, %s, %s", cfg.Target, e.target.Product, e.target.Version, mode, existing),
		fmt.Sprintf("haul    %q: %s, %s; delivery %s; on error %s; what the target lacks: %s; on lost history %s; deadlines %s", cfg.Name, does, end,
			cfg.Delivery, cfg.OnError, cfg.Unsupported, cfg.OnLostHistory, deadlines),
	}
	if cfg.WaitReplicas > 0 {
		lines = append(lines, fmt.Sprintf("        applied is what %d replicas of each node have", cfg.WaitReplicas))
	}
	return append(lines, mapped(cfg.DBs)...)
}

// sourceOffset is how far the source's stream has come; 0 if that is not known.
func (e *ends) sourceOffset() int64 {
	if e.input != nil {
		return e.input.End()
	}
	return e.source.MasterReplOffset
}

// origin says in the plan what the source is.
func (e *ends) origin() string {
	if e.input != nil {
		return e.input.Describe()
	}
	var keys, memory int64
	for _, node := range e.sources() {
		keys += node.Keys()
		memory += node.UsedMemory
	}
	from := "one server"
	if e.survey != nil {
		from = fmt.Sprintf("a cluster of %d primaries", len(e.survey.Shards))
	}
	return fmt.Sprintf("%s %s, %s, %d keys in databases %v, %d MB used", e.source.Product, e.source.Version, from, keys, e.sourceDB, memory>>20)
}

package check

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/keyhaul/keyhaul/internal/command"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// elsewise are commands of clients that reach a replica as others.
var elsewise = []string{
	"GETDEL", "GETEX", "HGETEX", "LMPOP", "BLMPOP", "ZMPOP", "BZMPOP", "BLMOVE", "BRPOPLPUSH", "BLPOP", "BRPOP", "BZPOPMIN", "BZPOPMAX", "XAUTOCLAIM",
	"DELEX", "DELIFEQ", "RESTORE-ASKING", "XIDMPRECORD", "XCFGSET", "FUNCTION", "XREADGROUP",
}

// rewritten are commands for which keyhaul has another form where the target's release lacks them.
var rewritten = []string{"HSETEX", "HGETDEL", "MSETEX", "LMOVE", "COPY", "ZRANGESTORE", "ZDIFFSTORE", "GEOSEARCHSTORE"}

// used returns the commands of the source's clients that write, as INFO commandstats names them: those that keyhaul knows,
// and others, which are of modules or of newer releases.
func (p *Pair) used() (known, others []string) {
	names := map[string]bool{}
	for _, s := range p.source.servers {
		for name := range s.calls {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		container, sub, _ := strings.Cut(strings.ToUpper(name), "|")
		spec := command.Lookup([]byte(container))
		switch {
		case spec == nil:
			others = append(others, name)
		case slices.Contains(elsewise, container), spec.Keyless(): // the latter may need no argument: asking for them would be telling
		case sub == "" && spec.Write, sub != "" && spec.Resolve([]byte(sub)) != nil && spec.Resolve([]byte(sub)).Write:
			known = append(known, name)
		}
	}
	return known, others
}

// lackKnown names commands without their arguments: whoever has one says that these are missing, and needs no permission for
// that.
func (s *server) lackKnown(ctx context.Context, c *resp.Conn, p *Pair, names []string) error {
	var calls [][]string
	for _, name := range names {
		calls = append(calls, strings.Split(strings.ToUpper(name), "|"))
	}
	if len(calls) == 0 {
		return nil
	}
	replies, err := c.DoAll(ctx, questionTimeout, calls...)
	if err != nil {
		return err
	}
	for i, r := range replies {
		e := refusal(r)
		unknown := e != nil && (strings.Contains(e.Text, "unknown command") || strings.Contains(e.Text, "unknown subcommand"))
		if unknown && !p.isRewritten(s, calls[i][0]) {
			s.lacks = append(s.lacks, strings.Join(calls[i], " "))
		}
	}
	return nil
}

// isRewritten tells whether keyhaul does without a command that this target lacks.
func (p *Pair) isRewritten(s *server, name string) bool {
	return slices.Contains(rewritten, name) && s.node.Release() != p.source.servers[0].node.Release()
}

// lackOthers asks for commands that keyhaul does not know: which of them write, the source tells.
func (s *server) lackOthers(ctx context.Context, c *resp.Conn, p *Pair, names []string) {
	if len(names) == 0 {
		return
	}
	source, err := p.source.dialer.Open(ctx, p.source.servers[0].addr)
	if err != nil {
		return
	}
	defer source.Close() //nolint:errcheck // only asked
	ask := append([]string{"COMMAND", "INFO"}, names...)
	there, err := source.Do(ctx, questionTimeout, ask...)
	here, err2 := c.Do(ctx, questionTimeout, ask...)
	if err != nil || err2 != nil || len(there.Array) != len(names) || len(here.Array) != len(names) {
		s.noCommands = true
		return
	}
	for i, name := range names {
		if len(here.Array[i].Array) > 0 || len(there.Array[i].Array) < 3 {
			continue
		}
		flags := there.Array[i].Array[2].Array
		writes := slices.ContainsFunc(flags, func(f resp.Reply) bool { return f.Text == "write" })
		module := slices.ContainsFunc(flags, func(f resp.Reply) bool { return f.Text == "module" })
		if writes && module {
			s.lacksModules = append(s.lacksModules, name)
		} else if writes {
			s.lacks = append(s.lacks, strings.ToUpper(name))
		}
	}
}

// sampleKeys is how many keys of each database are looked at.
const sampleKeys = 500

// plainTypes are those that every release since 5.0 has.
var plainTypes = []string{"string", "list", "set", "zset", "hash", "stream", "none"}

// sampleTypes looks for keys of types that the target may lack, where there may be any.
func (p *Pair) sampleTypes(ctx context.Context, c *resp.Conn, s *server) error {
	if p.target == nil || !p.mayLackTypes(s) {
		return nil
	}
	for db := range s.node.Keyspace {
		if p.cfg.DBs.Of(int32(db)) < 0 {
			continue
		}
		replies, err := c.DoAll(ctx, questionTimeout, []string{"SELECT", strconv.Itoa(db)}, []string{"SCAN", "0", "COUNT", strconv.Itoa(sampleKeys)})
		if err != nil {
			return err
		}
		if len(replies[1].Array) != 2 || replies[0].Err() != nil && db != 0 {
			s.noTypes = true
			return nil
		}
		var calls [][]string
		for _, key := range replies[1].Array[1].Array {
			calls = append(calls, []string{"TYPE", key.Text})
		}
		if len(calls) == 0 {
			continue
		}
		if replies, err = c.DoAll(ctx, questionTimeout, calls...); err != nil {
			return err
		}
		for _, r := range replies {
			s.noTypes = s.noTypes || r.Err() != nil
			s.sampled++
			if r.Err() == nil && !slices.Contains(plainTypes, r.Text) {
				s.strange = append(s.strange, r.Text)
			}
		}
	}
	return nil
}

// mayLackTypes tells whether a server of the source may hold what the target has no form for.
func (p *Pair) mayLackTypes(s *server) bool {
	for _, t := range p.target.servers {
		from, to := s.node.Release(), t.node.Release()
		if from.VectorSets() && !to.VectorSets() || from.Arrays() && !to.Arrays() {
			return true
		}
		for _, m := range s.modules {
			if t.modules != nil && !slices.Contains(t.modules, m) && !slices.Contains(engines, m) {
				return true
			}
		}
	}
	return false
}

// engines are modules that have no types and no commands.
var engines = []string{"lua"}

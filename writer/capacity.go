package writer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/topology"
	"github.com/keyhaul/keyhaul/rdb"
)

// Values of a module are known to that module alone: they travel as payloads, to a target that has it. One that has not
// refuses them, but Redis before 7.0 ends itself when it is given one.

// modulesOf are the modules that have a type of values, as MODULE LIST names them.
var modulesOf = map[string][]string{
	"ReJSON-RL": {"ReJSON", "json"}, "MBbloom--": {"bf"}, "MBbloomCF": {"bf"}, "bloomfltr": {"bf"}, "CMSk-TYPE": {"bf"}, "TopK-TYPE": {"bf"},
	"TDIS-TYPE": {"bf"}, "TSDB-TYPE": {"timeseries"}, "vectorset": {"vectorset"}, "graphdata": {"graph"},
}

// ModulesOf are the modules of which any has a type of values, by the type's name; nil if that is not known.
func ModulesOf(typeName string) []string { return modulesOf[typeName] }

// takesModule reports whether a value may be sent that a type of a module has, by the id in front of it.
func (c *Config) takesModule(value []byte) bool {
	need, known := modulesOf[rdb.ModuleName(value)]
	switch {
	case c.Modules == nil:
	case known:
		return slices.ContainsFunc(need, func(m string) bool { return slices.Contains(c.Modules, m) })
	case len(c.Modules) == 0:
		return false
	}
	return !endsByModules(c.Node)
}

// endsByModules reports whether a server ends itself when it is given a value of a module that it has not.
func endsByModules(n topology.Node) bool {
	r := n.Release()
	return r != (rdb.Release{}) && !r.Valkey && r.Major < 7
}

// lacksModule names what the target lacks for such a value.
func lacksModule(value []byte) string {
	return fmt.Sprintf("module for values of type %q", rdb.ModuleName(value))
}

// lacksRoom names what the target lacks for a large value that goes in one string, if it does: a server closes the
// connection on which a longer one comes.
func (r *rewriter) lacksRoom(e *haul.Entry) (string, error) {
	size, errKnown := e.Big.Len, errors.New("the size is known")
	if k := r.batch.KeyOf(e); k.Type == rdb.TypeString {
		err := rdb.Value{Type: k.Type}.Elements(bigReader(e), func(x *rdb.Element) error {
			size = int64(x.Size)
			return errKnown
		})
		if err != nil && !errors.Is(err, errKnown) {
			return "", err
		}
	}
	if r.d.cfg.MaxBulk == 0 || size <= r.d.cfg.MaxBulk {
		return "", nil
	}
	return fmt.Sprintf("room for a string of %d bytes (its proto-max-bulk-len is %d)", size, r.d.cfg.MaxBulk), nil
}

// idBytes is how long the id of a module's type is at most, in front of a value.
const idBytes = 9

// moduleID returns what a key of the snapshot begins with, if it is a value of a module.
func moduleID(b *haul.Batch, e *haul.Entry) (id []byte, err error) {
	if e.Kind != haul.KindKey || b.KeyOf(e).Type != rdb.TypeModule2 {
		return nil, nil
	}
	if e.Big == nil {
		return b.Bytes(b.KeyOf(e).Value), nil
	}
	id = make([]byte, idBytes)
	if _, err := e.Big.Bytes.ReadAt(id, e.Big.Off); err != nil {
		return nil, &spoolError{err}
	}
	return id, nil
}

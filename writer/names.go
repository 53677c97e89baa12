package writer

import (
	"fmt"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/rdb"
)

// keysOf names the keys of an entry, for messages.
func keysOf(it item) (name string, keys []string) {
	b, e := it.batch, it.entry()
	if it.batch.Snapshot && e.Kind == haul.KindKey {
		return "RESTORE (" + rdb.TypeName(b.KeyOf(e).Type) + ")", []string{string(b.KeyOf(e).Name)}
	}
	if e.Kind == haul.KindFunction {
		return "FUNCTION LOAD", nil
	}
	cmds := b.CommandsOf(e)
	const most = 10
	for i := range cmds {
		n, k := namesOf(b, e, &cmds[i])
		if name == "" {
			name = n
		}
		keys = append(keys, k...)
	}
	if e.Kind == haul.KindTransaction {
		name = "MULTI of " + name
	}
	if len(keys) > most {
		keys = append(keys[:most:most], fmt.Sprintf("and %d more", len(keys)-most))
	}
	return name, keys
}

func namesOf(b *haul.Batch, e *haul.Entry, c *haul.Command) (string, []string) {
	name := "unknown command"
	if c.Spec != nil {
		name = c.Spec.Name
	}
	if e.Big != nil {
		return name, nil
	}
	index, err := c.Spec.Keys(nil, int(c.NArg), func(i int) []byte { return b.Arg(c, i) })
	if err != nil {
		return name, nil
	}
	keys := make([]string, len(index))
	for i, k := range index {
		keys[i] = string(b.Arg(c, k))
	}
	return name, keys
}

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
	n, arg, readErr := argsOf(b, e, c)
	index, err := c.Spec.Keys(nil, n, arg)
	if err != nil {
		return name, nil
	}
	keys := make([]string, len(index))
	for i, k := range index {
		keys[i] = string(arg(k))
	}
	if *readErr != nil {
		return name, nil
	}
	return name, keys
}

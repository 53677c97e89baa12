package writer

import (
	"math"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/rdb"
)

// values says in which form values reach the target.
type values struct {
	to    rdb.Release
	asIs  [2][256]bool // which it takes as they are, by the snapshot's being Valkey's, and type
	lacks func(lacking) (treatment, error)
}

// newValues is for a target that is of a release, or that does not tell: then everything goes as it is.
func newValues(to rdb.Release, lacks func(lacking) (treatment, error)) values {
	if to == (rdb.Release{}) {
		to = rdb.Release{Major: math.MaxInt}
	}
	v := values{to: to, lacks: lacks}
	for t := range 256 {
		for i, valkey := range []bool{false, true} {
			form, _ := to.Form(byte(t), valkey, false)
			v.asIs[i][t] = form == rdb.FormAsItIs
		}
	}
	return v
}

// takes reports whether the target takes the value of a key as it is.
func (v *values) takes(k *haul.Key) bool {
	if k.Prefix.Len > 0 {
		form, _ := v.to.Form(k.Type, false, true)
		return form == rdb.FormAsItIs
	}
	i := 0
	if fromValkey(k) {
		i = 1
	}
	return v.asIs[i][k.Type]
}

// missing reports whether the target has nothing of the kind that the value of a key is.
func (v *values) missing(k *haul.Key) bool {
	form, _ := v.to.Form(k.Type, fromValkey(k), k.Prefix.Len > 0)
	return form == rdb.FormMissing
}

func fromValkey(k *haul.Key) bool { return k.Has&haul.FromValkey != 0 }

// rewritten appends a key whose value the target does not take as it is.
func (c *encoder) rewritten(o *outbox, it item, k *haul.Key) error {
	form, lacks := c.to.Form(k.Type, fromValkey(k), k.Prefix.Len > 0)
	if form == rdb.FormMissing {
		return c.nothing(o, it, k, lacks)
	}
	body, t, lost, err := c.to.Rewrite(o.scratch[:0], rdb.Value{Type: k.Type, Valkey: fromValkey(k)}, it.batch.Bytes(k.Value))
	if err != nil {
		return err
	}
	if o.scratch = body; cap(body) > maxScratch {
		o.scratch = nil
	}
	if lost == "" && k.Prefix.Len > 0 {
		lost = lacks
	}
	if lost != "" {
		leave, err := c.lost(it, k, lost, true)
		if leave || err != nil {
			o.text(ping)
			return err
		}
	}
	c.restoreHead(o, k, int64(1+len(body)+rdb.FooterSize))
	crc := c.payloadStart(o, nil, t)
	o.arena = append(o.arena, body...) // not put: the next one takes its place
	o.size += len(body)
	c.restoreTail(o, k, rdb.FooterVersion(t, c.to.Valkey, false), rdb.CRC64(crc, body))
	return nil
}

// maxScratch is how much of a rewritten value's room is kept for the next one.
const maxScratch = 1 << 20

// ping takes the place of what is left out, so that the target answers all the same.
const ping = "*1\r\n$4\r\nPING\r\n"

// nothing appends no more than a PING for a key of which the target can hold nothing.
func (c *encoder) nothing(o *outbox, it item, k *haul.Key, lacks string) error {
	o.text(ping)
	_, err := c.lost(it, k, lacks, false)
	return err
}

// lost decides on a key of which the target lacks something, and lists it once. It reports whether the key is left out.
func (c *encoder) lost(it item, k *haul.Key, what string, rest bool) (leave bool, err error) {
	if k.Has&(haul.Degraded|haul.LeftOut) == 0 {
		name, keys := keysOf(it)
		how, err := c.lacks(lacking{item: it, command: name, keys: keys, what: what, rest: rest})
		if err != nil {
			return true, err
		}
		k.Has |= haul.LeftOut
		if how == degrade {
			k.Has ^= haul.LeftOut | haul.Degraded
		}
	}
	return k.Has&haul.LeftOut != 0, nil
}

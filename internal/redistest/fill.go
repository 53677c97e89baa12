package redistest

import (
	"context"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/keyhaul/keyhaul/internal/resp"
)

const (
	fillBatch    = 500
	fillWorkers  = 3
	fillElements = 10 // of a list, set, hash or sorted set
)

// fills are the kinds of keys that FillMixed makes, how many at scale 1, and the commands for one key.
var fills = []struct {
	kind     string
	count    float64
	commands func(c content, key string) [][]string
}{
	{"string", 1_000_000, fillString},
	{"hash", 250_000, fillHash},
	{"zset", 125_000, fillZset},
	{"list", 125_000, fillList},
	{"set", 125_000, fillSet},
	{"stream", 15_000, fillStream},
}

// FillMixed writes a data set into a server or cluster, as fast as it goes: at scale 1 a million strings of 20 to 220
// bytes, a third of them with a TTL of hours; 250,000 hashes; 125,000 each of sorted sets, lists and sets, all of ten
// elements; and 15,000 streams with a consumer group, some with pending entries. Content is partly compressible.
// The same seed gives the same content, but for the entry ids of streams. Keys are named kind:number.
func FillMixed(ctx context.Context, ep Endpoint, scale float64, seed uint64) error {
	to, err := newSide(ctx, "load", ep)
	if err != nil {
		return err
	}
	type task struct{ kind, first, end int }
	tasks := make(chan task)
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(tasks)
		for kind, f := range fills {
			total := int(f.count * scale)
			for first := 0; first < total; first += fillBatch {
				select {
				case tasks <- task{kind, first, min(first+fillBatch, total)}:
				case <-gctx.Done():
					return context.Cause(gctx)
				}
			}
		}
		return nil
	})
	for range fillWorkers {
		group.Go(func() error {
			sess := to.session()
			defer sess.close()
			for t := range tasks {
				f := fills[t.kind]
				c := content{rand.New(rand.NewPCG(seed, uint64(t.kind)<<40|uint64(t.first)))}
				keys := make([]string, 0, t.end-t.first)
				for n := t.first; n < t.end; n++ {
					keys = append(keys, f.kind+":"+strconv.Itoa(n))
				}
				err := sess.ask(
					gctx, 0, keys,
					func(i int) [][]string { return f.commands(c, keys[i]) },
					func(int, []resp.Reply) error { return nil },
				)
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// content makes values.
type content struct{ *rand.Rand }

// pool is the text that values are cut from: half of it repeats itself, half of it does not.
var pool = sync.OnceValue(func() string {
	const size = 1 << 20
	words := strings.Fields("lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor")
	r := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(words[r.IntN(len(words))] + " ")
		b.WriteString(strconv.FormatUint(r.Uint64(), 36))
	}
	return b.String()[:size]
})

// text returns a value of least to most bytes.
func (c content) text(least, most int) string {
	n := least + c.IntN(most-least+1)
	at := c.IntN(len(pool()) - n)
	return pool()[at : at+n]
}

func (c content) id() string { return strconv.FormatUint(c.Uint64()>>24, 36) }

func fillString(c content, key string) [][]string {
	command := []string{"SET", key, c.text(20, 220)}
	if c.IntN(3) == 0 {
		command = append(command, "EX", strconv.Itoa(3600+c.IntN(48*3600)))
	}
	return [][]string{command}
}

func fillHash(c content, key string) [][]string {
	command := []string{"HSET", key}
	for i := range fillElements {
		command = append(command, "field"+strconv.Itoa(i), c.text(4, 40))
	}
	return [][]string{command}
}

func fillZset(c content, key string) [][]string {
	command := []string{"ZADD", key}
	for range fillElements {
		command = append(command, strconv.FormatFloat(c.NormFloat64()*1000, 'g', 8, 64), "member:"+c.id())
	}
	return [][]string{command}
}

func fillList(c content, key string) [][]string {
	command := []string{"RPUSH", key}
	for range fillElements {
		command = append(command, c.text(5, 60))
	}
	return [][]string{command}
}

// fillSet makes one set in three of integers only, which servers keep in a form of their own.
func fillSet(c content, key string) [][]string {
	command := []string{"SADD", key}
	integers := c.IntN(3) == 0
	for range fillElements {
		if integers {
			command = append(command, strconv.Itoa(c.IntN(1<<20)))
		} else {
			command = append(command, "member:"+c.id())
		}
	}
	return [][]string{command}
}

func fillStream(c content, key string) [][]string {
	commands := [][]string{{"XGROUP", "CREATE", key, "group", "0", "MKSTREAM"}}
	for range 2 + c.IntN(12) {
		commands = append(commands, []string{"XADD", key, "*", "sensor", c.id(), "reading", c.text(5, 40)})
	}
	if c.IntN(3) == 0 {
		commands = append(commands, []string{"XREADGROUP", "GROUP", "group", "reader", "COUNT", "2", "STREAMS", key, ">"})
	}
	return commands
}

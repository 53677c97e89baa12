package reader

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestKeyDBStream: commands of an active replica of KeyDB are those within, in the databases that it names.
func TestKeyDBStream(t *testing.T) {
	const uuid = "f4d5b2b5-4f07-4ee5-a4f2-5dc98507dfce"
	in := func(db string, args ...string) string {
		return wire("RREPLAY", uuid, wire(args...), db, "1693526400000000")
	}
	large := strings.Repeat("large value ", 600_000)
	stream := wire("SELECT", "4") + in("4", "SET", "a", "1") + in("2", "incr", "b") + wire("PING") + in("0", "PING") +
		wire("rreplay", uuid, wire("SET", "c", "")) +
		in("7", "MULTI") + in("7", "SET", "d", "2") + in("7", "SET", "e", "3") + in("7", "EXEC") +
		wire("RREPLAY", uuid, in("5", "SADD", "f", "nested"), "6", "1") +
		in("3", "SET", "large", large) + in("3", "DEL", "a")
	want := []string{
		"4:SET a 1", "2:incr b", "0:SET c ", "7:MULTI[SET d 2; SET e 3]", "5:SADD f nested", "3:SET large " + large[:64], "3:DEL a", // a sink notes no more of what stays in the spool
	}
	f := newFront(t, rt.Script{full, fullresync, rt.Send(sized("v")), acks, rt.Send(stream)})
	r := run(t, plan{url: f.url(), config: fast})
	r.eventually("all", func() error {
		if s := r.reader.Status(); s.Applied != 100+int64(len(stream)) || s.DB != 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if got := r.sink.commands(); !slices.Equal(got, want) {
		t.Errorf("%.300q", got)
	}
}

// TestKeyDBStreamIsDamaged: what is no command within is an error, and never one of its own.
func TestKeyDBStreamIsDamaged(t *testing.T) {
	for name, stream := range map[string]string{
		"nothing":   wire("RREPLAY", "uuid", ""),
		"no body":   wire("RREPLAY", "uuid"),
		"cut":       wire("RREPLAY", "uuid", "*2\r\n$3\r\nDEL\r\n$5\r\na\r\n"),
		"two":       wire("RREPLAY", "uuid", wire("DEL", "a")+wire("DEL", "b")),
		"a number":  wire("RREPLAY", "uuid", "*x\r\n"),
		"negative":  wire("RREPLAY", "uuid", "*1\r\n$-1\r\n"),
		"enormous":  wire("RREPLAY", "uuid", "*1\r\n$9223372036854775807\r\n"),
		"no number": wire("RREPLAY", "uuid", wire("DEL", "a"), "db"),
	} {
		t.Run(name, func(t *testing.T) {
			f := newFront(t, rt.Script{full, fullresync, rt.Send(sized("v")), acks, rt.Send(stream)})
			r := run(t, plan{url: f.url(), config: fast})
			r.exit(haul.ExitFailed, "RREPLAY at offset 100")
		})
	}
}

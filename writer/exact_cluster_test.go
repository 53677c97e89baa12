package writer

import (
	"testing"

	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/internal/command"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// setFence expects the fence of the slot of a tag.
func setFence(tag string) []rt.Step {
	key := checkpoint.Keys{Name: "test"}.Fence(command.Slot([]byte(tag)))
	return []rt.Step{rt.Expect("SET", key, rt.Any), rt.Expect("EXEC")}
}

// TestFencedEntryWaitsForItsSlot: what may not be repeated goes when everything before it in its slot is acknowledged,
// nothing of the slot goes before its transaction is answered, what comes meanwhile joins one transaction, and other
// slots flow on.
func TestFencedEntryWaitsForItsSlot(t *testing.T) {
	first, second := make(chan struct{}), make(chan struct{})
	p := rt.NewPeer(t, discovery(), script(
		exactLogin(7),
		// the INCR of slot a waits for the SET, that of slot c for nothing
		expectAll("SET {a}x 1", "SET {b}y 1", "MULTI", "INCR {c}n"), setFence("c"), then(first),
		expectAll("SET {b}y 2"),
		replyAll("+OK"), // of the SET of slot a
		expectAll("MULTI", "INCR {a}x", "SET {a}w 1", "RPUSH {a}l 1"), setFence("a"), then(second),
		expectAll("SET {b}y 3"),
		replyAll("+OK", "+OK", "+QUEUED", "+QUEUED", "*2\r\n:1\r\n+OK", "+OK"), // up to the second SET of slot b
		// what follows in slot c needs no fence, and may not overtake
		expectAll("SET {c}n 5"), replyAll("+OK", "+QUEUED", "+QUEUED", "+QUEUED", "+QUEUED", "*4\r\n:2\r\n+OK\r\n:1\r\n+OK"),
		expectAll("SET {a}w 2"), replyAll("+OK", "+OK", "+OK"),
	))
	r := exactPeerRig(t, p, true)
	r.do("SET {a}x 1", "INCR {a}x", "SET {b}y 1", "INCR {c}n")
	reached(t, p, first)
	r.do("SET {a}w 1", "RPUSH {a}l 1", "SET {b}y 2")
	reached(t, p, second)
	r.do("SET {a}w 2", "SET {c}n 5", "SET {b}y 3")
	p.Wait()
	r.drained()
}

// TestRefusedEntryHoldsItsSlot: an error of an entry without a fence keeps what follows it in its slot from being sent;
// entries behind it that were applied already are sent again, in order.
func TestRefusedEntryHoldsItsSlot(t *testing.T) {
	sent := make(chan struct{})
	p := rt.NewPeer(
		t, discovery(),
		script(
			exactLogin(7),
			expectAll("SET {a}x 1", "SET {a}x 2", "DEL {a}h", "HSET {a}h f 1", "SET {b}y 1"), then(sent),
			// the HSET has met what the DEL would have removed: that is no error of its own
			replyAll("-OOM command not allowed when used memory > 'maxmemory'.", "+OK", ":0", "-WRONGTYPE Operation against a key", "+OK"),
			expectAll("SET {a}x 1", "SET {a}x 2", "DEL {a}h", "HSET {a}h f 1"), replyAll("+OK", "+OK", ":1", ":1"),
			expectAll("MULTI", "INCR {a}x"), setFence("a"), replyAll("+OK", "+QUEUED", "+QUEUED", "*2\r\n:3\r\n+OK"),
		),
		discovery(), fencesAt(0, true),
	)
	r := exactPeerRig(t, p, true)
	r.do("SET {a}x 1", "SET {a}x 2", "DEL {a}h", "HSET {a}h f 1", "INCR {a}x", "SET {b}y 1")
	reached(t, p, sent)
	p.Wait()
	r.drained()
}

// TestRefusedTransactionHoldsItsSlot: the same of a transaction with a fence.
func TestRefusedTransactionHoldsItsSlot(t *testing.T) {
	sent := make(chan struct{})
	p := rt.NewPeer(
		t, discovery(),
		script(
			exactLogin(7),
			expectAll("MULTI", "INCR {a}x"), setFence("a"), then(sent),
			expectAll("SET {b}y 1"), // so that what came with it has come
			replyAll("+OK", "-OOM command not allowed when used memory > 'maxmemory'.", "+QUEUED", "-EXECABORT Transaction discarded because of previous errors.", "+OK"),
			expectAll("MULTI", "INCR {a}x", "SET {a}x 7", "RPUSH {a}l 1"), setFence("a"),
			replyAll("+OK", "+QUEUED", "+QUEUED", "+QUEUED", "+QUEUED", "*4\r\n:1\r\n+OK\r\n:1\r\n+OK"),
		),
		discovery(), fencesAt(0, true),
	)
	r := exactPeerRig(t, p, true)
	r.do("INCR {a}x")
	reached(t, p, sent)
	r.do("SET {a}x 7", "RPUSH {a}l 1", "SET {b}y 1")
	p.Wait()
	r.drained()
}

package writer

import (
	"encoding/binary"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/rdb"
)

// payloadOf is what RESTORE takes: a type and its bytes, with a footer.
func payloadOf(version uint16, body string) string {
	return string(rdb.AppendFooter([]byte(body), version, rdb.CRC64(0, []byte(body))))
}

// unchecked is a payload whose checksum the server has left out.
func unchecked(payload string) string { return payload[:len(payload)-8] + strings.Repeat("\x00", 8) }

const (
	plainString = "\x00\x01a"
	setListpack = "\x14\x0a\x0a\x00\x00\x00\x01\x00\x81a\x02\xff"      // a
	valkeyHash  = "\x16\x01\x01f\x01v\x00\x10\xa5\xd4\xe8\x00\x00\x00" // f v, with a deadline
)

func TestRewritePayload(t *testing.T) {
	tests := []struct {
		name, target, payload string
		want                  string // the payload, "" if it stays as it is
		drop                  string // or what else becomes of the command
	}{
		{"known", "redis 8.0", payloadOf(12, plainString), "", ""},
		{"of a newer release", "redis 7.0", payloadOf(12, plainString), payloadOf(6, plainString), ""},
		{"of Valkey", "redis 8.0", payloadOf(80, plainString), payloadOf(6, plainString), ""},
		{"of Redis to a strict Valkey", "valkey 9.1", payloadOf(12, plainString), payloadOf(6, plainString), ""},
		{"to Redict", "redict 7.3", payloadOf(12, setListpack), payloadOf(11, setListpack), ""},
		{"without a checksum", "redis 8.0", unchecked(payloadOf(12, plainString)), payloadOf(6, plainString), ""},
		{"of an unknown type", "redis 7.0", payloadOf(11, setListpack), payloadOf(6, "\x02\x81\x00\x00\x00\x00\x00\x00\x00\x01\x01a"), ""},
		{"with deadlines of fields", "redis 7.0", payloadOf(80, valkeyHash), payloadOf(6, "\x04\x81\x00\x00\x00\x00\x00\x00\x00\x01\x01f\x01v"), ""},
		{"of a type without a like", "redis 7.0", payloadOf(14, "\x1c\x00"), "", "DEL k"},
		{"nonsense", "redis 7.0", "short", "", ""},
		{"broken", "redis 7.0", payloadOf(12, "\x14\x05"), "", ""},
		{"to whoever", "", payloadOf(99, plainString), "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := Config{Node: nodeOf(t, tt.target), Unsupported: UnsupportedDegrade}
			want := "RESTORE k 0 " + tt.payload + " REPLACE"
			switch {
			case tt.drop != "":
				want = tt.drop
			case tt.want != "":
				want = "RESTORE k 0 " + tt.want + " REPLACE"
			}
			command := []string{"RESTORE", "k", "0", tt.payload, "REPLACE"}
			if _, got, err := rewritten(t, cfg, command); got != want || err != nil {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
			_, got, err := rewrittenBig(t, cfg, command)
			if got != want || err != nil {
				t.Errorf("from the spool: %q, %v, want %q", got, err, want)
			}
			if tt.drop == "" && tt.name != "broken" {
				command[0] = "RESTORE-ASKING"
				if _, got, err := rewritten(t, cfg, command); got != want || err != nil {
					t.Errorf("RESTORE-ASKING: %q, %v, want %q", got, err, want)
				}
			}
		})
	}
}

// rewrittenBig is rewritten for a command that is read from the spool.
func rewrittenBig(t testing.TB, cfg Config, command []string) (*haul.Batch, string, error) {
	t.Helper()
	b := newRewriteBatch(t)
	from, off, size, spans := bigCommand(command...)
	b.big(from, off, size, spans, command[0])
	err := apply(cfg, b.b)
	return b.b, describe(b.b), err
}

// TestRewriteOfTransactionFromSpool: what becomes of a command of a transaction that is read from the spool does not move the position,
// from which reading would go on within the transaction.
func TestRewriteOfTransactionFromSpool(t *testing.T) {
	b := newRewriteBatch(t)
	b.r.offset = 500
	from, off, size, spans := bigCommand("SETEX", "k", "10", strings.Repeat("x", 100_000))
	b.big(from, off, size, spans, "SETEX")
	b.b.Entries[0].Resume, b.b.Entries[0].After = 480, 3
	if err := apply(Config{Node: nodeOf(t, "redis 6.0")}, b.b); err != nil || len(b.b.Entries) != 2 {
		t.Fatal(describe(b.b), err)
	}
	for i, e := range b.b.Entries {
		if e.Start != 500 || e.End != int64(599+i) || e.Resume != 480 || e.After != 3 {
			t.Errorf("entry %d is %+v", i, e)
		}
	}
}

// TestRewriteFromSpool: what is large stays in the spool, and is read with what was written anew around it.
func TestRewriteFromSpool(t *testing.T) {
	value := strings.Repeat("0123456789abcdef", 100_000)
	cfg := Config{Node: nodeOf(t, "redis 6.0"), Unsupported: UnsupportedDegrade}
	body := "\x00\x80" + string(binary.BigEndian.AppendUint32(nil, uint32(len(value)))) + value
	for _, tt := range []struct{ command, want []string }{
		{[]string{"XADD", "x", "MAXLEN", "=", "5", "LIMIT", "9", "1-1", "f", value}, []string{"XADD", "x", "MAXLEN", "=", "5", "1-1", "f", value}},
		{[]string{"SETEX", "k", "10", value}, []string{"SET", "k", value, "|", "PEXPIREAT", "k", "1700000010000"}},
		{[]string{"RESTORE", "k", "0", payloadOf(12, body)}, []string{"RESTORE", "k", "0", payloadOf(6, body)}},
	} {
		b, got, err := rewrittenBig(t, cfg, tt.command)
		if want := strings.Join(tt.want, " "); got != want || err != nil {
			t.Errorf("%s: %.100q, %v", tt.command[0], got, err)
		}
		if b.Entries[0].Big == nil || len(b.Buf) > 1000 {
			t.Errorf("%s: %d bytes are in the batch", tt.command[0], len(b.Buf))
		}
		for i, e := range b.Entries {
			last := i == len(b.Entries)-1
			if e.Start != 0 || last != (e.End == 100) || last != (e.Resume == 100) || !last && e.Resume != 0 {
				t.Errorf("%s: entry %d is %+v", tt.command[0], i, e)
			}
		}
		// the bytes are those of a command, wherever reading begins
		wire := make([]byte, b.Entries[0].Big.Len)
		for at := 0; at < len(wire); at += 33_333 {
			to := min(at+33_333, len(wire))
			if n, err := b.Entries[0].Big.Bytes.ReadAt(wire[at:to], b.Entries[0].Big.Off+int64(at)); err != nil || n != to-at {
				t.Fatalf("%d bytes at %d: %v", n, at, err)
			}
		}
		if s := string(wire); !strings.HasPrefix(s, "*") || !strings.HasSuffix(s, "\r\n") || strings.Count(s, "\r\n") < 5 {
			t.Errorf("%.100q", wire)
		}
	}
}

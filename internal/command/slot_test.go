package command

import (
	"strings"
	"testing"
)

func TestCRC16(t *testing.T) {
	if got := CRC16([]byte("123456789")); got != 0x31C3 {
		t.Errorf("CRC16 = %#x, want 0x31c3, the check value of CRC-16/XMODEM", got)
	}
	bytewise := func(b []byte) (crc uint16) {
		for _, c := range b {
			crc = crc<<8 ^ crcTables[0][byte(crc>>8)^c]
		}
		return crc
	}
	long := []byte(strings.Repeat("\x00\xffaz{}\x80", 9))
	for n := range len(long) {
		if got, want := CRC16(long[:n]), bytewise(long[:n]); got != want {
			t.Errorf("CRC16 of %d bytes: %#x, want %#x", n, got, want)
		}
	}
}

func TestSlot(t *testing.T) {
	tests := []struct {
		key, same string // same is what the slot is computed from
		want      int    // -1: only compared with that
	}{
		{"foo", "foo", 12182},
		{"", "", 0},
		{"{user1000}.following", "user1000", 3443},
		{"{user1000}.followers", "user1000", 3443},
		{"a{b}c{d}", "b", -1},
		{"foo{bar}{zap}", "bar", 5061},
		{"}{bar}", "bar", 5061},
		{"foo{{bar}}zap", "{bar", 4015},
		{"foo{}{bar}", "foo{}{bar}", 8363},
		{"{}", "{}", -1},
		{"foo{bar", "foo{bar", -1},
		{"foo}bar{", "foo}bar{", -1},
	}
	for _, tt := range tests {
		got := Slot([]byte(tt.key))
		if want := CRC16([]byte(tt.same)) % Slots; got != want {
			t.Errorf("Slot(%q) = %d, want %d, that of %q", tt.key, got, want, tt.same)
		}
		if tt.want >= 0 && int(got) != tt.want {
			t.Errorf("Slot(%q) = %d, want %d", tt.key, got, tt.want)
		}
	}
}

func TestSlotDoesNotAllocate(t *testing.T) {
	key := []byte("session:{8f14e45f}:fields")
	if allocs := testing.AllocsPerRun(100, func() { Slot(key) }); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func BenchmarkSlot(b *testing.B) {
	for _, key := range []string{"key:000012345678", "session:{8f14e45f}:fields", strings.Repeat("k", 128)} {
		b.Run(key[:4], func(b *testing.B) {
			k := []byte(key)
			b.ReportAllocs()
			for b.Loop() {
				Slot(k)
			}
		})
	}
}

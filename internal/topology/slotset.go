package topology

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// SlotSet is a set of slots. The zero value is empty. Its text is a list of ranges such as "0-5460,7000".
type SlotSet [SlotCount / 64]uint64

// Has tells whether slot is in the set.
func (s *SlotSet) Has(slot uint16) bool { return s[slot/64]>>(slot%64)&1 == 1 }

// Add puts slot into the set.
func (s *SlotSet) Add(slot uint16) { s[slot/64] |= 1 << (slot % 64) }

// Remove takes slot out of the set.
func (s *SlotSet) Remove(slot uint16) { s[slot/64] &^= 1 << (slot % 64) }

// Len returns the number of slots in the set.
func (s *SlotSet) Len() int {
	n := 0
	for _, word := range s {
		n += bits.OnesCount64(word)
	}
	return n
}

// Each calls f for every slot of the set, in order.
func (s *SlotSet) Each(f func(slot uint16)) {
	for i, word := range s {
		for ; word != 0; word &= word - 1 {
			f(uint16(i*64 + bits.TrailingZeros64(word)))
		}
	}
}

// AddRanges puts ranges of slots into the set.
func (s *SlotSet) AddRanges(ranges []SlotRange) {
	for _, r := range ranges {
		for slot := int(r.From); slot <= int(r.To); slot++ {
			s.Add(uint16(slot))
		}
	}
}

// MarshalText implements encoding.TextMarshaler.
func (s *SlotSet) MarshalText() ([]byte, error) {
	var text []byte
	for from := 0; from < SlotCount; from++ {
		if !s.Has(uint16(from)) {
			continue
		}
		to := from
		for to+1 < SlotCount && s.Has(uint16(to+1)) {
			to++
		}
		if len(text) > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendInt(text, int64(from), 10)
		if to > from {
			text = strconv.AppendInt(append(text, '-'), int64(to), 10)
		}
		from = to
	}
	return text, nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *SlotSet) UnmarshalText(text []byte) error {
	*s = SlotSet{}
	if len(text) == 0 {
		return nil
	}
	for part := range strings.SplitSeq(string(text), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		if err != nil || err2 != nil || from > to || to >= SlotCount {
			return fmt.Errorf("%q is no range of slots", part)
		}
		s.AddRanges([]SlotRange{{uint16(from), uint16(to)}})
	}
	return nil
}

func (s *SlotSet) String() string {
	text, _ := s.MarshalText()
	return string(text)
}

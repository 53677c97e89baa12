package topology

import "testing"

func TestSlotSetText(t *testing.T) {
	for _, text := range []string{"", "0", "16383", "0-16383", "0-5460,7000,16000-16383", "1,3,5"} {
		var s SlotSet
		if err := s.UnmarshalText([]byte(text)); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if got := s.String(); got != text {
			t.Errorf("%q became %q", text, got)
		}
		n := 0
		s.Each(func(slot uint16) {
			n++
			if !s.Has(slot) {
				t.Errorf("%q: slot %d is named and not there", text, slot)
			}
		})
		if n != s.Len() {
			t.Errorf("%q: %d slots named, %d counted", text, n, s.Len())
		}
	}
	for _, text := range []string{"-", "3-1", "16384", "a", "1,", "1-2-3"} {
		if err := new(SlotSet).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is no set and was taken for one", text)
		}
	}
}

func TestSlotSetRemove(t *testing.T) {
	var s SlotSet
	s.AddRanges([]SlotRange{{10, 12}, {64, 64}})
	s.Remove(11)
	if got := s.String(); got != "10,12,64" {
		t.Errorf("got %q", got)
	}
}

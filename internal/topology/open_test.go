package topology

import (
	"slices"
	"testing"
)

func TestOpenSlots(t *testing.T) {
	const nodes = `07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004 slave e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 0 1426238317239 4 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 127.0.0.1:30002@31002,host master - 0 1426238316232 2 connected 5461-10922 [1->-aa]
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:30001@31001 myself,master - 0 0 1 connected 0-5460 9000 [93-<-292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f] [77->-e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca]
`
	if got := OpenSlots(nodes); !slices.Equal(got, []uint16{93, 77}) {
		t.Errorf("got %v", got)
	}
	for _, text := range []string{"", "garbage", "a b myself d e f g h [x-<-y] [99999-<-y] ["} {
		if got := OpenSlots(text); len(got) > 0 {
			t.Errorf("%q: %v", text, got)
		}
	}
}

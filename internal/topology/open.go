package topology

import (
	"strconv"
	"strings"
)

// OpenSlots reads the reply to CLUSTER NODES and returns the slots that the node which told it is giving away or taking:
// only the line of the node itself names them (protocol.md 7).
func OpenSlots(nodes string) []uint16 {
	var open []uint16
	for line := range strings.Lines(nodes) {
		fields := strings.Fields(line)
		if len(fields) < 8 || !strings.Contains(fields[2], "myself") {
			continue
		}
		for _, f := range fields[8:] {
			text, ok := strings.CutPrefix(f, "[")
			if !ok {
				continue
			}
			digits, _, ok := strings.Cut(text, "-") // [93-<-id] or [77->-id]
			if slot, err := strconv.ParseUint(digits, 10, 16); ok && err == nil && slot < SlotCount {
				open = append(open, uint16(slot))
			}
		}
	}
	return open
}

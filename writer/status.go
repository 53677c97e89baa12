package writer

import (
	"maps"
	"time"

	"github.com/keyhaul/keyhaul/haul"
)

// Status implements haul.Writer.
func (d *dispatcher) Status() haul.WriterStatus {
	d.mu.Lock()
	s := haul.WriterStatus{
		Target: d.cfg.Dialer.Endpoint.String(), Mode: d.route.mode(), Ready: d.ready,
		Counts: maps.Clone(d.counts), Resends: d.resends,
	}
	lanes := d.lanes
	d.mu.Unlock()
	for _, l := range lanes {
		s.Lanes = append(s.Lanes, l.status())
	}
	s.Slots, s.FrozenSlots = d.frozen.status()
	return s
}

func (l *lane) status() haul.LaneStatus {
	l.mu.Lock()
	addr := l.addr
	l.mu.Unlock()
	s := haul.LaneStatus{
		Address: addr, State: l.state.Load().(string),
		Entries: l.entries.Load(), Bytes: l.bytes.Load(), Written: l.wrote.Load(),
		Pings: l.pings.Load(), Reconnects: l.reconnects.Load(), Redirects: l.redirects.Load(),
	}
	if at := l.replied.Load(); at != 0 {
		s.LastReply = time.Since(time.Unix(0, at)).Seconds()
	}
	return s
}

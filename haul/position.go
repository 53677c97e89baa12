package haul

import "fmt"

// Position is a place between two entries of a link's stream: the replication id and offset of the last byte before
// it, and the database that is selected there, which a partial resync does not say again.
type Position struct {
	ReplID string
	Offset int64
	DB     int32
}

func (p Position) String() string {
	return fmt.Sprintf("%s:%d db %d", p.ReplID, p.Offset, p.DB)
}

package haul

import "fmt"

// Position is a place between two entries of a link's stream: the replication id and offset of the last byte before
// it, and the database that is selected there, which a partial resync does not say again. The generation grows
// with each full sync of a haul: offsets of two generations cannot be compared.
type Position struct {
	Generation uint64 `json:"generation"`
	ReplID     string `json:"replication_id"`
	Offset     int64  `json:"offset"`
	DB         int32  `json:"db"`
}

func (p Position) String() string {
	return fmt.Sprintf("%s:%d db %d", p.ReplID, p.Offset, p.DB)
}

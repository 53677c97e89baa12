// Package inventory says what a snapshot holds: how much of what, which keys and prefixes are big, what expires when.
package inventory

import (
	"context"
	"io"
	"time"
)

// Options say what a report is to have.
type Options struct {
	Top       int    // how many keys and prefixes are listed
	Separator string // of the parts of a key's name
	For       *Check // the release that is to take the data; nil for none
	// Now is what deadlines are compared with where the snapshot does not say when it was made.
	Now time.Time
}

// Report is what a snapshot holds. Bytes are those in the file, of names, types and values. Memory is an estimate of what
// a server needs for it.
type Report struct {
	File     string `json:"file"`
	Format   string `json:"format"` // REDIS0011, VALKEY080
	Complete bool   `json:"complete"`
	Error    string `json:"error,omitempty"`
	Read     int64  `json:"bytes_read"` // of the snapshot, when it is unpacked

	Totals
	Made      *time.Time  `json:"made,omitempty"`
	Aux       []Aux       `json:"aux"`
	Functions []Function  `json:"functions"`
	Databases []Database  `json:"databases"`
	Modules   []Named     `json:"modules"`
	Biggest   []Key       `json:"biggest"`
	Prefixes  []Prefix    `json:"prefixes"`
	Expiry    []Named     `json:"expiry"`
	Idle      []Named     `json:"idle"`      // empty if the snapshot has none
	Frequency []Named     `json:"frequency"` // empty if the snapshot has none
	For       *Compatible `json:"for,omitempty"`

	tree *tree
}

// Totals sum up some keys.
type Totals struct {
	Keys     int64 `json:"keys"`
	Expires  int64 `json:"keys_with_ttl"`
	Bytes    int64 `json:"bytes"`
	Elements int64 `json:"elements"`
	Memory   int64 `json:"memory"`
}

func (t *Totals) add(o Totals) {
	t.Keys += o.Keys
	t.Expires += o.Expires
	t.Bytes += o.Bytes
	t.Elements += o.Elements
	t.Memory += o.Memory
}

// Aux is something that the server says of itself in a snapshot.
type Aux struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Function is a library of functions.
type Function struct {
	Name   string `json:"name"`
	Engine string `json:"engine"`
	Bytes  int64  `json:"bytes"`
}

// Database is one database of the snapshot.
type Database struct {
	DB int `json:"db"`
	Totals
	Types []Named `json:"types"`
}

// Named is some keys with what they have in common.
type Named struct {
	Name string `json:"name"`
	Totals
}

// Key is one key.
type Key struct {
	DB       int    `json:"db"`
	Name     string `json:"key"` // in the form of package jsontext, and cut after a kilobyte
	Type     string `json:"type"`
	Bytes    int64  `json:"bytes"`
	Elements int64  `json:"elements"`
	Memory   int64  `json:"memory"`
	ExpireAt int64  `json:"expire_at_ms,omitempty"` // unix milliseconds
}

// Prefix is the keys of a database whose names begin alike.
type Prefix struct {
	DB   int    `json:"db"`
	Name string `json:"prefix"` // in the form of package jsontext
	Totals
	// Folded counts the keys of those longer prefixes under this one that are not told apart.
	Folded int64 `json:"folded_keys,omitempty"`
}

// Read reads a snapshot to its end. If that fails the report has what was read so far.
func Read(ctx context.Context, name string, r io.Reader, opts Options) (*Report, error) {
	s := newScan(opts)
	err := s.run(ctx, r)
	rep := s.report(name)
	if rep.Complete = err == nil; err != nil {
		rep.Error = err.Error()
	}
	return rep, err
}

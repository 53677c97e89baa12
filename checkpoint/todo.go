package checkpoint

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyhaul/keyhaul/haul"
)

var errTodo = errors.New("not written yet")

type Node struct {
	Addr, RunID string
	Mark        Fence
	Marked      bool
	Slots       []uint16
}
type State struct {
	Record    Record
	Found     bool
	Tombstone bool
	Nodes     []Node
	Base      haul.Position
	Sub       int64
	Highest   int64
	Applied   []int64
	Refusals  []Refusal
	Lost      error
	Others    []string
}

func (s *Store) Keys() Keys                                { return Keys{s.cfg.Name} }
func (s *Store) Load(ctx context.Context) (*State, error)  { return nil, errTodo }
func (s *Store) Record() Record                            { return Record{} }
func (s *Store) Save(ctx context.Context, r Record) error  { return errTodo }
func (s *Store) Spread(ctx context.Context, f Fence) error { return errTodo }
func (s *Store) Applied(ctx context.Context, addr string, slots []uint16, into []int64) error {
	return errTodo
}
func (s *Store) Mark(ctx context.Context, f Fence) error       { return errTodo }
func (s *Store) Flush(ctx context.Context, lease string) error { return errTodo }
func (s *Store) FlushNodes(ctx context.Context, db int32, all bool, lease string, f Fence) error {
	return errTodo
}
func (s *Store) Note(ctx context.Context, r Refusal) error { return errTodo }
func (s *Store) Forget(ctx context.Context) error          { return errTodo }
func (s *Store) Standing(lease string) [][]string          { return nil }
func (s *Store) Evict(ctx context.Context, addr string, match func(id int64, name string) bool) (int, error) {
	return 0, errTodo
}
func (s *Store) Cleanup(ctx context.Context) (int64, error) { return 0, errTodo }
func (s *Store) Prune(ctx context.Context, keep *KeySet, tick func(seen, removed int64)) (int64, error) {
	return 0, errTodo
}
func (s *Store) Finish(ctx context.Context, tick func(seen, changed int64)) error { return errTodo }
func (s *Store) ImportMode(ctx context.Context, on bool) (bool, error)            { return false, errTodo }
func (s *Store) Close()                                                           {}

type KeySet struct{}

func NewKeySet(dir string) *KeySet                       { return &KeySet{} }
func (k *KeySet) Add(db int32, key []byte) error         { return errTodo }
func (k *KeySet) Seal() error                            { return errTodo }
func (k *KeySet) Has(db int32, key []byte) (bool, error) { return false, errTodo }
func (k *KeySet) Close() error                           { return nil }

type LeaseConfig struct {
	Store          *Store
	Worker         string
	Every, Silence time.Duration
	Log            zerolog.Logger
}
type Lease struct{}

func NewLease(cfg LeaseConfig) *Lease { return &Lease{} }
func (l *Lease) Acquire(ctx context.Context, wait bool, held func(worker string)) error {
	return errTodo
}
func (l *Lease) Run(ctx context.Context) error     { return errTodo }
func (l *Lease) Valid() bool                       { return false }
func (l *Lease) Wait(ctx context.Context) error    { return errTodo }
func (l *Lease) Check(ctx context.Context) error   { return errTodo }
func (l *Lease) Text() string                      { return "" }
func (l *Lease) Release(ctx context.Context) error { return errTodo }

var (
	ErrTaken = errors.New("the lease was taken over")
	ErrGone  = errors.New("the lease has vanished")
)

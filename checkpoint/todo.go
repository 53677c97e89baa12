package checkpoint

import (
	"context"
	"errors"
)

var errTodo = errors.New("not written yet")

func (s *Store) Prune(ctx context.Context, keep *KeySet, tick func(seen, removed int64)) (int64, error) {
	return 0, errTodo
}
func (s *Store) Finish(ctx context.Context, tick func(seen, changed int64)) error { return errTodo }
func (s *Store) ImportMode(ctx context.Context, on bool) (bool, error)            { return false, errTodo }

type KeySet struct{}

func NewKeySet(dir string) *KeySet                       { return &KeySet{} }
func (k *KeySet) Add(db int32, key []byte) error         { return errTodo }
func (k *KeySet) Seal() error                            { return errTodo }
func (k *KeySet) Has(db int32, key []byte) (bool, error) { return false, errTodo }
func (k *KeySet) Close() error                           { return nil }

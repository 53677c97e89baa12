package reader

import (
	"context"
	"errors"
	"strconv"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/resp"
)

// Values is ReadKeys for a target that gets the values when the stream has come to where they are of, which is the
// position that is returned. Only its replication id and offset are set.
func (k *KeyReader) Values(ctx context.Context, from int64, keys []haul.KeyName) ([]haul.Value, haul.Position, error) {
	if k.p.superseded.Load() {
		return nil, haul.Position{}, haul.ErrSuperseded
	}
	values, at, err := k.values(ctx, from, keys)
	if err != nil && !errors.As(err, new(*resp.Error)) {
		k.Close()
	}
	return values, at, err
}

func (k *KeyReader) values(ctx context.Context, from int64, keys []haul.KeyName) ([]haul.Value, haul.Position, error) {
	values, node, err := k.readNode(ctx, keys)
	if err != nil {
		return nil, haul.Position{}, err
	}
	k.p.mu.Lock()
	defer k.p.mu.Unlock()
	return values, haul.Position{ReplID: node.ReplID, Offset: node.MasterReplOffset}, k.p.follows(node, from)
}

// Sizes returns about how many bytes of memory each of some keys takes on the source, 0 for one that it lacks or does not
// tell of. Errors are those of ReadKeys.
func (k *KeyReader) Sizes(ctx context.Context, keys []haul.KeyName) ([]int64, error) {
	sizes, err := k.sizes(ctx, keys)
	if err != nil && !errors.As(err, new(*resp.Error)) {
		k.Close()
	}
	return sizes, err
}

func (k *KeyReader) sizes(ctx context.Context, keys []haul.KeyName) ([]int64, error) {
	if err := k.open(ctx); err != nil {
		return nil, notYetRead(err)
	}
	var calls [][]string
	of, db := make([]int, 0, 2*len(keys)), int32(-1) // which key a call is about, or -1
	for i, key := range keys {
		if key.DB != db {
			db = key.DB
			calls, of = append(calls, []string{"SELECT", strconv.Itoa(int(db))}), append(of, -1)
		}
		calls, of = append(calls, []string{"MEMORY", "USAGE", key.Name}), append(of, i)
	}
	replies, err := k.send(ctx, calls)
	if err != nil {
		return nil, notYetRead(err)
	}
	sizes := make([]int64, len(keys))
	for n, r := range replies {
		if e := (*resp.Error)(nil); errors.As(r.Err(), &e) && e.Code != "MOVED" {
			return nil, notYetRead(e)
		}
		if i := of[n]; i >= 0 {
			sizes[i] = r.Int
		}
	}
	return sizes, nil
}

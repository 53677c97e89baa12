package reader

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
	"github.com/keyhaul/keyhaul/internal/resp"
)

func TestReadForRepair(t *testing.T) {
	s, other := rt.Start(t, rt.Options{}), rt.Start(t, rt.Options{})
	other.ReplicaOf(s) // so that there is a history
	s.MustDo("SET", "small", "1")
	s.MustDo("SELECT", 2)
	s.MustDo("SET", "large", strings.Repeat("a long text, ", 1<<18), "PX", 100_000_000)
	s.MustDo("SELECT", 0)
	p, k := newLookup(t, s)
	ctx, least := context.Background(), s.Offset()
	small, large, none := haul.KeyName{Name: "small"}, haul.KeyName{DB: 2, Name: "large"}, haul.KeyName{DB: 2, Name: "none"}

	sizes, err := k.Sizes(ctx, []haul.KeyName{small, large, none})
	if err != nil || sizes[0] <= 0 || sizes[0] > 1000 || sizes[1] < 3<<20 || sizes[2] != 0 {
		t.Errorf("sizes %d: %v", sizes, err)
	}
	values, at, err := k.Values(ctx, least, []haul.KeyName{small, none})
	if err != nil || at.Offset < least || at.ReplID != p.lineage.ReplID || values[0].Payload == "" || values[1].Payload != "" {
		t.Errorf("%+v at %v: %v", values, at, err)
	}
	var file bytes.Buffer
	size, v, at, err := k.Large(ctx, least, large, &file)
	if err != nil || size != int64(file.Len()) || size == 0 || v.ExpireAt == 0 || at.Offset < least || at.ReplID != p.lineage.ReplID {
		t.Fatalf("%d bytes, %+v at %v: %v", size, v, at, err)
	}
	s.MustDo("RESTORE", "copy", 0, file.String())
	if n := s.MustDo("STRLEN", "copy").Int; n != 13<<18 {
		t.Errorf("restored %d bytes", n)
	}
	file.Reset()
	if size, v, _, err := k.Large(ctx, least, none, &file); err != nil || size != 0 || file.Len() != 0 || v.ExpireAt != 0 {
		t.Errorf("a key that is missing: %d bytes, %+v: %v", size, v, err)
	}
	if p.highest != 0 {
		t.Errorf("the link is told of %d, which the target does not get ahead of the stream", p.highest)
	}
	if _, _, err := k.Values(ctx, s.Offset()+1_000_000, []haul.KeyName{small}); !errors.Is(err, errNotNow) {
		t.Errorf("a source that is behind: %v", err)
	}
	if _, _, _, err := k.Large(ctx, s.Offset()+1_000_000, large, &file); !errors.Is(err, errNotNow) {
		t.Errorf("a source that is behind: %v", err)
	}
	s.MustDo("ACL", "SETUSER", "default", "-dump", "-memory")
	if _, err := k.Sizes(ctx, []haul.KeyName{small}); !errors.As(err, new(*resp.Error)) {
		t.Errorf("without a permission: %v", err)
	}
	if _, _, _, err := k.Large(ctx, least, large, &file); !errors.As(err, new(*resp.Error)) {
		t.Errorf("without a permission: %v", err)
	}
	if _, _, err := k.Values(ctx, least, []haul.KeyName{small}); !errors.As(err, new(*resp.Error)) {
		t.Errorf("without a permission: %v", err)
	}
}

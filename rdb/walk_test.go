package rdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/keyhaul/keyhaul/internal/feed"
)

// pieces is a source that yields at most size bytes at once, and is ready now and then.
type pieces struct {
	data  []byte
	size  int
	reads int
}

func (s *pieces) Ready() bool { return s.reads%3 != 0 }

func (s *pieces) Read(_ context.Context, p []byte) (int, error) {
	s.reads++
	if len(s.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.size)], s.data)
	s.data = s.data[n:]
	return n, nil
}

// oneBuffer is a keeper that forgets complete entries. It notes the largest buffer that was asked for.
type oneBuffer struct {
	buf     []byte
	largest int
}

func (k *oneBuffer) Roll(_ context.Context, tail []byte, want int) ([]byte, error) {
	if want > cap(k.buf) {
		k.largest = max(k.largest, want)
		k.buf = append(make([]byte, 0, max(want, 2*cap(k.buf), 64<<10)), tail...)
		return k.buf, nil
	}
	k.buf = k.buf[:copy(k.buf[:cap(k.buf)], tail)]
	return k.buf, nil
}

func (k *oneBuffer) Idle(ctx context.Context, tail []byte) ([]byte, error) {
	return k.Roll(ctx, tail, len(tail))
}

func decoderOf(src feed.Source, keep feed.Keeper, limit int) *Decoder {
	return NewDecoder(func(sum func([]byte)) *feed.Window {
		return feed.New(context.Background(), src, keep, 0, limit, sum)
	})
}

// found is a record with the bytes that its spans name.
type found struct {
	Record
	name, prefix, value []byte
	large               bool
}

// code returns the code of a function library.
func (f *found) code() string {
	code, err := AppendString(nil, f.value)
	if err != nil {
		return "?" + err.Error()
	}
	return string(code)
}

// walk walks the whole of a snapshot. The bytes of a record that was kept are taken from the window, those of a large
// one from data, as its user would do.
func walk(data []byte, size, limit int) ([]found, *Decoder, error) {
	d := decoderOf(&pieces{data: data, size: size}, &oneBuffer{}, limit)
	if err := d.Header(); err != nil {
		return nil, d, err
	}
	var all []found
	for {
		start := d.w.Offset()
		f := found{}
		if err := d.Next(&f.Record); err != nil {
			return all, d, err
		}
		if f.Kind == KindEnd {
			return all, d, nil
		}
		if err := f.take(d, data, start); err != nil {
			return all, d, err
		}
		all = append(all, f)
	}
}

var errWindow = errors.New("window and spans disagree")

func (f *found) take(d *Decoder, data []byte, start int64) error {
	kept := d.w.Kept()
	clone := func(s Span) []byte { return append([]byte{}, kept[s.Off:s.Off+s.Len]...) }
	if f.Kind == KindFunction {
		f.value = clone(f.Value)
		return nil
	}
	var err error
	if f.name, err = AppendString([]byte{}, clone(f.Name)); err != nil {
		return err
	}
	f.prefix = clone(f.Prefix)
	f.large = d.w.Large()
	if f.large {
		at := start + f.Value.Off
		f.value = data[at : at+f.Value.Len]
	} else {
		f.value = clone(f.Value)
	}
	if end := d.w.Offset(); !bytes.Equal(f.value, data[end-f.Value.Len:end]) {
		return fmt.Errorf("%w: value of %q", errWindow, f.name)
	}
	return nil
}

// payload is what RESTORE takes.
func (f *found) payload(valkey bool) []byte {
	p := append(append([]byte{}, f.prefix...), f.Type)
	p = append(p, f.value...)
	return AppendFooter(p, FooterVersion(f.Type, valkey, len(f.prefix) > 0), CRC64(0, p))
}

// positioned checks that err is an error of the snapshot with a sensible place.
func positioned(t *testing.T, err error, size int) {
	t.Helper()
	var at *PositionError
	if !errors.As(err, &at) || at.Offset < 0 || at.Offset > int64(size) || at.Error() == "" {
		t.Fatalf("no PositionError within %d bytes: %v", size, err)
	}
}

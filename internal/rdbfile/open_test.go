package rdbfile

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func packed(t *testing.T, content []byte, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := PackingNamed(name).Pack(&b)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOpenKnowsFilesByContent(t *testing.T) {
	content := []byte("REDIS0011" + strings.Repeat("some more of it ", 100_000))
	for _, tt := range []struct {
		name  string
		bytes []byte
		want  []byte
		pack  Packing
	}{
		{"plain", packed(t, content, "x.rdb"), content, PackNone},
		{"gzip", packed(t, content, "x.gz"), content, PackGzip},
		{"zstd", packed(t, content, "x.zst"), content, PackZstd},
		{"short", []byte("\x28\xb5"), []byte("\x28\xb5"), PackNone},
		{"empty", nil, nil, PackNone},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			if err := os.WriteFile(path, tt.bytes, 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close() //nolint:errcheck // only read
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, tt.want) {
				t.Errorf("%d bytes, %v; want %d", len(got), err, len(tt.want))
			}
			if PackingOf(tt.bytes) != tt.pack || f.Size != int64(len(tt.bytes)) || f.Consumed() != f.Size {
				t.Errorf("packed as %q, size %d, consumed %d", PackingOf(tt.bytes), f.Size, f.Consumed())
			}
		})
	}
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	zipped := packed(t, bytes.Repeat([]byte("content"), 1000), "x.gz")
	cut := filepath.Join(dir, "cut.gz")
	if err := os.WriteFile(cut, zipped[:len(zipped)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(dir, "bad.gz")
	if err := os.WriteFile(bad, []byte("\x1f\x8bno gzip at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "none"), cut, bad} {
		f, err := Open(path)
		if err == nil {
			_, err = io.Copy(io.Discard, f)
			_ = f.Close()
		}
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

package rdbfile

import (
	"io"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Packing is how a file is compressed.
type Packing string

// Kinds of compression.
const (
	PackNone Packing = ""
	PackGzip Packing = "gzip"
	PackZstd Packing = "zstd"
)

// Magic numbers of compressed files (RFC 1952, RFC 8878).
const (
	gzipMagic = "\x1f\x8b"
	zstdMagic = "\x28\xb5\x2f\xfd"
)

// PackingOf tells how a file is compressed from its first bytes.
func PackingOf(head []byte) Packing {
	switch {
	case strings.HasPrefix(string(head[:min(len(head), len(gzipMagic))]), gzipMagic):
		return PackGzip
	case strings.HasPrefix(string(head[:min(len(head), len(zstdMagic))]), zstdMagic):
		return PackZstd
	}
	return PackNone
}

// PackingNamed tells how a file is to be compressed from its name.
func PackingNamed(path string) Packing {
	switch {
	case strings.HasSuffix(path, ".gz"):
		return PackGzip
	case strings.HasSuffix(path, ".zst"):
		return PackZstd
	}
	return PackNone
}

// maxWindow is the memory that decompression may take: what zstd --ultra -22 asks for.
const maxWindow = 128 << 20

// Unpack returns what r holds.
func (p Packing) Unpack(r io.Reader) (io.ReadCloser, error) {
	switch p {
	case PackGzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return z, nil
	case PackZstd:
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(r), nil
}

// Pack compresses what is written, into w. The caller closes it.
func (p Packing) Pack(w io.Writer) (io.WriteCloser, error) {
	switch p {
	case PackGzip:
		return gzip.NewWriter(w), nil
	case PackZstd:
		return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
	}
	return nopCloser{w}, nil
}

type nopCloser struct{ io.Writer }

// Close implements io.Closer.
func (nopCloser) Close() error { return nil }

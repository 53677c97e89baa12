package writer

import (
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/keyhaul/keyhaul/internal/rdbfile"
)

// FileFormat is how a target that is a file is written.
type FileFormat string

// Formats of files.
const (
	FileRDB   FileFormat = "rdb"   // a snapshot
	FileRESP  FileFormat = "resp"  // commands, as redis-cli --pipe takes them
	FileJSONL FileFormat = "jsonl" // a line of JSON for each key
)

// FileTarget names a file that is written instead of a server.
type FileTarget struct {
	Format FileFormat
	Path   string
}

// NamesFile tells whether an address is one of a file to be written, or of a file that can only be read.
func NamesFile(address string) bool {
	scheme, _, found := strings.Cut(strings.TrimSpace(address), "://")
	return found && slices.Contains([]string{string(FileRDB), string(FileRESP), string(FileJSONL), "aof"}, strings.ToLower(scheme))
}

// ParseFileTarget reads rdb:///path/dump.rdb, resp:///path/commands.resp.gz or jsonl:///path/keys.jsonl.zst. The path is
// percent-decoded.
func ParseFileTarget(address string) (FileTarget, error) {
	scheme, rest, _ := strings.Cut(strings.TrimSpace(address), "://")
	f := FileTarget{Format: FileFormat(strings.ToLower(scheme))}
	path, err := url.PathUnescape(rest)
	switch {
	case f.Format == "aof":
		return f, errors.New("an append-only file cannot be written: use resp:// for commands, or rdb:// for a snapshot")
	case rdbfile.HoldsLogin(rest):
		return f, rdbfile.ErrLogin
	case err != nil:
		return f, errors.New("the path holds a % that starts no percent-encoding: write it as %25")
	case path == "" || path == "-" || strings.HasSuffix(path, "/") || strings.ContainsRune(path, 0):
		return f, errors.New("the address names no file: write rdb:///path/dump.rdb, resp:///path/commands.resp or jsonl:///path/keys.jsonl")
	}
	f.Path = filepath.Clean(path)
	return f, nil
}

// String returns scheme and path.
func (f FileTarget) String() string { return string(f.Format) + "://" + f.Path }

// Stream tells whether the file can take commands of a stream.
func (f FileTarget) Stream() bool { return f.Format == FileRESP }

package reader

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keyhaul/keyhaul/aof"
	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/rdbfile"
)

// Schemes of files that are read instead of a server.
const (
	schemeRDB = "rdb://"
	schemeAOF = "aof://"
)

// Standard input: its path and its name.
const (
	Stdin     = "-"
	stdinName = "standard input" // for people
)

// Files names snapshots, or one append-only file with all its parts, to read instead of a server.
type Files struct {
	AOF   bool
	Paths []string // of snapshots patterns as well
	Stop  Stop     // of an append-only file
}

// Stop says how far an append-only file is read. The zero value is to its end.
type Stop struct {
	Offset int64     // behind the last byte, in the file or in all its parts together; 0: any
	Time   time.Time // of the last command; zero: any
}

// NamesFiles tells whether an address is one of files.
func NamesFiles(address string) bool {
	address = strings.ToLower(strings.TrimSpace(address))
	return strings.HasPrefix(address, schemeRDB) || strings.HasPrefix(address, schemeAOF)
}

// ParseFiles reads
//
//	rdb:///path/dump.rdb    rdb:///a/*.rdb,/b/dump.rdb.gz    rdb://-    aof:///path/appendonlydir    aof:///path/appendonly.aof
//
// Paths are percent-decoded, so that %2C stands for a comma.
func ParseFiles(address string) (*Files, error) {
	address = strings.TrimSpace(address)
	f := &Files{AOF: strings.EqualFold(address[:len(schemeAOF)], schemeAOF)}
	if rdbfile.HoldsLogin(address[len(schemeAOF):]) {
		return f, rdbfile.ErrLogin
	}
	for part := range strings.SplitSeq(address[len(schemeAOF):], ",") {
		path, err := url.PathUnescape(strings.TrimSpace(part))
		switch {
		case err != nil:
			return f, errors.New("a path holds a % that starts no percent-encoding: write it as %25")
		case path == "" || strings.ContainsRune(path, 0):
			return f, errors.New("the address names no file: write rdb:///path/dump.rdb, rdb://- for standard input, or aof:///path/appendonlydir")
		}
		f.Paths = append(f.Paths, path)
	}
	switch {
	case f.AOF && len(f.Paths) > 1:
		return f, errors.New("it names several append-only files: name one file, one manifest or one folder")
	case f.AOF && f.Paths[0] == Stdin:
		return f, errors.New("an append-only file cannot be read from standard input: keyhaul must be able to go on in the middle of it")
	}
	return f, nil
}

// String returns scheme and paths.
func (f *Files) String() string {
	scheme := schemeRDB
	if f.AOF {
		scheme = schemeAOF
	}
	return scheme + strings.Join(f.Paths, ",")
}

// ParseStop reads where to stop: a unix time in seconds, a time as RFC 3339 has it, or offset:BYTES.
func ParseStop(text string) (Stop, error) {
	if text == "" {
		return Stop{}, nil
	}
	if digits, ok := strings.CutPrefix(text, "offset:"); ok {
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || n < 1 {
			return Stop{}, errors.New("there is no number of bytes behind the colon of offset")
		}
		return Stop{Offset: n}, nil
	}
	if seconds, err := strconv.ParseInt(text, 10, 64); err == nil && seconds > 0 {
		return Stop{Time: time.Unix(seconds, 0)}, nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return Stop{}, errors.New("it is neither a unix time in seconds, nor a time such as 2026-01-31T15:04:05Z, nor offset:BYTES")
	}
	return Stop{Time: at}, nil
}

// unusable refuses a file before anything was written.
func unusable(path string, err error) error {
	if pathError := (*fs.PathError)(nil); errors.As(err, &pathError) {
		err = pathError.Err
	}
	remedy := "look at the path of --source, and whether keyhaul's user may read it"
	if hint := (*hinted)(nil); errors.As(err, &hint) {
		remedy = hint.remedy
	}
	return haul.Errorf(haul.ExitRefused, remedy, "%w", &fileError{path, err})
}

// hinted is an error that comes with what to do.
type hinted struct {
	error
	remedy string
}

func (h *hinted) Unwrap() error { return h.error }

func hint(remedy, format string, args ...any) error {
	return &hinted{fmt.Errorf(format, args...), remedy}
}

// expand returns the files that the paths of snapshots name.
func (f *Files) expand() ([]string, error) {
	var all []string
	for _, path := range f.Paths {
		if _, err := os.Lstat(path); err == nil || path == Stdin || !strings.ContainsAny(path, "*?[") {
			all = append(all, path)
			continue
		}
		found, err := filepath.Glob(path)
		if err != nil {
			return nil, unusable(path, err)
		}
		if len(found) == 0 {
			return nil, unusable(path, errors.New("no file has such a name"))
		}
		all = append(all, found...)
	}
	return all, nil
}

// manifest returns the files of an append-only file: the base, empty if there is none, and those with what was written
// since.
func (f *Files) manifest() (base string, incrs []string, err error) {
	path := f.Paths[0]
	info, err := os.Stat(path)
	if err != nil {
		return "", nil, unusable(path, err)
	}
	if info.IsDir() {
		found, err := filepath.Glob(filepath.Join(escapeGlob(path), "*.manifest"))
		if err != nil || len(found) != 1 {
			return "", nil, unusable(path, hint("name the folder of the append-only file (appenddirname), its manifest, or the one file that servers before 7.0 have",
				"the folder holds %d manifests", len(found)))
		}
		path = found[0]
	} else if !strings.HasSuffix(path, ".manifest") {
		return "", []string{path}, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", nil, unusable(path, err)
	}
	m, err := aof.ParseManifest(b)
	if err != nil {
		return "", nil, unusable(path, err)
	}
	beside := func(name string) string { return filepath.Join(filepath.Dir(path), name) }
	if m.Base != "" {
		base = beside(m.Base)
	}
	for _, name := range m.Incrs {
		incrs = append(incrs, beside(name))
	}
	return base, incrs, nil
}

// escapeGlob takes their meaning from the letters of a path that patterns have.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

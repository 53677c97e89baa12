package aof

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// Manifest names the files of an append-only file that has several parts (Redis 7.0 and later; redis src/aof.c,
// aofLoadManifestFromFile).
type Manifest struct {
	Base  string   // empty if there is none
	Incrs []string // in order
}

// ParseManifest reads a manifest. Its file names have no folder: they are beside it.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	last, n := int64(0), 0
	for scan := bufio.NewScanner(bytes.NewReader(b)); scan.Scan(); {
		n++
		line := scan.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		f, err := manifestLine(line)
		switch {
		case err != nil:
		case f.kind == "b" && m.Base != "":
			err = errors.New("there is a second base file")
		case f.kind == "b":
			m.Base = f.name
		case f.kind == "i" && f.seq <= last:
			err = errors.New("the sequence numbers do not grow")
		case f.kind == "i":
			last = f.seq
			m.Incrs = append(m.Incrs, f.name)
		case f.kind != "h": // of history, which a rewrite has replaced
			err = errors.New("unknown type of file")
		}
		if err != nil {
			return Manifest{}, fmt.Errorf("line %d of the manifest: %w", n, err)
		}
	}
	if m.Base == "" && len(m.Incrs) == 0 {
		return Manifest{}, errors.New("the manifest names no file")
	}
	return m, nil
}

// manifestFile is one line of a manifest.
type manifestFile struct {
	name, kind string
	seq        int64
}

// manifestLine reads pairs of a word and its value; later servers add pairs.
func manifestLine(line string) (f manifestFile, err error) {
	words, err := manifestWords(line)
	if err != nil {
		return f, err
	}
	if len(words) < 6 || len(words)%2 != 0 {
		return f, errors.New("it is no list of pairs")
	}
	for i := 0; i < len(words); i += 2 {
		switch strings.ToLower(words[i]) {
		case "file":
			f.name = words[i+1]
		case "seq":
			f.seq, err = strconv.ParseInt(words[i+1], 10, 64)
		case "type":
			f.kind = words[i+1]
		}
	}
	switch {
	case err != nil || f.seq < 1:
		return f, errors.New("it has no sequence number")
	case f.name == "" || f.name == "." || f.name == ".." || strings.ContainsRune(f.name, filepath.Separator):
		return f, errors.New("it names no file beside the manifest")
	}
	return f, nil
}

// manifestWords splits a line at spaces. A name with spaces stands in quotes.
func manifestWords(line string) (words []string, err error) {
	for line = strings.TrimLeft(line, " \t\r"); line != ""; line = strings.TrimLeft(line, " \t\r") {
		end := strings.IndexAny(line, " \t\r")
		if line[0] == '"' {
			quoted, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, errors.New("a quote is not closed")
			}
			word, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, errors.New("a quoted name cannot be read")
			}
			words, line = append(words, word), line[len(quoted):]
			continue
		}
		if end < 0 {
			end = len(line)
		}
		words, line = append(words, line[:end]), line[end:]
	}
	return words, nil
}

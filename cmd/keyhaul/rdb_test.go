package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
)

// reported runs keyhaul rdb.
func reported(t *testing.T, stdin []byte, args ...string) (code haul.Exit, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, append([]string{"rdb"}, args...)...)
	var out, text bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &text
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = haul.Exit(exit.ExitCode())
	} else if err != nil {
		t.Fatal(err)
	}
	return code, out.String(), text.String()
}

func TestRDB(t *testing.T) {
	const golden = "../../rdb/testdata/redis-8.0.rdb"
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(data); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	packed, cut := file("dump.gz", zipped.Bytes()), file("cut.rdb", data[:len(data)/2])
	for _, tt := range []struct {
		args   []string
		code   haul.Exit
		stdout string
		stderr string
	}{
		{[]string{golden}, haul.ExitDone, "REDIS0012", ""},
		{[]string{"-"}, haul.ExitDone, "standard input: REDIS0012", ""},
		{[]string{packed}, haul.ExitDone, "REDIS0012", ""},
		{[]string{golden, "--for", "valkey-9.1"}, haul.ExitDone, "can hold everything", ""},
		{[]string{golden, "--for", "redis-7.0"}, haul.ExitRefused, "hash field TTLs: ", "lacks"},
		{[]string{cut}, haul.ExitFailed, "INCOMPLETE", "snapshot byte "},
		{[]string{cut, "--for", "redis-7.0"}, haul.ExitFailed, "INCOMPLETE", "snapshot byte "},
		{[]string{file("no.rdb", []byte("nothing of the kind"))}, haul.ExitFailed, "INCOMPLETE", "does not begin with REDIS or VALKEY"},
		{[]string{filepath.Join(dir, "none")}, haul.ExitUsage, "", "none"},
		{[]string{dir}, haul.ExitUsage, "", "is a folder"},
		{[]string{file("newer.rdb", []byte("REDIS0099\xff"))}, haul.ExitFailed, "INCOMPLETE", "use a keyhaul that knows"},
		{[]string{file("followed.rdb", append(bytes.Clone(data), "*1\r\n$4\r\nPING\r\n"...))}, haul.ExitFailed, "49 keys", "append-only file"},
		{[]string{file("mark.rdb", append(bytes.Clone(data), strings.Repeat("0a", 20)...))}, haul.ExitDone, "49 keys", ""},
		{[]string{golden, "--flame", filepath.Join(dir, "none", "x.svg")}, haul.ExitUsage, "", "flame graph: "},
		{[]string{packed, "--flame", filepath.Join(dir, ".", "dump.gz")}, haul.ExitUsage, "", "is the snapshot itself"},
		{[]string{packed}, haul.ExitDone, "REDIS0012", ""}, // it is still there
		{nil, haul.ExitUsage, "", "one file"},
		{[]string{golden, "--format", "xml"}, haul.ExitUsage, "", "none of table, json, csv"},
		{[]string{golden, "--for", "oracle-9"}, haul.ExitUsage, "", "--for"},
	} {
		code, stdout, stderr := reported(t, data, tt.args...)
		if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("%q: code %d, want %d\n%s\n%s", tt.args, code, tt.code, stdout, stderr)
		}
	}
	flame := filepath.Join(dir, "flame.svg")
	code, stdout, stderr := reported(t, nil, golden, "--format", "json", "--flame", flame, "--top", "1")
	var r struct {
		Complete bool
		Keys     int64
		Biggest  []any
	}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 0 || !r.Complete || r.Keys != 49 || len(r.Biggest) != 1 {
		t.Errorf("%v, code %d, %+v\n%s", err, code, r, stderr)
	}
	if svg, err := os.ReadFile(flame); err != nil || !bytes.HasPrefix(svg, []byte("<svg ")) {
		t.Errorf("%v, %.100s", err, svg)
	}
}

package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/haul"
	rt "github.com/keyhaul/keyhaul/internal/redistest"
)

// TestSnapshotFileFollowed: what follows a snapshot in its file is not passed over in silence. It may be the commands of an
// append-only file that begins with a snapshot.
func TestSnapshotFileFollowed(t *testing.T) {
	t.Parallel()
	source := rt.Start(t, rt.Options{})
	source.MustDo("SET", "n", "1")
	whole := bytesOf(t, dump(source))
	dir := t.TempDir()
	for name, c := range map[string]struct {
		more string
		code haul.Exit
		text string
	}{
		"commands":           {"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n", haul.ExitFailed, "aof://"},
		"another snapshot":   {string(whole), haul.ExitFailed, "more bytes follow"},
		"half a mark":        {strings.Repeat("0", 20), haul.ExitFailed, "more bytes follow"},
		"mark of redis-cli":  {strings.Repeat("0f", 20), haul.ExitDone, ""},
		"more than the mark": {strings.Repeat("0", 41), haul.ExitFailed, "more bytes follow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target := rt.Start(t, rt.Options{})
			file := fileOf(t, filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), append(whole[:len(whole):len(whole)], c.more...))
			start(t, "--source", "rdb://"+file, "--target", target.URL()).exit(c.code, c.text)
			p := &process{t: t, ended: make(chan struct{}), stdin: strings.NewReader(string(whole) + c.more)}
			p.run(nil, "sync", "--source", "rdb://-", "--target", "jsonl://"+file+".jsonl", "--state-dir", "none", "--http", "").exit(c.code, c.text)
		})
	}
}

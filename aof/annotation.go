package aof

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/keyhaul/keyhaul/internal/feed"
)

// maxAnnotation is how long a line may be that is no command (redis src/aof.c: the buffer of loadSingleAppendOnlyFile).
const maxAnnotation = 1024

// Annotation passes a line of an append-only file that begins with # and is no command, if such a line comes next. Of
// #TS:seconds, which says when the commands behind it were executed, it returns the unix time; of others 0. Errors are
// those of Read.
func Annotation(w *feed.Window) (seconds int64, found bool, err error) {
	b, err := w.Peek()
	if err != nil || b != '#' {
		return 0, false, err
	}
	at := w.Offset()
	var line [maxAnnotation]byte
	for n := range line {
		if line[n], err = w.Byte(); err != nil {
			return 0, false, wrap(at, err)
		}
		if line[n] == '\n' {
			if text, ok := bytes.CutPrefix(line[:n], []byte("#TS:")); ok {
				seconds, err = strconv.ParseInt(string(bytes.TrimSuffix(text, []byte("\r"))), 10, 64)
				if err != nil || seconds < 0 {
					return 0, false, corrupt(at, "a timestamp is no number")
				}
			}
			return seconds, true, nil
		}
	}
	return 0, false, fmt.Errorf("%w: at offset %d: an annotation of more than %d bytes", ErrCorrupt, at, maxAnnotation)
}

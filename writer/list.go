package writer

import (
	"encoding/json"
	"os"
	"sync"
)

// listFile is a file with a line of JSON for each thing that was not simply applied. Without a path it is none. It may be
// used by many goroutines.
type listFile struct {
	path string
	mu   sync.Mutex
	file *os.File
}

func (l *listFile) add(x any) error {
	if l.path == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		l.file = f
	}
	line, err := json.Marshal(x)
	if err != nil {
		return err
	}
	_, err = l.file.Write(append(line, '\n'))
	return err
}

func (l *listFile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
	}
}

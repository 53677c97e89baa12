// Package redistest runs real servers and clusters for tests, demonstrations and benchmarks, loads them, breaks the
// wire between them, and proves that two of them hold the same data.
//
// Everything listens on loopback only, and ends with the test (or with Run) that started it, also if the process dies.
package redistest

import (
	"fmt"
	"os"
	"runtime"
)

// TB is what this package needs of a test. *testing.T and *testing.B satisfy it; Run gives one to programs.
// As in package testing, Fatalf ends the calling goroutine and may only be called by the one that runs the test.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(fn func())
	TempDir() string
}

// Run calls fn with a TB for use outside of tests, then does the cleanups, last registered first. It returns the
// message of Fatalf as an error, or nil. A nil logf drops what is logged.
func Run(logf func(format string, args ...any), fn func(tb TB)) error {
	if logf == nil {
		logf = func(string, ...any) {}
	}
	tb := &programTB{logf: logf}
	done := make(chan struct{})
	go func() { // Fatalf ends this goroutine; Run waits for it
		defer close(done)
		defer tb.cleanup()
		fn(tb)
	}()
	<-done
	return tb.err
}

type programTB struct {
	logf     func(string, ...any)
	cleanups []func()
	err      error
}

func (p *programTB) Helper() {}

func (p *programTB) Logf(format string, args ...any) { p.logf(format, args...) }

func (p *programTB) Cleanup(fn func()) { p.cleanups = append(p.cleanups, fn) }

func (p *programTB) Fatalf(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	runtime.Goexit()
}

func (p *programTB) TempDir() string {
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		p.Fatalf("redistest: %w", err)
	}
	p.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// cleanup does what is registered, what is registered meanwhile included, also after a Fatalf inside of it.
func (p *programTB) cleanup() {
	for len(p.cleanups) > 0 {
		last := p.cleanups[len(p.cleanups)-1]
		p.cleanups = p.cleanups[:len(p.cleanups)-1]
		func() {
			defer func() {
				if len(p.cleanups) > 0 {
					p.cleanup()
				}
			}()
			last()
		}()
	}
}

// skip skips a test, or fails a program, which has nothing to skip to.
func skip(t TB, format string, args ...any) {
	t.Helper()
	if s, ok := t.(interface{ Skipf(string, ...any) }); ok {
		s.Skipf(format, args...)
		return
	}
	t.Fatalf(format, args...)
}

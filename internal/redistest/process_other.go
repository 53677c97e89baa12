//go:build !linux

package redistest

import "syscall"

// processAttributes keeps a terminal's ^C from reaching the server before the test has cleaned up.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}

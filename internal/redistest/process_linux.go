package redistest

import "syscall"

// processAttributes makes the kernel end a server whose test died, and keeps a terminal's ^C from reaching the server
// before the test has cleaned up.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}

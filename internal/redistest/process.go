package redistest

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// starter returns a function that starts processes from one goroutine which lives as long as this process. Linux ties
// Pdeathsig to the thread that started a child, not to the process: a thread that ended early would take the servers
// with it. It is process-wide because the threads are.
var starter = sync.OnceValue(func() func(*exec.Cmd) error {
	type request struct {
		cmd  *exec.Cmd
		done chan<- error
	}
	requests := make(chan request)
	go func() {
		runtime.LockOSThread()
		for r := range requests {
			r.done <- r.cmd.Start()
		}
	}()
	return func(cmd *exec.Cmd) error {
		done := make(chan error, 1)
		requests <- request{cmd, done}
		return <-done
	}
})

// process is a running child. ended is closed when it is gone, and err says how.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
	err   error
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	cmd.SysProcAttr = processAttributes()
	if err := starter()(cmd); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, ended: make(chan struct{})}
	go func() { // ends with the child, for which stop and kill wait
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *process) signal(sig syscall.Signal) error {
	if !p.alive() {
		return errors.New("the process has ended")
	}
	return p.cmd.Process.Signal(sig)
}

// stop asks the process to end, and kills it after grace. It returns once the process is gone.
func (p *process) stop(grace time.Duration) {
	_ = p.signal(syscall.SIGCONT) // a frozen process does not see SIGTERM
	_ = p.signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(grace):
		p.kill()
	}
}

// kill ends the process at once, and returns when it is gone.
func (p *process) kill() {
	_ = p.signal(syscall.SIGKILL)
	<-p.ended
}

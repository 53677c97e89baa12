package checkpoint

import (
	"time"

	"golang.org/x/sys/unix"
)

// bootTime returns the time since the machine was started, that of its suspension included: a worker that wakes up
// must know that it has slept.
func bootTime() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(now.Nano())
}

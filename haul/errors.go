package haul

import (
	"errors"
	"fmt"
)

// Exit says how a run ended; its values are the exit codes of the command.
type Exit int

// Exit codes.
const (
	ExitDone        Exit = 0
	ExitFailed      Exit = 1
	ExitUsage       Exit = 2
	ExitRefused     Exit = 3 // nothing was written
	ExitUnreachable Exit = 4
	ExitHistoryLost Exit = 5
	ExitInterrupted Exit = 6
	ExitHeld        Exit = 7
)

// Error is an error that decides how the run ends, with what the operator can do about it.
type Error struct {
	Exit   Exit
	Err    error
	Remedy string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Errorf builds an Error; format follows fmt.Errorf.
func Errorf(exit Exit, remedy, format string, args ...any) error {
	return &Error{Exit: exit, Remedy: remedy, Err: fmt.Errorf(format, args...)}
}

// ExitOf returns the exit code that err asks for: ExitDone for nil, ExitFailed unless it holds an Error.
func ExitOf(err error) Exit {
	if err == nil {
		return ExitDone
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Exit
	}
	return ExitFailed
}

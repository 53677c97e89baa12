// Command keyhaul moves a running Redis or Valkey data set to another server or cluster and keeps the two in step.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/keyhaul/keyhaul/haul"
)

func main() {
	os.Exit(int(run(os.Args[1:], os.Environ())))
}

// run executes one command line and returns the exit code.
func run(args, environ []string) haul.Exit {
	ctx, stop := withSignals(context.Background())
	defer stop()
	root := newRoot(environ)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return haul.ExitDone
	}
	code := exitCode(err)
	fmt.Fprintf(os.Stderr, "keyhaul: %v\n", err)
	var e *haul.Error
	if errors.As(err, &e) && e.Remedy != "" {
		fmt.Fprintf(os.Stderr, "What to do: %s.\n", e.Remedy)
	}
	return code
}

// exitCode maps an error of a command to the documented code.
func exitCode(err error) haul.Exit {
	var usage usageError
	var wrong mistakes
	switch {
	case errors.As(err, &usage), errors.As(err, &wrong):
		return haul.ExitUsage
	case errors.Is(err, haul.ErrInterrupted):
		return haul.ExitInterrupted
	}
	return haul.ExitOf(err)
}

// usageError is a command line that cobra does not understand.
type usageError struct{ error }

// flagError names the flag that an unknown one may have been meant as.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return usageError{err}
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if name := nearest(unknown.GetSpecifiedName(), names); name != "" {
		return usageError{fmt.Errorf("%w: did you mean --%s?", err, name)}
	}
	return usageError{fmt.Errorf("%w: see keyhaul %s --help", err, cmd.Name())}
}

func newRoot(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:   "keyhaul",
		Short: "Move a running Redis or Valkey data set to another server or cluster, and keep the two in step",
		Long: `keyhaul copies a live Redis or Valkey data set to another server or cluster, and follows the source's writes
until you cut over. It reads as a replica does and never writes to the source.`,
		Example: `  keyhaul check --source redis://old:6379 --target redis://new:6379
  keyhaul sync --source redis://old:6379 --target redis://new:6379 --until caught-up
  keyhaul sync --config /etc/keyhaul/daemon.yaml
  keyhaul status`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, c := range []*cobra.Command{newCheck(environ), newSync(environ), newVerify(environ), newStatus(environ), newFinish(environ), newCleanup(environ), newVersion(), newRDB()} {
		if c.Args == nil {
			c.Args = noArgs
		}
		root.AddCommand(c)
	}
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{fmt.Errorf("unknown command %q: see keyhaul --help", args[0])}
		}
		return cmd.Help()
	}
	root.Args = cobra.ArbitraryArgs
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes flags, and no argument such as %q: see keyhaul %s --help", cmd.Name(), args[0], cmd.Name())}
	}
	return nil
}

// withSignals returns a context that the first SIGINT or SIGTERM ends; the second ends the process.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			cancel(fmt.Errorf("%w by %v", haul.ErrInterrupted, s))
		case <-done:
			return
		}
		select {
		case <-signals:
			os.Exit(int(haul.ExitInterrupted))
		case <-done:
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

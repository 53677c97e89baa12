package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyhaul/keyhaul/haul"
	"github.com/keyhaul/keyhaul/internal/rdbfile"
	"github.com/keyhaul/keyhaul/rdb"
	"github.com/keyhaul/keyhaul/rdb/inventory"
)

// rdbFlags are those of keyhaul rdb.
type rdbFlags struct {
	top       int
	separator string
	flame     string
	format    string
	release   string
}

// Formats of a report.
const formatTable, formatCSV = "table", "csv"

func newRDB() *cobra.Command {
	var f rdbFlags
	cmd := &cobra.Command{
		Use:   "rdb FILE",
		Short: "Report what a snapshot file holds",
		Long: `rdb reads a snapshot file and tells what is in it: keys, bytes and elements by database and type, the biggest keys and
prefixes, when keys expire, how long they were not used, function libraries, and what the server said of itself. FILE may
be packed by gzip or zstd; - is standard input. Memory is an estimate. Nothing is sent anywhere.

It exits with 1 if the file is damaged (what was read before is printed), and with 3 if --for finds what that release
could not hold.`,
		Example: `  keyhaul rdb dump.rdb
  keyhaul rdb dump.rdb --top 50 --flame memory.svg
  keyhaul rdb dump.rdb.zst --for redis-7.0
  redis-cli --rdb - | keyhaul rdb - --format json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("rdb takes one file, or - for standard input: see keyhaul rdb --help")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd.Context(), args[0], cmd.OutOrStdout())
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.IntVar(&f.top, "top", 20, "list this `number` of biggest keys and prefixes")
	flags.StringVar(&f.separator, "separator", ":", "`text` between the parts of a key's name; empty for no prefixes")
	flags.StringVar(&f.flame, "flame", "", "write memory by prefix to this `file`, as a flame graph (SVG)")
	flags.StringVar(&f.format, "format", formatTable, "`format` of the report: table, json or csv")
	flags.StringVar(&f.release, "for", "", "tell what this `release` could not hold, such as redis-7.0 or valkey-9.1")
	return cmd
}

func (f rdbFlags) run(ctx context.Context, name string, out io.Writer) error {
	opts := inventory.Options{Top: f.top, Separator: f.separator, Now: time.Now()}
	formats := []string{formatTable, formatJSON, formatCSV}
	if !slices.Contains(formats, f.format) {
		return usageError{fmt.Errorf("--format %q is none of %s", f.format, strings.Join(formats, ", "))}
	}
	if f.top < 0 || f.top > 10_000 {
		return usageError{fmt.Errorf("--top %d is no number between 0 and 10000", f.top)}
	}
	if f.release != "" {
		release, err := rdb.ParseRelease(f.release)
		if err != nil {
			return usageError{fmt.Errorf("--for: %w", err)}
		}
		opts.For = inventory.NewCheck(release)
	}
	file, err := rdbfile.Open(name)
	if err != nil {
		return haul.Errorf(haul.ExitUsage, "name a snapshot file that can be read", "%w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	flame, err := f.createFlame(file)
	if err != nil {
		return err
	}
	r, readErr := inventory.Read(ctx, file.Name, file, opts)
	if err := f.write(r, out, flame); err != nil {
		return err
	}
	if readErr != nil {
		return unread(file.Name, readErr)
	}
	if r.For != nil && len(r.For.Lacks) > 0 {
		return haul.Errorf(haul.ExitRefused, "", "%s cannot hold all of this snapshot: the report says what it lacks", f.release)
	}
	return nil
}

// unread says why a snapshot was not read to its end, and what to do.
func unread(name string, err error) error {
	switch {
	case errors.Is(err, rdb.ErrFollowed):
		return haul.Errorf(haul.ExitFailed, "if it is an append-only file, these are commands, which are not in the report", "%s: %w", name, err)
	case errors.Is(err, rdb.ErrUnsupported):
		return haul.Errorf(haul.ExitFailed, "use a keyhaul that knows the release which made the file", "%s: %w", name, err)
	}
	return haul.Errorf(haul.ExitFailed, "look whether it is a snapshot (dump.rdb); if it is, make it anew or copy it again", "%s is not whole: %w", name, err)
}

// createFlame creates the file of the flame graph before a long report is made. It is nil if there is to be none.
func (f rdbFlags) createFlame(snapshot *rdbfile.File) (*os.File, error) {
	if f.flame == "" {
		return nil, nil
	}
	if snapshot.Is(f.flame) {
		return nil, usageError{fmt.Errorf("--flame %s is the snapshot itself: name another file", f.flame)}
	}
	flame, err := os.Create(f.flame)
	if err != nil {
		return nil, haul.Errorf(haul.ExitUsage, "name a file that keyhaul may write to", "flame graph: %w", err)
	}
	return flame, nil
}

// write puts out the report, and the flame graph.
func (f rdbFlags) write(r *inventory.Report, out io.Writer, flame *os.File) error {
	write := map[string]func(io.Writer) error{formatTable: r.Table, formatJSON: r.JSON, formatCSV: r.CSV}[f.format]
	err := write(out)
	if flame == nil {
		return err
	}
	if flameErr := errors.Join(r.Flame(flame), flame.Close()); flameErr != nil {
		err = errors.Join(err, fmt.Errorf("flame graph: %w", flameErr))
	}
	return err
}

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/keyhaul/keyhaul/haul"
)

func laneNumber(i int) string { return strconv.Itoa(i) }

func newStatus(environ []string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what a running keyhaul is doing",
		Long: `status asks the keyhaul that runs on this machine under the same --name and --state-dir. It exits with 0 if that
one is ready, 3 if it is not, 4 if none answers.`,
		Example: `  keyhaul status
  keyhaul status --name orders --json | jq ".links[0].lag_seconds"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, environ)
			if err != nil {
				return err
			}
			return showStatus(cmd.Context(), cfg, asJSON, cmd.OutOrStdout())
		},
	}
	addSettings(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the whole status as JSON")
	return cmd
}

func showStatus(ctx context.Context, cfg config, asJSON bool, out io.Writer) error {
	addr := cfg.HTTP
	if cfg.StateDir != "" {
		b, err := os.ReadFile(filepath.Join(cfg.StateDir, cfg.Name, httpAddrFile))
		if err == nil {
			addr = strings.TrimSpace(string(b))
		} else if !cfg.HTTPExplicit {
			return haul.Errorf(haul.ExitUnreachable, "give the --name and --state-dir that it was started with",
				"no keyhaul named %q has run with state directory %s", cfg.Name, cfg.StateDir)
		}
	}
	if addr == "" {
		return haul.Errorf(haul.ExitUnreachable, "give --http the address of the one that runs; one that was started with an empty --http cannot be asked",
			"no address of a keyhaul is known: http is empty")
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/v1/status", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return haul.Errorf(haul.ExitUnreachable, "start it, or look at its log", "no keyhaul answers at %s: %w", addr, err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var r report
	if err := json.Unmarshal(body, &r); err != nil {
		return fmt.Errorf("status of %s: %w", addr, err)
	}
	if len(r.Links) == 0 {
		return fmt.Errorf("status of %s: it names no link: is that a keyhaul of another version?", addr)
	}
	if asJSON {
		_, err = out.Write(body)
	} else {
		_, err = io.WriteString(out, statusText(r))
	}
	if err == nil && !r.Ready {
		return haul.Errorf(haul.ExitRefused, "", "it is not ready: %s", r.Phase)
	}
	return err
}

// statusText is the status for people.
func statusText(r report) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s "+format+"\n", append([]any{name}, args...)...)
	}
	line("haul", "%s, version %s, process %d, since %s", r.Name, r.Version, r.PID, r.Started.Format(time.RFC3339))
	line("phase", "%s", r.Phase)
	for _, w := range r.Waiting {
		line("waiting", "for %s since %s: %s (to do: %s)", w.Who, w.Since.UTC().Format(time.RFC3339), w.Cause, w.Remedy)
	}
	line("snapshot", "%s", strings.TrimSpace(snapshotHead(r)+snapshotTail(r)))
	for _, l := range r.Links {
		name := l.Source
		if l.Name != "" {
			name = "link " + l.Name + " at " + l.Address
		}
		if r.Links[0].Name != "" {
			name += fmt.Sprintf(" with %d slots", l.Slots)
		}
		line("source", "%s, %s, connected %t, reconnects %d, full syncs %d, partial syncs %d", name, l.Phase, l.Connected, l.Reconnects, l.FullSyncs, l.PartialSyncs)
		if l.SnapshotDone {
			line("  stream", "applied %d, received %d, source at %d; lag %s, %.1f s; spool %s", l.Applied, l.Received, l.SourceOffset,
				size(float64(l.LagBytes)), l.LagSeconds, size(float64(l.Spooled)))
		}
	}
	if r.Unsettled > 0 {
		line("moving", "%d slots of the source are on the move: %s", r.Unsettled, r.UnsettledList)
	}
	all := r.overall()
	line("lag", "%s, %.1f s; %.0f commands/s", size(float64(all.LagBytes)), all.LagSeconds, r.Rate.EntriesPerSecond)
	line("spool", "%s", size(float64(all.Spooled)))
	line("target", "%s, %s, ready %t", r.Target.Target, r.Target.Mode, r.Target.Ready)
	for i, x := range r.Target.Lanes {
		line("lane "+laneNumber(i), "%s %s, %d entries in flight, last reply %.1f s ago, pings %d, reconnects %d, redirects %d",
			x.Address, x.State, x.Entries, x.LastReply, x.Pings, x.Reconnects, x.Redirects)
	}
	for _, x := range r.Target.Slots {
		line("frozen slot", "%d since %s: %s from %s to %s, %d entries wait", x.Slot, x.Since.UTC().Format(time.RFC3339), x.Cause, x.From, x.To, x.Waiting)
	}
	if more := r.Target.FrozenSlots - len(r.Target.Slots); more > 0 {
		line("frozen slot", "and %d more", more)
	}
	for what, n := range r.Target.Counts {
		line("counted", "%s %d", what, n)
	}
	return b.String()
}

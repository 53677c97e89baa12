package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/keyhaul/keyhaul/check"
	"github.com/keyhaul/keyhaul/checkpoint"
	"github.com/keyhaul/keyhaul/haul"
)

// How long the source's rate of writes is measured.
const (
	sampleAtStart = 50 * time.Millisecond // sync is not held up
	sampleOnCheck = time.Second
)

func newCheck(environ []string) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Look for what would make a haul fail or hurt, and write nothing",
		Long: `check asks both ends what sync would need of them, with the settings that sync gets, and names what is wrong, how bad it
is, and what to do. It changes nothing. It exits with 0 if the haul can begin, and with 3 if something is fatal, an end that
cannot be reached or logged in to among it. sync looks for the same when it starts.`,
		Example: `  keyhaul check --source redis://old:6379 --target redis://new:6379
  keyhaul check --config orders.toml --format json | jq -r ".findings[].id"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(cmd, environ)
			if err != nil {
				return err
			}
			if formats := []string{formatTable, formatJSON}; !slices.Contains(formats, format) {
				return usageError{fmt.Errorf("--format %q is none of %s", format, strings.Join(formats, ", "))}
			}
			return newApp(cfg).check(cmd.Context(), format, cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&format, "format", formatTable, "`format` of the findings: table or json")
	addSettings(cmd, "source.url", "target.url")
	return cmd
}

// check prints what is found.
func (a *app) check(ctx context.Context, format string, out io.Writer) error {
	all, err := a.findings(ctx, sampleOnCheck)
	if err != nil {
		return err
	}
	write := check.Table
	if format == formatJSON {
		write = check.JSON
	}
	if err := write(out, all); err != nil {
		return err
	}
	if check.Count(all, check.Fatal) > 0 {
		return haul.Errorf(haul.ExitRefused, "", "%s", check.Verdict(all))
	}
	return nil
}

// findings asks both ends once.
func (a *app) findings(ctx context.Context, sample time.Duration) ([]check.Finding, error) {
	a.log = zerolog.Nop()
	e, err := openEnds(ctx, a.cfg)
	if err != nil {
		return nil, err
	}
	defer e.close()
	pair, err := check.Look(ctx, a.checks(sample))
	if err != nil {
		return nil, err
	}
	return pair.Findings(a.knownState(ctx, pair)), nil
}

// knownState reads what the target knows of the haul, once.
func (a *app) knownState(ctx context.Context, pair *check.Pair) check.State {
	if a.target == nil || !pair.Reached() {
		return check.State{}
	}
	a.openStore(pair.Cluster(), pair.NoTransactions())
	defer a.store.Close()
	st, err := a.store.Load(ctx)
	if errors.Is(err, checkpoint.ErrNewer) {
		return check.State{Known: true, Refused: err, Remedy: "use that version, or another --name"}
	}
	if err != nil {
		return check.State{Unread: err}
	}
	known := check.State{Known: st.Found, Own: st.Own}
	if known.Refused = mayResume(a.cfg, st); known.Refused != nil {
		refused := (*haul.Error)(nil)
		if errors.As(known.Refused, &refused) {
			known.Remedy = refused.Remedy
		}
	}
	return known
}

// checks is what the ends are checked for.
func (a *app) checks(sample time.Duration) check.Config {
	cfg := a.cfg
	return check.Config{
		Source: a.source, Target: a.target, PreferReplica: cfg.PreferReplica, Standalone: cfg.TargetMode == targetStandalone,
		Name: cfg.Name, DBs: cfg.DBs, MustBeEmpty: cfg.Existing == existingFail, Flush: cfg.Existing == existingFlush,
		ExactlyOnce: cfg.Delivery == exactlyOnce, LeavesOut: cfg.Unsupported != unsupportedFail || cfg.OnError == onErrorSkip,
		WaitReplicas: cfg.WaitReplicas, ReplyTimeout: cfg.ReplyTimeout, Pings: cfg.Keepalive.Enabled,
		Connections: max(cfg.SnapshotLanes, defaultLanes) + ownConnections,
		StateDir:    cfg.StateDir, SpoolMax: cfg.Spool.MaxBytes, Sample: sample,
	}
}

// ownConnections are those to a node of the target that carry no data: of the lease, of the store, of questions.
const ownConnections = 4

// refusal is the error of a haul that cannot begin, or not go on; nil if it can.
func refusal(all []check.Finding, goesOn bool) error {
	all = slices.DeleteFunc(slices.Clone(all), func(f check.Finding) bool { return !f.Refuses(goesOn) })
	if len(all) == 0 {
		return nil
	}
	var also string
	if len(all) > 1 {
		also = fmt.Sprintf(" (and %d more: run keyhaul check)", len(all)-1)
	}
	return haul.Errorf(haul.ExitRefused, all[0].Remedy, "%s%s", all[0].Evidence, also)
}

// tell logs what does not refuse the haul.
func (a *app) tell(all []check.Finding) {
	for _, f := range all {
		if f.Severity != check.Info {
			a.log.Warn().Str("id", f.ID).Str("subject", f.Subject).Str("what_to_do", f.Remedy).Msg(f.Evidence)
		}
	}
}

// lookAtBoth asks both ends until every server has answered: one that breaks off just now may hold the keys for which the
// haul is to be refused.
func (a *app) lookAtBoth(ctx context.Context) (pair *check.Pair, err error) {
	look := func(ctx context.Context) error {
		if pair, err = check.Look(ctx, a.checks(sampleAtStart)); err != nil {
			return err
		}
		if f, ok := pair.Unanswered(); ok {
			return &notYet{errors.New(f.Evidence), f.Remedy}
		}
		return nil
	}
	err = patiently(ctx, a.cfg, "source and target", time.Now(), look, a.waits, a.log)
	return pair, err
}

// mayBegin refuses what can be refused before anything is written, and tells of the rest.
func (e *ends) mayBegin(a *app, pair *check.Pair, st *checkpoint.State) error {
	if err := mayResume(a.cfg, st); err != nil {
		return err
	}
	e.keys = max(e.keys-st.Own, 0)
	all := pair.Findings(check.State{Known: st.Found, Own: st.Own})
	if err := refusal(all, st.Found); err != nil {
		return err
	}
	if !a.finishing {
		a.tell(all)
	}
	return nil
}

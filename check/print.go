package check

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Table writes findings for people, and the verdict behind them unless it is an error.
func Table(out io.Writer, all []Finding) error {
	var b strings.Builder
	for _, f := range all {
		fmt.Fprintf(&b, "%s\t%s\t%s\n\t\t%s\n", f.Severity, f.ID, f.Subject, oneLine(f.Evidence))
		if f.Remedy != "" {
			fmt.Fprintf(&b, "\t\tWhat to do: %s.\n", oneLine(f.Remedy))
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if Count(all, Fatal) > 0 { // the error of the command says so
		return nil
	}
	_, err := fmt.Fprintln(out, Verdict(all))
	return err
}

// Verdict is the whole in one line.
func Verdict(all []Finding) string {
	fatal, warn := Count(all, Fatal), Count(all, Warn)
	switch {
	case fatal > 0:
		return fmt.Sprintf("%d fatal, %d to look at: as things are this haul cannot begin.", fatal, warn)
	case warn > 0:
		return fmt.Sprintf("nothing fatal, %d to look at: this haul can begin.", warn)
	}
	return "nothing stands in the way of this haul."
}

// JSON writes findings for scripts.
func JSON(out io.Writer, all []Finding) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		Fatal    int       `json:"fatal"`
		Warn     int       `json:"warn"`
		Info     int       `json:"info"`
		Findings []Finding `json:"findings"`
	}{Count(all, Fatal), Count(all, Warn), Count(all, Info), append([]Finding{}, all...)})
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

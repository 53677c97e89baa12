// Package docs holds the documentation; its tests keep it in step with the code.
package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/keyhaul/keyhaul/check"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rows returns the rows of all tables by each name that stands in backquotes in their first cell.
func rows(text string) map[string]string {
	found := map[string]string{}
	for line := range strings.Lines(text) {
		cells := strings.Split(line, " | ")
		if !strings.HasPrefix(line, "| `") || len(cells) < 2 {
			continue
		}
		for _, name := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[0], -1) {
			found[name[1]] = line
		}
	}
	return found
}

// hidden are settings that --help does not show: the long forms of its short flags among them.
var hidden = []string{"source.url", "target.url", "keepalive.enabled"}

// flags returns the settings' flags that --help shows, with their defaults.
func flags(t *testing.T) map[string]string {
	t.Helper()
	found := flagsOf(t, "sync")
	for name, usual := range flagsOf(t, "verify") {
		if _, ok := found[name]; !ok { // short for verify.NAME
			found["verify-"+name] = usual
		}
	}
	return found
}

func flagsOf(t *testing.T, command string) map[string]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "run", "../cmd/keyhaul", command, "--help")
	cmd.Stderr = os.Stderr
	help, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^ +--([a-z-]+)(?: \S+)?  +.*?(?:\(default ([^()]*)\))?$`)
	found := map[string]string{}
	for _, m := range line.FindAllStringSubmatch(string(help), -1) {
		found[m[1]] = strings.Trim(m[2], `"`)
	}
	for _, own := range []string{"config", "source", "target", "help"} {
		delete(found, own)
	}
	if len(found) < 30 {
		t.Fatalf("only %d flags found in:\n%s", len(found), help)
	}
	return found
}

func TestEverySettingIsDocumented(t *testing.T) {
	known := flags(t)
	table := rows(read(t, "configuration.md"))
	documented := map[string]bool{}
	for key, row := range table {
		flag := strings.ReplaceAll(key, ".", "-")
		documented[flag] = true
		usual, ok := known[flag]
		if !ok && !slices.Contains(hidden, key) {
			t.Errorf("configuration.md has %s, which is no setting", key)
		}
		if !strings.Contains(usual, " ") && !strings.Contains(row, usual) { // a default of several words is explained
			t.Errorf("%s: the default is %q; configuration.md says: %s", key, usual, row)
		}
	}
	for flag := range known {
		if !documented[flag] {
			t.Errorf("--%s is not in configuration.md", flag)
		}
	}
}

func TestEveryMetricIsDocumented(t *testing.T) {
	text := read(t, "metrics.md")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("`keyhaul_([a-z_]+)").FindAllStringSubmatch(text, -1) {
		documented[m[1]] = true
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`desc\("([a-z_]+)"`).FindAllStringSubmatch(read(t, "../cmd/keyhaul/metrics.go")+read(t, "../cmd/keyhaul/verify_watch.go"), -1) {
		known[m[1]] = true
		if !documented[m[1]] {
			t.Errorf("keyhaul_%s is not in metrics.md", m[1])
		}
	}
	for name := range documented {
		if !known[name] {
			t.Errorf("metrics.md has keyhaul_%s, which is no metric", name)
		}
	}
}

func TestEveryStatusFieldIsDocumented(t *testing.T) {
	text := read(t, "metrics.md")
	for _, file := range []string{"../haul/status.go", "../cmd/keyhaul/monitor.go", "../cmd/keyhaul/summary.go"} {
		for _, m := range regexp.MustCompile(`json:"([a-z_]+)`).FindAllStringSubmatch(read(t, file), -1) {
			switch name := m[1]; name {
			case "links", "rate", "lanes": // parts of the others' names
			default:
				if !regexp.MustCompile("[`.]" + name + "`").MatchString(text) {
					t.Errorf("%s: %s is not in metrics.md", file, name)
				}
			}
		}
	}
}

func TestEveryCountIsDocumented(t *testing.T) {
	documented := rows(read(t, "metrics.md"))
	files, err := filepath.Glob("../writer/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, m := range regexp.MustCompile(`(?:\.count\(|counts\[)"([a-z_]+[a-z])"`).FindAllStringSubmatch(read(t, file), -1) {
			names = append(names, m[1])
		}
	}
	drops := regexp.MustCompile(`string\{"none", ([^}]*)\}\[d\]`).FindStringSubmatch(read(t, "../haul/entry.go"))
	if drops == nil {
		t.Fatal("the names of drops are not found")
	}
	for name := range strings.SplitSeq(drops[1], ", ") {
		names = append(names, "dropped_"+strings.Trim(name, `"`))
	}
	if len(names) < 8 {
		t.Fatalf("only %q found", names)
	}
	for _, name := range names {
		if documented[name] == "" {
			t.Errorf("the count %s is not in metrics.md", name)
		}
	}
}

func TestEveryExitCodeIsDocumented(t *testing.T) {
	codes := regexp.MustCompile(`(?m)^\tExit\w+ +Exit = (\d+)`).FindAllStringSubmatch(read(t, "../haul/errors.go"), -1)
	if len(codes) < 8 {
		t.Fatalf("%d exit codes found", len(codes))
	}
	for _, file := range []string{"../README.md", "operations.md"} {
		text := read(t, file)
		for _, code := range codes {
			if !strings.Contains(text, "\n| "+code[1]+" | ") {
				t.Errorf("exit code %s is not in %s", code[1], file)
			}
		}
	}
}

func TestEveryFindingIsDocumented(t *testing.T) {
	documented := map[string][2]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| ([a-z, ]+) \\| ([a-z– ]+) \\| ").FindAllStringSubmatch(read(t, "check.md"), -1) {
		documented[m[1]] = [2]string{m[2], m[3]}
	}
	known := check.Kinds()
	for id, how := range known {
		if documented[id] != how {
			t.Errorf("%s is %q, and in check.md %q", id, how, documented[id])
		}
	}
	for id := range documented {
		if _, ok := known[id]; !ok {
			t.Errorf("check.md has %s, which is no finding", id)
		}
	}
}

func TestLinks(t *testing.T) {
	for _, pattern := range []string{"../README.md", "*.md", "decisions/*.md"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", pattern, len(files), err)
		}
		for _, file := range files {
			for _, m := range regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(read(t, file), -1) {
				if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
					t.Errorf("%s links to %s: %v", file, m[1], err)
				}
			}
		}
	}
}

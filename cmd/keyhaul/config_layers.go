package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/viper"
)

// mistakes are everything that is wrong with a configuration.
type mistakes []mistake

// mistake is one of them. It never holds a secret.
type mistake struct {
	key    string // of the setting, the variable or the file
	origin string // flag, variable or file that it came from; may be empty
	what   string
}

func (m mistake) Error() string {
	if m.origin == "" {
		return m.key + " " + m.what
	}
	return m.key + " (" + m.origin + "): " + m.what
}

func (ms mistakes) Error() string {
	if len(ms) == 1 {
		return "configuration: " + ms[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d mistakes", len(ms))
	for _, m := range ms {
		b.WriteString("\n  " + m.Error())
	}
	return b.String()
}

func (ms mistakes) Unwrap() []error {
	errs := make([]error, len(ms))
	for i, m := range ms {
		errs[i] = m
	}
	return errs
}

// value is the text of a setting and where it came from; an empty origin is the default.
type value struct {
	texts  []string // several for a list only
	origin string
}

func (v value) text() string {
	if len(v.texts) == 0 {
		return ""
	}
	return v.texts[0]
}

// resolver lays the layers of a configuration over each other. The precedence is not left to viper because each
// mistake names where its setting came from, and because environments come from outside in tests.
type resolver struct {
	values   map[string]value
	env      map[string]string
	spoiled  map[string]bool // settings about which a mistake is noted
	mistakes mistakes
}

func (r *resolver) mistake(key, origin, what string) {
	if r.spoiled == nil {
		r.spoiled = map[string]bool{}
	}
	r.spoiled[key] = true
	r.mistakes = append(r.mistakes, mistake{key, origin, what})
}

// explicit tells whether a setting was given anywhere.
func (r *resolver) explicit(key string) bool { return r.values[key].origin != "" }

func environment(environ []string) map[string]string {
	env := map[string]string{}
	for _, pair := range environ {
		if name, text, ok := strings.Cut(pair, "="); ok {
			env[name] = text
		}
	}
	return env
}

func (r *resolver) addDefaults() {
	for _, s := range settings() {
		v := value{}
		if s.kind != kindList {
			v.texts = []string{s.value}
		}
		r.values[s.key] = v
	}
}

// configFile returns the file to read and what named it.
func configFile(cmd *cobra.Command, env map[string]string) (path, origin string) {
	if f := cmd.Flags().Lookup("config"); f != nil && f.Changed {
		return f.Value.String(), "--config"
	}
	return env["KEYHAUL_CONFIG"], "KEYHAUL_CONFIG"
}

// fileKeyDelimiter joins the nested keys of a file inside viper: no key holds it, while many values hold dots.
const fileKeyDelimiter = "\x1f"

func (r *resolver) addFile(path, origin string) {
	if path == "" {
		if origin == "--config" {
			r.mistake(origin, "", "names no file")
		}
		return
	}
	if !slices.Contains([]string{".toml", ".yaml", ".yml"}, strings.ToLower(filepath.Ext(path))) {
		r.mistake(path, origin, "is no configuration file: its name must end in .toml, .yaml or .yml")
		return
	}
	v := viper.NewWithOptions(viper.KeyDelimiter(fileKeyDelimiter))
	v.SetConfigFile(path)
	if err := v.ReadInConfig(); err != nil {
		r.mistake(path, origin, "cannot be read: "+fileError(err))
		return
	}
	known := map[string]setting{}
	for _, s := range settings() {
		known[s.key] = s
		if s.alias != "" {
			known[s.alias] = s
		}
	}
	keys := v.AllKeys()
	slices.Sort(keys)
	seen := map[string]bool{}
	for _, raw := range keys {
		key := strings.ReplaceAll(raw, fileKeyDelimiter, ".")
		s, ok := known[key]
		switch {
		case !ok && parentIn(key, known) != "":
			key = parentIn(key, known)
			if !seen[key] {
				r.mistake(key, path, "must be a "+string(known[key].kind)+", not a table")
			}
		case !ok:
			r.mistake(key, path, "is unknown"+didYouMean(nearest(key, settingKeys())))
		case seen[s.key]:
			r.mistake(s.key, path, "is given twice, in a long and in a short form")
		default:
			r.fromFile(s, path, v.Get(raw))
		}
		seen[s.key], seen[key] = true, true
	}
}

// parentIn returns the known setting that a key lies below, if it is no alias: a list written as a table.
func parentIn(key string, known map[string]setting) string {
	for {
		i := strings.LastIndexByte(key, '.')
		if i < 0 {
			return ""
		}
		key = key[:i]
		if s, ok := known[key]; ok && s.key == key {
			return key
		}
	}
}

func didYouMean(candidate string) string {
	if candidate == "" {
		return ": see --help for all settings"
	}
	return ": did you mean " + candidate + "?"
}

func (r *resolver) fromFile(s setting, path string, raw any) {
	list, isList := raw.([]any)
	switch raw.(type) {
	case string, bool, int, int64, uint64, float64:
		list = []any{raw}
	case []any:
	default:
		r.mistake(s.key, path, "must be a "+string(s.kind))
		return
	}
	if isList && s.kind != kindList {
		r.mistake(s.key, path, "must be one "+string(s.kind)+", not a list")
		return
	}
	v := value{origin: path}
	for _, e := range list {
		v.texts = append(v.texts, fmt.Sprint(e))
	}
	if !isList && s.kind == kindList {
		v.texts = splitList(v.texts[0])
	}
	r.values[s.key] = v
}

func splitList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// quoted is what YAML's errors repeat of a file, which may be a secret.
var quoted = regexp.MustCompile("`[^`]*`")

// fileError says why a file cannot be read, without repeating what is in it.
func fileError(err error) string {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err.Error()
	}
	text := strings.TrimPrefix(quoted.ReplaceAllString(err.Error(), "…"), "While parsing config: ")
	var at interface{ Position() (row, column int) } // a TOML error
	if errors.As(err, &at) {
		row, column := at.Position()
		text = fmt.Sprintf("line %d, column %d: %s", row, column, text)
	}
	return strings.Join(strings.Fields(text), " ")
}

// foreign are variables that start with KEYHAUL_ and are none of ours: tests' own, and those that Kubernetes gives
// every pod of a namespace for each service whose name starts with keyhaul (KEYHAUL_SERVICE_HOST, KEYHAUL_PORT_…).
var foreign = regexp.MustCompile(`^KEYHAUL_(TEST_.*|SERVERS|CONFIG|(.+_)?(SERVICE_HOST|SERVICE_PORT|SERVICE_PORT_.+|PORT|PORT_\d+_(TCP|UDP|SCTP)(_.+)?))$`)

func (r *resolver) addEnvironment() {
	known := map[string]setting{}
	var names []string
	for _, s := range settings() {
		known[key2env(s.key)] = s
		names = append(names, key2env(s.key))
		if s.alias != "" {
			known[key2env(s.alias)] = s
		}
	}
	var given []string
	for name := range r.env {
		if strings.HasPrefix(name, "KEYHAUL_") {
			given = append(given, name)
		}
	}
	slices.Sort(given)
	for _, name := range given {
		s, ok := known[name]
		switch {
		case ok && r.env[name] == "" && s.kind != kindString: // a variable that a script left empty
		case ok && strings.HasPrefix(r.values[s.key].origin, "KEYHAUL_"):
			r.mistake(s.key, name, "is given twice, also as "+r.values[s.key].origin)
		case ok:
			r.values[s.key] = value{texts: []string{r.env[name]}, origin: name}
			if s.kind == kindList {
				r.values[s.key] = value{texts: splitList(r.env[name]), origin: name}
			}
		case !foreign.MatchString(name):
			r.mistake(name, "environment", "is unknown"+didYouMean(nearest(name, names)))
		}
	}
}

func (r *resolver) addFlags(cmd *cobra.Command) {
	for _, s := range settings() {
		for _, key := range []string{s.key, s.alias} {
			name := strings.ReplaceAll(key, ".", "-")
			f := cmd.Flags().Lookup(name)
			if key == "" || f == nil || !f.Changed {
				continue
			}
			v, ok := f.Value.(*flagValue)
			if !ok {
				continue
			}
			if before := r.values[s.key].origin; strings.HasPrefix(before, "--") {
				r.mistake(s.key, "--"+name, "is given twice, also as "+before)
				continue
			}
			r.values[s.key] = value{texts: v.texts, origin: "--" + name}
		}
	}
}
